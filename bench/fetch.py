# ruff: noqa: INP001, T201 - a script, not a package
"""`fetch.many` beside other ways to read the same objects from one server on loopback.

    python bench/fetch.py                    everything, five rounds
    python bench/fetch.py --rounds 9 --only mirror,s3torchconnectorclient

10,000 objects of 45 kB, served by nginx (`apt install nginx-light`). Every reader checks the XXH3
of what it reads. Each runs in a process of its own, in turn, round by round, and ratios are taken
within a round: what else the machine does then hits all alike. The readers that are not ours are
installed by whoever wants to compare: requests, s3torchconnectorclient.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import xxhash

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mirror import Fetcher  # noqa: E402
from mirror.catalog.index import Index  # noqa: E402
from mirror.config import Layer, Settings, merge  # noqa: E402
from mirror.sync.run import sync  # noqa: E402
from tests.photos import name_of, url_of  # noqa: E402

BENCH = ROOT / ".bench" / "fetch"
OBJECTS = 10_000
SIZE = 45_000
THREADS = 32
BUCKET = "bench"

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 10000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  open_file_cache max=20000 inactive=600s;
  types {{ image/jpeg jpg; }}
  server {{ listen 127.0.0.1:{port} backlog=1024; root {folder}/www; }}
}}
"""


Spent = tuple[float, float]  # seconds of wall and of CPU time


def clocks() -> Spent:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime


def since(began: Spent) -> Spent:
    wall, cpu = clocks()
    return wall - began[0], cpu - began[1]


def settings_of(port: int, scheme: str, **fetch: str) -> Settings:
    """A mirror in a folder that nginx serves: by public URLs, or by signed ones as S3 would."""
    bucket = {"url": f"file://{BENCH}/www/{BUCKET}"}
    if scheme == "public":
        bucket["public_url"] = f"http://127.0.0.1:{port}/{BUCKET}"
    elif scheme == "signed":
        bucket = {"url": f"s3://{BUCKET}", "endpoint": f"http://127.0.0.1:{port}", "region": "auto"}
    return merge(
        [Layer("bench", {"bucket": bucket, "state": {"dir": f"{BENCH}/state"}, "fetch": fetch})]
    )


def prepare() -> None:
    """The mirror, made once."""
    if (BENCH / "ready").exists():
        return
    shutil.rmtree(BENCH, ignore_errors=True)
    cache = BENCH / "cache"
    cache.mkdir(parents=True)
    print("making the mirror …", file=sys.stderr)
    for number in range(OBJECTS):
        body = b"\xff\xd8\xff" + random.Random(number).randbytes(SIZE - 3)  # noqa: S311
        (cache / name_of(url_of(number))).write_bytes(body)
    settings = settings_of(0, "folder")
    place = {"dir": str(cache)}
    sync(
        merge(
            [
                Layer(
                    "bench",
                    {
                        "cache": place,
                        "sync": {"inspect": "off"},
                        "state": {"dir": settings.state.dir},
                        "bucket": {"url": settings.bucket.url},
                    },
                )
            ]
        )
    )
    (BENCH / "ready").touch()


