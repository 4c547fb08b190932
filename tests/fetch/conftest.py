"""Fixtures: mirrors to fetch from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mirror.config.settings import Settings
from tests.conftest import MakePlace, Place
from tests.servers import S3Server
from tests.support.fetch_setup import fetching, mirrored
from tests.support.mirror_setup import local, shop

__all__ = ["local", "shop"]

EVERYWHERE = [
    "file",
    "moto-obstore",
    "seaweedfs-obstore",
    "seaweedfs-aioboto3",
    "miniflare-obstore",
]


@pytest.fixture(params=EVERYWHERE)
def anywhere(request: pytest.FixtureRequest, make_place: MakePlace) -> Place:
    return make_place(request.param)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror in a folder, and the cache that it was made from."""
    folder = tmp_path_factory.mktemp("template")
    mirrored(Place("file", {"url": f"file://{folder}/mirror"}), folder)
    shutil.rmtree(folder / "state")
    return folder


@pytest.fixture
def folder_mirror(make_place: MakePlace, template: Path, tmp_path: Path) -> Settings:
    """A mirror in a folder that a test may damage."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return make_place("file").settings(state={"dir": str(tmp_path / "state")})


@pytest.fixture(scope="session")
def moto_bucket(moto: S3Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A bucket that is read over HTTP; moto checks no credentials."""
    place = Place(
        "moto",
        {"url": f"s3://{moto.bucket}/fetched", "endpoint": moto.endpoint, "region": moto.region},
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in moto.environment().items():
            patch.setenv(name, value)
        mirrored(place, tmp_path_factory.mktemp("moto-mirror"))
    return place.layer


@pytest.fixture
def moto_mirror(make_place: MakePlace, moto_bucket: dict[str, str], tmp_path: Path) -> Settings:
    make_place("moto-obstore")  # its environment
    return Place("moto", moto_bucket).settings(state={"dir": str(tmp_path / "state")})


# --- tiers ---


@pytest.fixture
def cached(folder_mirror: Settings, tmp_path: Path) -> Settings:
    return fetching(folder_mirror, cache_dir=str(tmp_path / "fetch"))
