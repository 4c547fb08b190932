# ruff: noqa: INP001 - for the scripts beside it, not a package
"""What a first run cannot be faster than: obstore alone, as the engine calls it, and nothing else.

Each file is read and put, conditionally and with a SHA-256: no hash of ours, no catalog, no state
(`python bench/floor.py HOW ENDPOINT PREFIX FOLDER`).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import obstore
from bulk import IN_FLIGHT, Target, arrived, s5cmd
from caches import photographs
from measure import Contender, Runs, alternately
from obstore.store import S3Store
from results import Part
from servers import BUCKET, sink

HEADERS: Any = {
    "Content-Type": "image/jpeg",
    "Cache-Control": "public, max-age=31536000, immutable",
}


def _files(folder: str) -> Iterator[tuple[str, bytes]]:
    for entry in os.scandir(folder):
        with open(entry.path, "rb", buffering=0) as file:
            yield entry.name, file.read()


def _store(endpoint: str, prefix: str) -> S3Store:
    return S3Store(
        BUCKET,
        prefix=prefix,
        endpoint=endpoint,
        region="us-east-1",
        virtual_hosted_style_request=False,
        checksum_algorithm="SHA256",
        client_options={"allow_http": True},
    )


def in_tasks(store: S3Store, folder: str) -> None:
    """As the engine does: tasks of one event loop."""
    files = _files(folder)

    async def put_some() -> None:
        for name, body in files:
            await obstore.put_async(
                store, f"flat/{name}", body, attributes=HEADERS, mode="create", use_multipart=False
            )

    async def put_all() -> None:
        await asyncio.gather(*(put_some() for _ in range(IN_FLIGHT)))

    asyncio.run(put_all())


def in_threads(store: S3Store, folder: str) -> None:
    """As it could: a thread an upload, each waiting without the interpreter's lock."""
    names = iter(os.listdir(folder))

    def put_some(_: int) -> None:
        for name in names:
            with open(f"{folder}/{name}", "rb", buffering=0) as file:
                body = file.read()
            obstore.put(
                store, f"flat/{name}", body, attributes=HEADERS, mode="create", use_multipart=False
            )

    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        list(threads.map(put_some, range(IN_FLIGHT)))


HOW = {"obstore alone, 64 tasks": in_tasks, "obstore alone, 64 threads": in_threads}


def run(rounds: int) -> Runs:
    cache = photographs(20_000, 45_000)
    with sink() as place:
        target = Target(cache, place)

        def contender(how: str) -> Contender:
            return Contender(
                how,
                lambda: [
                    sys.executable, __file__, how, place.endpoint, target.prefix, str(cache.folder),
                ],
                before=target.renew,
                check=lambda _: arrived(target, "flat", cache.files),
                environment=target.environment,
            )  # fmt: skip

        return alternately([*map(contender, HOW), s5cmd(target)], rounds)


PARTS = [Part("bulk-floor", "20,000 photographs of 45 kB, to a sink", run, ("obstore", "s5cmd"))]

if __name__ == "__main__":
    HOW[sys.argv[1]](_store(*sys.argv[2:4]), sys.argv[4])
