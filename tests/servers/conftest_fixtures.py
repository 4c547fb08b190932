"""One server of each kind for a whole session, started when the first test asks for it.

For the conftest.py of the tests to load. A server that is not there fails the tests that need it:
a suite that skips them would pass having tried nothing.
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
    """Fast and broad; believes any credentials and checksums."""
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Checks as AWS does; as WRITER, READER or GC one may what terraform/s3 lets each."""
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
    """Asks for a password; its failpoints break scans where a test wants them broken."""
    with mongodb_server(tmp_path_factory.mktemp("mongodb")) as server:
        yield server
