"""The endpoint: every engine uses the one that the settings name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from mirror.catalog.open_mirror import read_index
from mirror.cli.main import run
from mirror.config.loading import load
from mirror.config.settings import Settings
from mirror.errors import MirrorError
from mirror.store.s3_access import S3Access
from mirror.store.signing import Signer
from mirror.sync.run_sync import sync
from mirror.upkeep.verify import verify
from tests.conftest import MakePlace, Place
from tests.support.fault_proxy import FaultProxy
from tests.support.http_servers import answering
from tests.support.photos import fill, photo, url_of

ENGINES = ("moto-obstore", "moto-aioboto3")
VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


@pytest.fixture
def other(make_place: MakePlace) -> Iterator[FaultProxy]:
    """A proxy in front of the server; it counts requests."""
    with FaultProxy(make_place("moto-obstore").layer["endpoint"]) as proxy:
        yield proxy


def settings_of(place: Place, folder: Path, **bucket: str | None) -> Settings:
    fill(folder / "cache", {url_of(n): photo(n) for n in range(2)})
    layer = {f"bucket.{key}": value for key, value in (place.layer | bucket).items()}
    folders = {"cache.dir": str(folder / "cache"), "state.dir": str(folder / "state")}
    return load(flags=layer | folders, cwd=folder)


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("name", ENGINES)
def test_the_endpoint_of_the_settings_is_stronger_than_the_environments(
    name: str,
    variable: str,
    make_place: MakePlace,
    other: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_of(make_place(name), tmp_path)
    monkeypatch.setenv(variable, other.endpoint)
    assert sync(settings).uploaded == 2
    assert verify(settings).error is None
    access = S3Access(settings.bucket_url, settings.bucket)
    access.client().head_bucket(Bucket=settings.bucket_url.bucket)
    (url,) = Signer(access).sign(["objects/x"], timedelta(minutes=1))
    assert url.startswith(f"{settings.bucket.endpoint}/")
    assert other.requests == []


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("name", ENGINES)
def test_without_a_setting_every_engine_uses_the_environments_endpoint(
    name: str,
    variable: str,
    make_place: MakePlace,
    other: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, other.endpoint)
    settings = settings_of(make_place(name), tmp_path, endpoint=None)
    assert sync(settings).uploaded == 2
    sent = {path.split("/")[4] for method, path in other.requests if method == "PUT"}
    assert sent == {"format.json", "objects", "catalog"}
    access = S3Access(settings.bucket_url, settings.bucket)
    other.forget()
    access.client().head_bucket(Bucket=settings.bucket_url.bucket)
    assert len(other.requests) == 1
    (url,) = Signer(access).sign(["objects/x"], timedelta(minutes=1))
    assert url.startswith(f"{other.endpoint}/")
    assert settings.object_urls.web_bases == [
        f"{other.endpoint}/{settings.bucket_url.bucket}/{settings.bucket_url.path}/"
    ]


def test_the_one_for_s3_is_stronger_than_the_one_for_all_services(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "AWS_ENDPOINT_URL": "https://all.example.org"}
    assert load(environ=environ, cwd=tmp_path).bucket.endpoint == "https://all.example.org"
    environ["AWS_ENDPOINT_URL_S3"] = "https://s3.example.org"
    assert load(environ=environ, cwd=tmp_path).bucket.endpoint == "https://s3.example.org"
    environ["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] = "true"
    assert load(environ=environ, cwd=tmp_path).bucket.endpoint is None


@pytest.mark.parametrize("engine", ["obstore", "aioboto3"])
def test_an_empty_endpoint_is_aws_whatever_the_environment_says(
    engine: str, other: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, other.endpoint)
    # A fixed refusal instead of AWS, so that nothing leaves this machine.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    layer = {"url": "s3://plants/inat", "region": "eu-west-1", "engine": engine}
    settings = settings_of(Place("aws", layer), tmp_path, endpoint="")
    access = S3Access(settings.bucket_url, settings.bucket)
    (url,) = Signer(access).sign(["x"], timedelta(minutes=1))
    assert url.startswith("https://s3.eu-west-1.amazonaws.com/plants/inat/x?")
    assert access.client().meta.endpoint_url == "https://s3.eu-west-1.amazonaws.com"
    with pytest.raises(MirrorError, match="cannot be reached"):
        sync(settings)
    assert other.requests == []


def test_a_mirror_in_a_folder_has_one_state_whatever_the_endpoint(
    clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place("file", {"url": f"file://{tmp_path}/mirror"})
    before = settings_of(place, tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example.org")
    assert settings_of(place, tmp_path).state_dir == before.state_dir
    assert sync(before).uploaded == 2
    read_index(before)
    (kept,) = before.index_dir.glob("*/*")
    read_index(settings_of(place, tmp_path))
    assert list(before.index_dir.glob("*/*")) == [kept]


def test_doctor_shows_the_endpoint_that_is_used(
    make_place: MakePlace,
    other: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = make_place("moto-obstore")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", other.endpoint)

    def shown(*flags: str) -> str:
        bucket = [f"--bucket={place.url}", f"--region={place.layer['region']}"]
        run(["--json", "doctor", "--read-only", *bucket, *flags])
        checks = json.loads(capsys.readouterr().out)["checks"]
        return {str(check["name"]): str(check["what"]) for check in checks}["endpoint"]

    assert shown() == f"{other.endpoint} answers"
    other.forget()
    endpoint = place.layer["endpoint"]
    assert shown(f"--endpoint={endpoint}") == f"{endpoint} answers"
    assert other.requests == []


def test_an_own_server_needs_no_instance_metadata(
    make_place: MakePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(make_place("moto-obstore"), tmp_path)
    for name in ("AWS_EC2_METADATA_DISABLED", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    asked: list[str] = []
    with answering(404, b"", {}, asked) as metadata:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata)
        assert sync(settings).uploaded == 2
    assert asked == []
