"""Fixtures for all tests: the servers, and places for a mirror."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mirror.config.loading import Layer, merge
from mirror.config.settings import Settings
from mirror.layout import BucketUrl
from mirror.store import open_store
from mirror.store.base import Store
from mirror.store.s3_access import S3Access
from tests.servers import S3Server
from tests.servers.conftest_fixtures import miniflare, mongodb, moto, seaweedfs
from tests.support.chaos_tally import (
    pytest_configure,
    pytest_runtest_makereport,
    pytest_runtest_setup,
)

__all__ = [
    "miniflare",
    "mongodb",
    "moto",
    "pytest_configure",
    "pytest_runtest_makereport",
    "pytest_runtest_setup",
    "seaweedfs",
]

# The datasets library reads these once, when the first test imports it.
os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
os.environ["HF_HOME"] = os.path.join(tempfile.gettempdir(), "mirror-tests-huggingface")

# Every kind of place for a mirror, with every engine that reaches it.
PLACES = (
    "file",
    "moto-obstore",
    "moto-aioboto3",
    "seaweedfs-obstore",
    "seaweedfs-aioboto3",
    "miniflare-obstore",
    "miniflare-aioboto3",
)


@dataclass(frozen=True)
class Place:
    """An empty place for a mirror. `layer` is its `[bucket]` section of mirror.toml."""

    name: str
    layer: dict[str, Any]
    server: S3Server | None = None

    def settings(self, **sections: dict[str, Any]) -> Settings:
        return merge([Layer("test", sections), Layer("place", {"bucket": self.layer})])

    def open(self) -> Store:
        settings = self.settings()
        url = settings.bucket_url
        access = S3Access(url, settings.bucket) if url.scheme == "s3" else None
        return open_store(url, access, settings.bucket, concurrency=16)

    @property
    def url(self) -> BucketUrl:
        return BucketUrl.parse(self.layer["url"])


MakePlace = Callable[[str], Place]


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove all configuration and credentials from the environment."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))


@pytest.fixture
def make_place(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    clean_environment: None,
) -> MakePlace:
    """Returns an empty place by its name in `PLACES`, and sets its credentials in the environment."""

    def make(name: str) -> Place:
        if name == "file":
            return Place(name, {"url": f"file://{tmp_path}/mirror"})
        server_name, engine = name.split("-")
        server: S3Server = request.getfixturevalue(server_name)
        for variable, value in server.environment().items():
            monkeypatch.setenv(variable, value)
        layer = {
            "url": f"s3://{server.bucket}/{secrets.token_hex(6)}/inat",
            "endpoint": server.endpoint,
            "region": server.region,
            "engine": engine,
        }
        return Place(name, layer, server)

    return make


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, make_place: MakePlace) -> Place:
    return make_place(request.param)