@contextmanager
def nginx() -> Iterator[int]:
    """Nginx on a free port of loopback."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if not os.access(program, os.X_OK):
        sys.exit("bench/fetch.py needs nginx: apt install nginx-light")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = BENCH / "nginx.conf"
    config.write_text(NGINX.format(folder=BENCH, port=port))
    server = subprocess.Popen([program, "-c", config], stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.02)
        yield port
    finally:
        server.terminate()
        server.wait()


def keys() -> list[str]:
    found = sorted((BENCH / "www" / BUCKET / "objects").glob("*/*.jpg"))
    names = [str(path.relative_to(BENCH / "www" / BUCKET)) for path in found]
    random.Random(0).shuffle(names)  # noqa: S311
    return names


def urls() -> list[str]:
    numbers = list(range(OBJECTS))
    random.Random(0).shuffle(numbers)  # noqa: S311
    return [url_of(number) for number in numbers]


def checked(key: str, data: bytes) -> None:
    if xxhash.xxh3_128_hexdigest(data) != key[11:43]:
        raise ValueError(key)


def in_threads(read: Callable[[str], None]) -> Spent:
    names = keys()
    began = clocks()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(read, names))
    return since(began)


def many(settings: Settings, port: int) -> Spent:
    """Seconds of one `fetch.many` over everything."""
    index = Fetcher(settings_of(port, "folder"))._index  # noqa: SLF001 - nginx has no LIST
    assert isinstance(index, Index)
    texts = urls()
    with Fetcher(settings, index=index) as fetch:
        began = clocks()
        count = sum(isinstance(result, bytes) for _, result in fetch.many(texts))
        seconds = since(began)
        if count != OBJECTS:
            raise ValueError(f"{count} images: {fetch.stats()}")
    return seconds


def mirror(port: int) -> Spent:
    return many(settings_of(port, "public"), port)


def mirror_signed(port: int) -> Spent:
    return many(settings_of(port, "signed"), port)


def mirror_filling(port: int) -> Spent:
    """From the server into an empty fetch cache."""
    shutil.rmtree(BENCH / "fetch-cache", ignore_errors=True)
    return many(settings_of(port, "public", cache_dir=str(BENCH / "fetch-cache")), port)


def mirror_warm(port: int) -> Spent:
    """From the fetch cache that `mirror_filling` has left."""
    return many(settings_of(port, "public", cache_dir=str(BENCH / "fetch-cache")), port)


def mirror_url_cache(port: int) -> Spent:
    """From the URL-keyed cache."""
    settings = settings_of(port, "public")
    layers = [
        Layer(
            "bench",
            {
                "cache": {"dir": str(BENCH / "cache")},
                "bucket": {"url": settings.bucket.url, "public_url": settings.bucket.public_url},
            },
        )
    ]
    return many(merge(layers), port)


def open_read(_: int) -> Spent:
    """The files of the fetch cache by `open().read()`, with no check."""
    paths = [BENCH / "fetch-cache" / "objects" / key[8:10] / key[11:43] for key in keys()]
    names = [str(path) for path in paths]
    began = clocks()
    for name in names:
        with open(name, "rb") as file:
            file.read()
    return since(began)


def s3torchconnectorclient(port: int) -> Spent:
    from s3torchconnectorclient._mountpoint_s3_client import (  # type: ignore[import-not-found,unused-ignore]
        MountpointS3Client,
    )

    client = MountpointS3Client(
        "us-east-1", endpoint=f"http://127.0.0.1:{port}", unsigned=True, force_path_style=True
    )
    return in_threads(lambda key: checked(key, b"".join(client.get_object(BUCKET, key))))


def requests_threads(port: int) -> Spent:
    import requests  # type: ignore[import-untyped,unused-ignore]

    own = threading.local()

    def read(key: str) -> None:
        if not hasattr(own, "session"):
            own.session = requests.Session()
        answer = own.session.get(f"http://127.0.0.1:{port}/{BUCKET}/{key}", timeout=60)
        checked(key, answer.content)

    return in_threads(read)


def plain_aiohttp(port: int) -> Spent:
    import aiohttp
    import yarl

    async def read_all() -> None:
        names = iter(keys())
        options = {"cookie_jar": aiohttp.DummyCookieJar(), "auto_decompress": False}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, **options) as session:  # type: ignore[arg-type]

            async def work() -> None:
                for key in names:
                    url = yarl.URL(f"http://127.0.0.1:{port}/{BUCKET}/{key}", encoded=True)
                    async with session.get(url) as answer:
                        checked(key, await answer.read())

            await asyncio.gather(*(work() for _ in range(64)))

    began = clocks()
    asyncio.run(read_all())
    return since(began)


def obstore(port: int) -> Spent:
    from obstore.store import S3Store

    store = S3Store(
        BUCKET,
        endpoint=f"http://127.0.0.1:{port}",
        region="us-east-1",
        skip_signature=True,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    async def read_all() -> None:
        names = iter(keys())

        async def work() -> None:
            for key in names:
                answer = await store.get_async(key)
                checked(key, bytes(await answer.bytes_async()))

        await asyncio.gather(*(work() for _ in range(64)))

    began = clocks()
    asyncio.run(read_all())
    return since(began)


READERS: dict[str, Callable[[int], Spent]] = {
    "mirror": mirror,
    "mirror (signed)": mirror_signed,
    "mirror (filling its cache)": mirror_filling,
    "mirror (warm cache)": mirror_warm,
    "mirror (URL-keyed cache)": mirror_url_cache,
    "open().read()": open_read,
    "s3torchconnectorclient": s3torchconnectorclient,
    "aiohttp": plain_aiohttp,
    "obstore": obstore,
    "requests": requests_threads,
}


def run(name: str, port: int) -> None:
    """One reader, in this process; prints wall and CPU seconds as JSON."""
    wall, cpu = READERS[name](port)
    print(json.dumps({"wall": wall, "cpu": cpu}), flush=True)
    os._exit(0)  # s3torchconnectorclient's threads do not end


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="names of readers, with commas")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.one:
        run(flags.one[0], int(flags.one[1]))
    prepare()
    names = list(READERS)
    if flags.only:
        names = [name for name in names if name in flags.only.split(",")]
    walls: dict[str, list[float]] = {name: [] for name in names}
    cpus: dict[str, list[float]] = {name: [] for name in names}
    os.environ.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench")  # noqa: S106
    with nginx() as port:
        for number in range(flags.rounds):
            for name in names:
                command = [sys.executable, __file__, "--one", name, str(port)]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603
                if done.returncode:
                    sys.exit(f"{name} failed")
                result = json.loads(done.stdout)
                walls[name].append(result["wall"])
                cpus[name].append(result["cpu"])
                print(f"round {number + 1}: {name} {result['wall']:.2f} s", file=sys.stderr)
    print(
        "| reader | wall, s | CPU, s | against `mirror`: wall | CPU | wall against `open().read()` |"
    )
    print("|---|---|---|---|---|---|")
    for name in names:
        wall, cpu = statistics.median(walls[name]), statistics.median(cpus[name])
        ratios = [
            ratio(walls, name, "mirror"),
            ratio(cpus, name, "mirror"),
            ratio(walls, name, "open().read()"),
        ]
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {' | '.join(ratios)} |")


def ratio(seconds: dict[str, list[float]], name: str, base: str) -> str:
    """The median of the ratios within each round."""
    if base not in seconds:
        return "–"
    pairs = zip(seconds[name], seconds[base], strict=True)
    return f"{statistics.median(its / others for its, others in pairs):.2f} ×"


if __name__ == "__main__":
    main()
