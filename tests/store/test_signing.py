"""Presigned URLs: what they serve, for how long, and that a forked child can sign."""

from __future__ import annotations

import asyncio
import multiprocessing
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import aiohttp
import pytest
from yarl import URL

from mirror.config.settings import BucketSettings
from mirror.errors import BadCredentials, ConfigError, UsageError
from mirror.layout import BucketUrl, object_key
from mirror.store.base import Create, Headers
from mirror.store.s3_access import S3Access
from mirror.store.signing import MAX_LIFE, MIN_LIFE, Signer
from mirror.urls import content_hash_in
from tests.conftest import MakePlace, Place

SERVERS = ("moto-obstore", "seaweedfs-obstore", "miniflare-obstore")
FIVE_MINUTES = timedelta(minutes=5)
CONTENT = bytes.fromhex("ab" + "0" * 29 + "f")
KEY = object_key(CONTENT, "jpeg")
ODD_PREFIX = "a b+c/ü&=%41 %/(1)~'*!@$,;:#?"


def within(place: Place, prefix: str) -> Place:
    """The same place with a longer prefix."""
    url = BucketUrl("s3", place.url.bucket, f"{place.url.path}/{prefix}")
    return Place(place.name, place.layer | {"url": str(url)}, place.server)


def access_to(place: Place) -> S3Access:
    return S3Access(place.url, place.settings().bucket)


def access_on(url: str, *, endpoint: str | None = None, region: str | None = None) -> S3Access:
    return S3Access(BucketUrl.parse(url), BucketSettings(endpoint=endpoint, region=region))


def put(place: Place, objects: dict[str, bytes]) -> None:
    async def story() -> None:
        store = place.open()
        for key, body in objects.items():
            await store.put(key, body, Create(), Headers("image/jpeg"))
        await store.aclose()

    asyncio.run(story())


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return bytes(answer.read())


def read_all(urls: Sequence[str]) -> list[bytes]:
    async def story() -> list[bytes]:
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            # Sent unchanged: yarl would unquote some characters, and miniflare checks the signature
            # against the path that arrives.
            answers = [await session.get(URL(url, encoded=True)) for url in urls]
            return [await answer.read() for answer in answers]

    return asyncio.run(story())


