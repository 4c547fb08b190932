# ruff: noqa: INP001, T201 - a script, not a package
"""A DataLoader over the mirror beside the same loader reading one URL at a time with requests.

    python bench/loader.py [--latency 0.05] [--rounds 3]

Both read the same objects from one server on loopback that answers each request after so long, with
two workers and batches of 64, decode them and cut tensors of 224 × 224 out of them. They run in turns, each in a
process of its own, with caches of neither; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import requests  # noqa: E402
import torch  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from mirror import Fetcher  # noqa: E402
from mirror.config import Layer, Settings, merge  # noqa: E402
from mirror.content.digest import digest_of  # noqa: E402
from mirror.fetch.torch import MirrorDataset, MirrorIterableDataset, rgb  # noqa: E402
from mirror.layout import object_key  # noqa: E402
from mirror.sync.run import sync  # noqa: E402
from tests.photos import fill, photo, url_of  # noqa: E402

BAR = 10.0
BATCH = 64
WORKERS = 2
SIDE = 256  # pixels: about 10 kB
CROP = 224
# Catalogs are read by deltalake, which does not work in a child of a process that has used it.
SPAWN = multiprocessing.get_context("spawn")


def settings_of(folder: Path, **sections: dict[str, str]) -> Settings:
    place = {
        "bucket": {"url": f"file://{folder}/mirror"},
        "state": {"dir": str(folder / "state")},
    }
    return merge([Layer("server", sections), Layer("bench", place)])


def prepare(folder: Path, images: int) -> None:
    fill(folder / "cache", {url_of(n): photo(n, SIDE) for n in range(images)})
    sync(settings_of(folder, cache={"dir": str(folder / "cache")}))
    records = ({"image_url": url_of(n), "species": f"{n % 10}"} for n in range(images))
    (folder / "train.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records))


async def serve(root: Path, latency: float, told: Any) -> None:
    """GETs of files below a folder, each answered after `latency` seconds, whatever else goes on."""

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = (root / head.split(b" ")[1].decode().lstrip("/")).read_bytes()
                await asyncio.sleep(latency)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (EOFError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(attend, "127.0.0.1", 0, backlog=1024)
    told.put(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def serving(root: Path, latency: float, told: Any) -> None:
    asyncio.run(serve(root, latency, told))


@contextmanager
def server(root: Path, latency: float) -> Iterator[str]:
    told: Any = SPAWN.Queue()
    process = SPAWN.Process(target=serving, args=(root, latency, told), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{told.get()}"
    finally:
        process.terminate()
        process.join()


def to_tensor(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image)[:CROP, :CROP].transpose(2, 0, 1).copy())


class OneAtATime:
    """As the old loader did it: a request a sample, over a session that is kept."""

    def __init__(self, urls: list[str]) -> None:
        self._urls = urls
        self._session: requests.Session | None = None

    def __len__(self) -> int:
        return len(self._urls)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self._session is None:
            self._session = requests.Session()
        answer = self._session.get(self._urls[index], timeout=30)
        answer.raise_for_status()
        return to_tensor(rgb(answer.content)), index % 10


def loader_of(reader: str, folder: Path, address: str, images: int) -> DataLoader[Any]:
    # Said, because a process that was spawned would spawn its workers, too.
    how: dict[str, Any] = {"num_workers": WORKERS, "multiprocessing_context": "fork"}
    if reader == "requests":
        keys = (object_key(digest_of(photo(n, SIDE)).content_hash, "jpeg") for n in range(images))
        old: Any = OneAtATime([f"{address}/{key}" for key in keys])
        return DataLoader(old, BATCH, shuffle=True, **how)
    fetch = Fetcher(settings_of(folder, bucket={"public_url": address}))
    options: dict[str, Any] = {"label_field": "species", "transform": to_tensor}
    path = folder / "train.jsonl"
    if reader == "MirrorDataset":
        return DataLoader(MirrorDataset(path, fetch, **options), BATCH, shuffle=True, **how)
    stream = MirrorIterableDataset(path, fetch, batch_size=BATCH, **options)
    return DataLoader(stream, BATCH, **how)


def epoch(reader: str, folder: Path, address: str, images: int, told: Any) -> None:
    loader = loader_of(reader, folder, address, images)
    began, used = time.perf_counter(), cpu_seconds()
    seen = sum(len(labels) for _, labels in loader)
    told.put((seen, time.perf_counter() - began, cpu_seconds() - used))


def cpu_seconds() -> float:
    """Of this process and of its workers that have ended."""
    uses = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def timed(reader: str, folder: Path, address: str, images: int) -> tuple[float, float]:
    """Seconds of an epoch in a fresh process, workers' start and end included; and of CPU."""
    told: Any = SPAWN.Queue()
    process = SPAWN.Process(target=epoch, args=(reader, folder, address, images, told))
    process.start()
    process.join()
    assert process.exitcode == 0, reader
    seen, seconds, cpu = told.get()
    assert seen == images, (reader, seen)
    return seconds, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description="A DataLoader over the mirror beside requests.")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds a request waits")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    readers = ("requests", "MirrorDataset", "MirrorIterableDataset")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.images)
        times: dict[str, list[float]] = {reader: [] for reader in readers}
        with server(folder / "mirror", options.latency) as address:
            for _ in range(options.rounds):
                for reader in readers:
                    seconds, cpu = timed(reader, folder, address, options.images)
                    times[reader].append(seconds)
                    print(f"{reader:24}{seconds:8.2f} s {cpu:8.2f} s CPU", flush=True)
    print(
        f"\n{options.images} images, {WORKERS} workers, batches of {BATCH}, {options.latency} s each:"
    )
    for reader in readers:
        ratios = [old / new for old, new in zip(times["requests"], times[reader], strict=True)]
        best, middle = statistics.median(times[reader]), statistics.median(ratios)
        verdict = (
            "" if reader == "requests" else f"  bar {BAR:g}: {'met' if middle >= BAR else 'MISSED'}"
        )
        print(f"{reader:24}{best:8.2f} s  {middle:6.1f} ×{verdict}")


if __name__ == "__main__":
    main()
