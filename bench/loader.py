# ruff: noqa: INP001 - for the scripts beside it, not a package
"""A DataLoader over the mirror beside the same loader reading one URL at a time with requests.

Both read the same objects from one server on loopback that answers each request after 50 ms. They use
two workers and batches of 64, decode the images, and cut tensors of 224 × 224 out of them. Each runs in a
separate process (`python bench/loader.py READER ADDRESS`), without caches. The time includes the start
and the end of the workers.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peers
from measure import BENCH, ROOT, Runs, alternately, by_name, printing_cost
from results import Part

sys.path.insert(0, str(ROOT))

from mirror.config.loading import Layer, merge
from mirror.config.settings import Settings
from mirror.content.digest import digest_of
from mirror.layout import object_key
from mirror.sync.run_sync import sync
from tests.support.photos import fill, photo, url_of

HOME = BENCH / "loader"
IMAGES = 1024
LATENCY = 0.05  # seconds
BATCH = 64
WORKERS = 2
SIDE = 256  # pixels: about 10 kB
CROP = 224


def settings_of(**sections: dict[str, str]) -> Settings:
    place = {
        "bucket": {"url": f"file://{HOME}/mirror"},
        "state": {"dir": str(HOME / "state")},
    }
    return merge([Layer("server", sections), Layer("bench", place)])


def prepare() -> None:
    if (HOME / "ready").exists():
        return
    shutil.rmtree(HOME, ignore_errors=True)
    fill(HOME / "cache", {url_of(n): photo(n, SIDE) for n in range(IMAGES)})
    sync(settings_of(cache={"dir": str(HOME / "cache")}))
    records = ({"image_url": url_of(n), "species": f"{n % 10}"} for n in range(IMAGES))
    (HOME / "train.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records))
    (HOME / "ready").touch()


async def serve(root: Path) -> None:
    """Serve files below a folder, each after `LATENCY`, independent of other requests."""

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = (root / head.split(b" ")[1].decode().lstrip("/")).read_bytes()
                await asyncio.sleep(LATENCY)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (EOFError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(attend, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


@contextmanager
def distant() -> Iterator[str]:
    """Start a server with `LATENCY`. Yields its address."""
    command = [sys.executable, __file__, "server", str(HOME / "mirror")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def to_tensor(image: Any) -> Any:
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(image)[:CROP, :CROP].transpose(2, 0, 1).copy())


class OneAtATime:
    """A common loader: one request for each sample, over a persistent session."""

    def __init__(self, urls: list[str]) -> None:
        self._urls = urls
        self._session: Any = None

    def __len__(self) -> int:
        return len(self._urls)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import requests

        from mirror.torch import rgb

        if self._session is None:
            self._session = requests.Session()
        answer = self._session.get(self._urls[index], timeout=30)
        answer.raise_for_status()
        return to_tensor(rgb(answer.content)), index % 10


def loader_of(reader: str, address: str) -> Any:
    from torch.utils.data import DataLoader

    from mirror import Fetcher
    from mirror.torch import MirrorDataset, MirrorIterableDataset

    if reader == "requests":
        keys = (object_key(digest_of(photo(n, SIDE)).content_hash, "jpeg") for n in range(IMAGES))
        old: Any = OneAtATime([f"{address}/{key}" for key in keys])
        return DataLoader(old, BATCH, shuffle=True, num_workers=WORKERS)
    fetch = Fetcher(settings_of(bucket={"public_url": address}))
    options: dict[str, Any] = {"label_field": "species", "transform": to_tensor}
    path = HOME / "train.jsonl"
    if reader == "MirrorDataset":
        dataset = MirrorDataset(path, fetch, **options)
        return DataLoader(dataset, BATCH, shuffle=True, num_workers=WORKERS)
    stream = MirrorIterableDataset(path, fetch, batch_size=BATCH, **options)
    return DataLoader(stream, BATCH, num_workers=WORKERS)


def epoch(reader: str, address: str) -> None:
    loader = loader_of(reader, address)
    with printing_cost():
        seen = sum(len(labels) for _, labels in loader)
    if seen != IMAGES:
        raise RuntimeError(f"{reader} gave {seen} images, not {IMAGES}")


def run(rounds: int) -> Runs:
    prepare()
    with distant() as address:
        names = ("MirrorDataset", "MirrorIterableDataset", "requests")
        return alternately(by_name(__file__, names, address, peers.readers()), rounds)


PARTS = [
    Part(
        "loader",
        "an epoch of 1,024 images of 10 kB, 50 ms to each answer, 2 workers, batches of 64",
        run,
        ("torch", "aiohttp", "requests"),
    )
]

if __name__ == "__main__":
    if sys.argv[1] == "server":
        asyncio.run(serve(Path(sys.argv[2])))
    epoch(*sys.argv[1:])