def refusal(url: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as caught:
        read(url)
    caught.value.close()
    return caught.value.code


@pytest.fixture
def keys_in_the_environment(
    clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    return monkeypatch


@pytest.mark.parametrize("prefix", ["plain", ODD_PREFIX])
@pytest.mark.parametrize("name", SERVERS)
def test_signed_urls_serve_the_objects_in_order(
    name: str, prefix: str, make_place: MakePlace
) -> None:
    place = within(make_place(name), prefix)
    objects = {object_key(bytes([n]) * 16, "png"): b"content %d" % n for n in range(5)}
    put(place, objects)
    urls = Signer(access_to(place)).sign(list(objects), FIVE_MINUTES)
    assert read_all(urls) == list(objects.values())
    assert [read(url) for url in urls] == list(objects.values())


@pytest.mark.parametrize("name", SERVERS)
def test_signed_urls_are_known_as_the_mirrors_own(name: str, make_place: MakePlace) -> None:
    place = within(make_place(name), ODD_PREFIX)
    (url,) = Signer(access_to(place)).sign([KEY], FIVE_MINUTES)
    assert content_hash_in(url.encode()) == CONTENT


def test_a_signature_opens_one_object_and_no_other(make_place: MakePlace) -> None:
    place = make_place("seaweedfs-obstore")
    other = object_key(CONTENT, "png")
    put(place, {KEY: b"signed", other: b"not signed"})
    (url,) = Signer(access_to(place)).sign([KEY], FIVE_MINUTES)
    last = "0" if url[-1] != "0" else "1"
    assert read(url) == b"signed"
    assert refusal(url[:-1] + last) == 403
    assert refusal(url.replace(KEY, other)) == 403
    assert refusal(url.replace("X-Amz-Expires=300", "X-Amz-Expires=301")) == 403
    assert refusal(url.partition("?")[0]) == 403


def test_a_wrong_secret_signs_what_the_server_refuses(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place("seaweedfs-obstore")
    put(place, {KEY: b"signed"})
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    (url,) = Signer(access_to(place)).sign([KEY], FIVE_MINUTES)
    assert refusal(url) == 403


def _sign_in_child(signer: Signer | None, access: S3Access, answers: Any) -> None:
    answers.send((signer or Signer(access)).sign([KEY], FIVE_MINUTES))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("made", ["before the fork", "after it"])
def test_a_forked_child_signs_after_its_parent_has_transferred_and_signed(
    made: str, make_place: MakePlace
) -> None:
    place = make_place("seaweedfs-obstore")
    put(place, {KEY: b"signed"})
    access = access_to(place)
    signer = Signer(access)
    signer.sign([KEY], FIVE_MINUTES)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    inherited = signer if made == "before the fork" else None
    child = multiprocessing.get_context("fork").Process(
        target=_sign_in_child, args=(inherited, access, theirs)
    )
    child.start()
    try:
        assert ours.poll(60), "the child hangs"
        (url,) = ours.recv()
    finally:
        child.kill()
        child.join()
        ours.close()
        theirs.close()
    assert read(url) == b"signed"


@pytest.mark.parametrize(
    ("url", "settings", "root", "scope"),
    [
        (
            "s3://plants/a%20b",
            {"region": "eu-west-1"},
            "https://s3.eu-west-1.amazonaws.com/plants/a%20b",
            "eu-west-1",
        ),
        ("s3://plants", {}, "https://s3.us-east-1.amazonaws.com/plants", "us-east-1"),
        (
            "s3://plants/inat",
            {"endpoint": "https://acc.r2.cloudflarestorage.com"},
            "https://acc.r2.cloudflarestorage.com/plants/inat",
            "auto",
        ),
        (
            "s3://plants/inat",
            {"endpoint": "http://127.0.0.1:9000/gate/", "region": "x"},
            "http://127.0.0.1:9000/gate/plants/inat",
            "x",
        ),
    ],
)
def test_signed_urls_are_path_style_at_aws_r2_and_others(
    url: str,
    settings: dict[str, str],
    root: str,
    scope: str,
    keys_in_the_environment: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        keys_in_the_environment.delenv(name, raising=False)
    access = access_on(url, **settings)
    (signed,) = Signer(access).sign([KEY], FIVE_MINUTES)
    assert signed.startswith(f"{root}/{KEY}?")
    query = parse_qs(urlsplit(signed).query)
    assert query["X-Amz-Expires"] == ["300"]
    assert query["X-Amz-Credential"][0].split("/")[2:] == [scope, "s3", "aws4_request"]
    assert content_hash_in(signed.encode()) == CONTENT


@pytest.mark.parametrize("life", [MIN_LIFE, MAX_LIFE])
def test_a_life_at_the_limit_is_granted(
    life: timedelta, keys_in_the_environment: pytest.MonkeyPatch
) -> None:
    (url,) = Signer(access_on("s3://plants")).sign([KEY], life)
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == [str(int(life.total_seconds()))]


@pytest.mark.parametrize(
    "life",
    [
        timedelta(0),
        timedelta(seconds=-1),
        MIN_LIFE - timedelta.resolution,
        MAX_LIFE + timedelta.resolution,
        timedelta(days=365),
    ],
)
def test_a_life_beyond_the_limits_is_refused(
    life: timedelta, keys_in_the_environment: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="between 1 second and 7 days"):
        Signer(access_on("s3://plants")).sign([KEY], life)


def test_no_keys_give_no_urls(keys_in_the_environment: pytest.MonkeyPatch) -> None:
    assert Signer(access_on("s3://plants")).sign([], FIVE_MINUTES) == []


def test_a_mirror_in_a_folder_cannot_be_signed_for() -> None:
    with pytest.raises(ConfigError, match=r"in a folder .* choose file URLs"):
        Signer(access_on("file:///data/mirror"))


@pytest.mark.parametrize(
    "endpoint",
    ["localhost:9000", "ftp://store.example", "https://key:hunter2@store.example", "https://[1:2]"],
)
def test_an_endpoint_that_is_no_web_address_is_refused_without_repeating_it(
    endpoint: str, keys_in_the_environment: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"bucket\.endpoint") as caught:
        Signer(access_on("s3://plants", endpoint=endpoint)).sign([KEY], FIVE_MINUTES)
    assert "hunter2" not in str(caught.value)


def test_signing_needs_credentials(clean_environment: None) -> None:
    with pytest.raises(BadCredentials, match="No credentials were found"):
        Signer(access_on("s3://plants")).sign([KEY], FIVE_MINUTES)


def test_lasting_credentials_do_not_expire(keys_in_the_environment: pytest.MonkeyPatch) -> None:
    signer = Signer(access_on("s3://plants"))
    assert not signer.temporary
    assert signer.credentials_expire is None


@pytest.mark.parametrize("known", [True, False])
def test_temporary_credentials_sign_with_their_token_and_tell_when_they_die(
    known: bool, keys_in_the_environment: pytest.MonkeyPatch
) -> None:
    keys_in_the_environment.setenv("AWS_SESSION_TOKEN", "to/ken+=")
    until = (datetime.now(UTC) + timedelta(hours=2)).replace(microsecond=0)
    if known:
        keys_in_the_environment.setenv("AWS_CREDENTIAL_EXPIRATION", until.isoformat())
    signer = Signer(access_on("s3://plants"))
    assert signer.temporary
    assert signer.credentials_expire == (until if known else None)
    (url,) = signer.sign([KEY], FIVE_MINUTES)
    assert f"X-Amz-Security-Token={quote('to/ken+=', safe='')}&" in url


def test_a_token_of_other_keys_in_the_environment_is_not_signed_in(
    keys_in_the_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text("[lab]\naws_access_key_id = AKIALAB\naws_secret_access_key = s\n")
    keys_in_the_environment.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    keys_in_the_environment.setenv("AWS_PROFILE", "lab")
    keys_in_the_environment.setenv("AWS_SESSION_TOKEN", "stale")
    keys_in_the_environment.delenv("AWS_ACCESS_KEY_ID")
    keys_in_the_environment.delenv("AWS_SECRET_ACCESS_KEY")
    (url,) = Signer(access_on("s3://plants")).sign([KEY], FIVE_MINUTES)
    assert "X-Amz-Credential=AKIALAB%2F" in url
    assert "Security-Token" not in url


class RotatingAccess(S3Access):
    """Credentials of a role, renewed at every access."""

    looks = 0

    def credentials(self) -> Any:
        found = super().credentials()
        self.looks += 1
        return type(found)(f"{found.access_key}{self.looks}", found.secret_key, found.token)


def test_renewed_credentials_sign_the_next_batch(
    keys_in_the_environment: pytest.MonkeyPatch,
) -> None:
    signer = Signer(RotatingAccess(BucketUrl.parse("s3://plants"), BucketSettings()))
    batches = [signer.sign([KEY], FIVE_MINUTES)[0] for _ in range(2)]
    assert "AKIAEXAMPLE1%2F" in batches[0]
    assert "AKIAEXAMPLE2%2F" in batches[1]
