# ruff: noqa: INP001 - for the scripts beside it, not a package
"""The floor of a first run: obstore alone, called like the engine calls it.

Each file is read and put, conditionally and with a SHA-256, without a catalog or a state. Further steps
add the indispensable work: the two hashes of the content, then the decoding of its whole stream
(`python bench/floor.py HOW ENDPOINT PREFIX FOLDER`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import obstore
import simplejpeg
from bulk import IN_FLIGHT, Target, arrived, s5cmd
from caches import photographs
from measure import Contender, Runs, alternately
from obstore.store import S3Store
from results import Part
from servers import BUCKET, sink

from mirror.content.digest import digest_of

HEADERS: Any = {
    "Content-Type": "image/jpeg",
    "Cache-Control": "public, max-age=31536000, immutable",
}


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


def decoded(body: bytes) -> None:
    simplejpeg.decode_jpeg(
        body, colorspace="GRAY", min_height=16, min_width=16, min_factor=1, strict=True
    )


def put_all(store: S3Store, folder: str, threads: int, *work: Callable[[bytes], object]) -> None:
    """Upload with one thread for each upload; each waits without the interpreter's lock."""
    names = iter(os.listdir(folder))

    def put_some(_: int) -> None:
        for name in names:
            with open(f"{folder}/{name}", "rb", buffering=0) as file:
                body = file.read()
            for step in work:
                step(body)
            obstore.put(
                store, f"flat/{name}", body, attributes=HEADERS, mode="create", use_multipart=False
            )

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(put_some, range(threads)))


FEW = 8
HOW: dict[str, tuple[Any, ...]] = {
    f"obstore alone, {IN_FLIGHT} threads": (IN_FLIGHT,),
    f"obstore alone, {FEW} threads": (FEW,),
    f"the same and both hashes, {FEW} threads": (FEW, digest_of),
    f"the same, hashes and decoding, {FEW} threads": (FEW, digest_of, decoded),
}


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
    put_all(_store(*sys.argv[2:4]), sys.argv[4], *HOW[sys.argv[1]])
