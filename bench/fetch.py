# ruff: noqa: INP001 - for the scripts beside it, not a package
"""`fetch.many` beside other ways to read the same objects from one server on loopback.

nginx serves 10,000 objects of 45 kB. Every reader checks the XXH3 of each object, and runs in a separate
process (`python bench/fetch.py READER ADDRESS`).
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import peers
import xxhash
from measure import BENCH, ROOT, Runs, alternately, by_name, printing_cost, say
from results import Part
from servers import static

sys.path.insert(0, str(ROOT))

from mirror import Fetcher
from mirror.catalog.index import Index
from mirror.config.loading import Layer, merge
from mirror.config.settings import Settings
from mirror.sync.run_sync import sync
from tests.support.photos import name_of, url_of

HOME = BENCH / "fetch"
OBJECTS = 10_000
SIZE = 45_000
THREADS = 32
BUCKET = "bench"


def settings_of(address: str, scheme: str, **fetch: str) -> Settings:
    """The settings of a mirror in a folder that nginx serves, by public URLs or by signed ones as on S3."""
    bucket = {"url": f"file://{HOME}/www/{BUCKET}"}
    if scheme == "public":
        bucket["public_url"] = f"{address}/{BUCKET}"
    elif scheme == "signed":
        bucket = {"url": f"s3://{BUCKET}", "endpoint": address, "region": "auto"}
    return merge(
        [Layer("bench", {"bucket": bucket, "state": {"dir": f"{HOME}/state"}, "fetch": fetch})]
    )


def prepare() -> None:
    """Make the mirror once."""
    if (HOME / "ready").exists():
        return
    shutil.rmtree(HOME, ignore_errors=True)
    cache = HOME / "cache"
    cache.mkdir(parents=True)
    say("making a mirror to read from …")
    for number in range(OBJECTS):
        body = b"\xff\xd8\xff" + random.Random(number).randbytes(SIZE - 3)  # noqa: S311
        (cache / name_of(url_of(number))).write_bytes(body)
    settings = settings_of("", "folder")
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
    (HOME / "ready").touch()


def keys() -> list[str]:
    found = sorted((HOME / "www" / BUCKET / "objects").glob("*/*.jpg"))
    names = [str(path.relative_to(HOME / "www" / BUCKET)) for path in found]
    random.Random(0).shuffle(names)  # noqa: S311
    return names


def urls() -> list[str]:
    numbers = list(range(OBJECTS))
    random.Random(0).shuffle(numbers)  # noqa: S311
    return [url_of(number) for number in numbers]


def checked(key: str, data: bytes) -> None:
    if xxhash.xxh3_128_hexdigest(data) != key[11:43]:
        raise ValueError(key)


def in_threads(read: Callable[[str], None]) -> None:
    names = keys()
    with printing_cost(), ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(read, names))


def many(settings: Settings, address: str) -> None:
    """Run one `fetch.many` over all URLs."""
    index = Fetcher(settings_of(address, "folder"))._index  # noqa: SLF001 - nginx has no LIST
    assert isinstance(index, Index)
    texts = urls()
    with Fetcher(settings, index=index) as fetch:
        with printing_cost():
            count = sum(isinstance(result, bytes) for _, result in fetch.many(texts))
        if count != OBJECTS:
            raise ValueError(f"{count} images: {fetch.stats()}")


def mirror(address: str) -> None:
    many(settings_of(address, "public"), address)


def mirror_signed(address: str) -> None:
    many(settings_of(address, "signed"), address)


def mirror_filling(address: str) -> None:
    """Read from the server into an empty fetch cache."""
    shutil.rmtree(HOME / "fetch-cache", ignore_errors=True)
    many(settings_of(address, "public", cache_dir=str(HOME / "fetch-cache")), address)


def mirror_warm(address: str) -> None:
    """Read from the fetch cache of `mirror_filling`."""
    many(settings_of(address, "public", cache_dir=str(HOME / "fetch-cache")), address)


def mirror_url_cache(address: str) -> None:
    """Read from the URL-keyed cache."""
    settings = settings_of(address, "public")
    layers = [
        Layer(
            "bench",
            {
                "cache": {"dir": str(HOME / "cache")},
                "bucket": {"url": settings.bucket.url, "public_url": settings.bucket.public_url},
            },
        )
    ]
    many(merge(layers), address)


def open_read(_: str) -> None:
    """Read the files of the fetch cache with `open().read()`, without a check."""
    paths = [HOME / "fetch-cache" / "objects" / key[8:10] / key[11:43] for key in keys()]
    names = [str(path) for path in paths]
    with printing_cost():
        for name in names:
            with open(name, "rb") as file:
                file.read()


def s3torchconnectorclient(address: str) -> None:
    from s3torchconnectorclient._mountpoint_s3_client import (  # type: ignore[import-not-found,unused-ignore]
        MountpointS3Client,
    )

    client = MountpointS3Client("us-east-1", endpoint=address, unsigned=True, force_path_style=True)
    in_threads(lambda key: checked(key, b"".join(client.get_object(BUCKET, key))))


def requests_threads(address: str) -> None:
    import requests  # type: ignore[import-untyped,unused-ignore]

    own = threading.local()

    def read(key: str) -> None:
        if not hasattr(own, "session"):
            own.session = requests.Session()
        answer = own.session.get(f"{address}/{BUCKET}/{key}", timeout=60)
        checked(key, answer.content)

    in_threads(read)


def plain_aiohttp(address: str) -> None:
    import aiohttp
    import yarl

    async def read_all() -> None:
        names = iter(keys())
        options = {"cookie_jar": aiohttp.DummyCookieJar(), "auto_decompress": False}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, **options) as session:  # type: ignore[arg-type]

            async def work() -> None:
                for key in names:
                    url = yarl.URL(f"{address}/{BUCKET}/{key}", encoded=True)
                    async with session.get(url) as answer:
                        checked(key, await answer.read())

            await asyncio.gather(*(work() for _ in range(64)))

    with printing_cost():
        asyncio.run(read_all())


def obstore(address: str) -> None:
    from obstore.store import S3Store

    store = S3Store(
        BUCKET,
        endpoint=address,
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

    with printing_cost():
        asyncio.run(read_all())


READERS: dict[str, Callable[[str], None]] = {
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


BESIDE_THE_DISK = ("mirror (warm cache)", "mirror (URL-keyed cache)", "open().read()")


def beside(*names: str) -> Callable[[int], Runs]:
    def run(rounds: int) -> Runs:
        prepare()
        with static(HOME / "www") as address:
            environment = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
            contenders = by_name(__file__, names, address, environment | peers.readers())
            return alternately(contenders, rounds)

    return run


_OVER_HTTP = [name for name in READERS if name not in BESIDE_THE_DISK]
PARTS = [
    Part(
        "fetch",
        "fetch.many of 10,000 objects of 45 kB from nginx, hashes verified",
        beside(*_OVER_HTTP),
        ("aiohttp", "obstore", "requests", "s3torchconnectorclient", "nginx"),
    ),
    Part(
        "fetch-warm",
        "10,000 images of 45 kB from this machine's disk, hashes verified but for open().read()",
        beside(*BESIDE_THE_DISK),
    ),
]

if __name__ == "__main__":
    READERS[sys.argv[1]](sys.argv[2])
    sys.stdout.flush()
    os._exit(0)  # s3torchconnectorclient's threads do not end
