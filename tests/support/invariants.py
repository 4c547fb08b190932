"""Checks that hold for every mirror, even after killed and failed runs.

This module reads the bucket with nothing but docs/format.md: it computes keys and hashes itself and
reads the catalog with Polars. It uses no code of `mirror`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
import polars
import xxhash
from deltalake import DeltaTable
from obstore.store import S3Store

from tests.conftest import Place


@dataclass(frozen=True)
class Mirrored:
    """A mirror at one moment: `objects` by key, and unordered `rows` of the whole catalog."""

    objects: dict[str, bytes]
    rows: list[dict[str, Any]]

    @property
    def latest(self) -> dict[bytes, dict[str, Any]]:
        """The latest row of each `url_md5`."""
        ordered = sorted(self.rows, key=lambda row: row["seen_at"])
        return {row["url_md5"]: row for row in ordered}


def read(place: Place) -> Mirrored:
    """Read a whole mirror. The catalog comes first, because an object may appear before its row, but not after."""
    server = place.server
    if server is None:
        return _read_folder(Path(place.url.path))
    url = f"{place.layer['url']}/catalog"
    options = {
        "aws_access_key_id": server.access_key,
        "aws_secret_access_key": server.secret_key,
        "aws_region": server.region,
        "aws_endpoint": server.endpoint,
        "aws_allow_http": "true",
    }
    rows: list[dict[str, Any]] = []
    if DeltaTable.is_deltatable(url, storage_options=options):
        rows = polars.read_delta(url, storage_options=options).to_dicts()
    store = S3Store(
        place.url.bucket,
        prefix=place.url.path,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        region=server.region,
        endpoint=server.endpoint,
        client_options={"allow_http": True},
    )
    return Mirrored(asyncio.run(_objects(store)), rows)


def _read_folder(root: Path) -> Mirrored:
    rows: list[dict[str, Any]] = []
    if DeltaTable.is_deltatable(str(root / "catalog")):
        rows = polars.read_delta(str(root / "catalog")).to_dicts()
    files = (path for path in (root / "objects").rglob("*") if path.is_file())
    # A killed writer leaves files with hidden names, which are not objects.
    named = (path for path in files if not path.name.startswith("."))
    return Mirrored({str(path.relative_to(root)): path.read_bytes() for path in named}, rows)


async def _objects(store: S3Store) -> dict[str, bytes]:
    keys = [info["path"] for info in await obstore.list(store, "objects/").collect_async()]
    bodies: dict[str, bytes] = {}

    async def get(key: str) -> None:
        bodies[key] = bytes(await (await obstore.get_async(store, key)).bytes_async())

    for start in range(0, len(keys), 32):
        await asyncio.gather(*map(get, keys[start : start + 32]))
    return bodies


def promise_kept(mirrored: Mirrored) -> None:
    """Check that every object matches its key, and that every `ok` row has its object."""
    for key, body in mirrored.objects.items():
        assert key == key_of(body), f"{key} holds other bytes"
    for row in mirrored.latest.values():
        if row["verdict"] != "ok":
            continue
        digits = row["content_hash"].hex()
        key = f"objects/{digits[:2]}/{digits}.jpg"
        assert key in mirrored.objects, f"the catalog names {key}, and there is no such object"
        body = mirrored.objects[key]
        assert (len(body), hashlib.sha256(body).digest()) == (row["size"], row["sha256"]), digits


def complete(
    mirrored: Mirrored, images: Mapping[str, bytes], flagged: Mapping[str, bytes] | None = None
) -> None:
    """Check the promise and completeness.

    Each content of `images` is one object, there are no others, and every URL's latest row describes
    its own bytes.

    Args:
        mirrored: the mirror.
        images: the bodies that must have objects, by URL.
        flagged: the bodies that must be in the catalog only, by URL.
    """
    promise_kept(mirrored)
    assert set(mirrored.objects) == {key_of(body) for body in images.values()}
    every = {**images, **(flagged or {})}
    told = {url: row["sha256"] for url, row in mirrored.latest.items()}
    assert told == {
        hashlib.md5(url.encode()).digest(): hashlib.sha256(body).digest()
        for url, body in every.items()
    }
    verdicts = [row["verdict"] for row in mirrored.latest.values()]
    assert verdicts.count("ok") == len(images)


def key_of(body: bytes) -> str:
    """The object key of a JPEG."""
    digits = xxhash.xxh3_128_hexdigest(body)
    return f"objects/{digits[:2]}/{digits}.jpg"


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of every file of a folder, which a sync may not change."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def state_is_behind(state: Path, mirrored: Mirrored, scratch: Path) -> int:
    """Check that the local state lists only files of the catalog. Returns the number of its files.

    Args:
        state: the folder `state.dir`.
        mirrored: the mirror, read after the run ended.
        scratch: a folder for a copy of the state, because SQLite would recover the original.
    """
    vouched = 0
    for number, database in enumerate(state.glob("*/state.sqlite")):
        copy = scratch / f"state-{number}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(database.parent, copy)
        with contextlib.closing(sqlite3.connect(copy / database.name)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            begun = connection.execute("PRAGMA user_version").fetchone() != (0,)
            files = begun and connection.execute("SELECT url_md5, content_hash FROM files")
            for url_md5, content_hash in files or ():
                row = mirrored.latest.get(url_md5)
                assert row is not None, f"the state vouches for {url_md5.hex()}, the catalog not"
                assert row["content_hash"] == content_hash
                vouched += 1
    return vouched
