"""One server of each kind for a whole session, started by the first test that needs it.

tests/conftest.py loads this. A missing server fails the tests that need it, because a suite that skips
them would pass without a check.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import (
    GC,
    READER,
    WRITER,
    MongoServer,
    S3Server,
    miniflare_server,
    mongodb_server,
    moto_server,
    seaweedfs_server,
)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Fast and broad. Accepts any credentials and checksums."""
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Checks like AWS. WRITER, READER and GC have the permissions of terraform/s3."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    with seaweedfs_server(folder, identities=[WRITER, READER, GC]) as server:
        yield server


@pytest.fixture(scope="session")
def miniflare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Shaped like R2: region auto, no CreateBucket, no versioning, public reads."""
    with miniflare_server(tmp_path_factory.mktemp("miniflare")) as server:
        yield server


@pytest.fixture(scope="session")
def mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """Needs a password. Tests break scans with its failpoints."""
    with mongodb_server(tmp_path_factory.mktemp("mongodb")) as server:
        yield server
