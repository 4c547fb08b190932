"""Credentials: keys in the environment are found as the AWS chain finds them, at less cost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import botocore.exceptions as theirs
import pytest

from mirror.config.settings import BucketSettings
from mirror.errors import BadCredentials, ConfigError, StoreError, Transient
from mirror.layout import BucketUrl
from mirror.store.engines.aioboto3 import Aioboto3Store
from mirror.store.object_store_options import delta_options
from mirror.store.s3_access import S3Access, translate_botocore
from tests.support.http_servers import answering

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "of the environment"}
FILE = """
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = of the file

[team]
aws_access_key_id = AKIATEAM
aws_secret_access_key = of the team
"""


@pytest.fixture
def access(tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> S3Access:
    (tmp_path / "credentials").write_text(FILE)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return S3Access(BucketUrl.parse("s3://plants"), BucketSettings(region="auto"))


@pytest.mark.parametrize(
    "environment",
    [
        {},
        KEYS,
        KEYS | {"AWS_SESSION_TOKEN": "t"},
        KEYS | {"AWS_SECURITY_TOKEN": "s", "AWS_SESSION_TOKEN": "t"},
        KEYS | {"AWS_SESSION_TOKEN": ""},
        KEYS | {"AWS_PROFILE": "team"},
        KEYS | {"AWS_DEFAULT_PROFILE": "team"},
        KEYS | {"AWS_CREDENTIAL_EXPIRATION": "2099-01-01T00:00:00Z", "AWS_SESSION_TOKEN": "t"},
        {"AWS_PROFILE": "team"},
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "alone"},
    ],
)
def test_credentials_are_those_that_boto3_finds(
    access: S3Access, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found, theirs = access.credentials(), access.session.get_credentials()
    assert (found.access_key, found.secret_key) == (theirs.access_key, theirs.secret_key)
    assert (found.token or None) == (theirs.token or None)


def test_half_a_pair_of_keys_is_refused(access: S3Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    with pytest.raises(BadCredentials, match="AWS_SECRET_ACCESS_KEY"):
        access.credentials()


def test_a_profile_that_is_not_there_is_refused_whatever_keys_there_are(
    access: S3Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (KEYS | {"AWS_PROFILE": "nobody"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadCredentials, match="nobody"):
        access.credentials()


def test_keys_that_have_expired_are_refused_in_a_sentence(
    access: S3Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    for expired in ("2020-01-01T00:00:00Z", "no date"):
        monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", expired)
        with pytest.raises(BadCredentials, match="renew the credentials"):
            delta_options(access)  # as the catalog does in the middle of a run


ROLE = """
[profile role]
role_arn = arn:aws:iam::123456789012:role/x
source_profile = team
region = eu-west-1
"""
REFUSED = (
    b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
)


def test_a_role_that_is_refused_is_bad_credentials(
    access: S3Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(ROLE)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "role")
    with answering(403, REFUSED, {"Content-Type": "text/xml"}) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts)
        with pytest.raises(BadCredentials, match="AssumeRole"):
            access.credentials()


EXPIRED: list[theirs.BotoCoreError] = [
    theirs.CredentialRetrievalError(provider="custom-process", error_msg="expired"),
    theirs.NoAuthTokenError(),
    theirs.NoCredentialsError(),
    theirs.PartialCredentialsError(provider="env", cred_var="x"),
    theirs.RefreshWithMFAUnsupportedError(),
    theirs.SSOTokenLoadError(error_msg="x"),
    theirs.TokenRetrievalError(provider="sso", error_msg="expired"),
    theirs.UnauthorizedSSOTokenError(),
    theirs.UnknownCredentialError(name="x"),
]


@pytest.mark.parametrize("error", EXPIRED, ids=lambda error: type(error).__name__)
def test_errors_of_the_chain_are_not_network_errors(error: theirs.BotoCoreError) -> None:
    ours = translate_botocore(error, "PUT k")
    assert isinstance(ours, BadCredentials)
    assert "AWS_PROFILE" in str(ours)


def test_a_request_that_botocore_refuses_to_send_is_not_retried() -> None:
    ours = translate_botocore(theirs.ParamValidationError(report="Invalid\nname"), "PUT k")
    assert isinstance(ours, StoreError)
    assert not isinstance(ours, Transient)
    assert "Invalid name" in str(ours)


@pytest.mark.parametrize(
    "wrong",
    [
        BucketSettings(region="no region!"),
        BucketSettings(region="auto", endpoint="http://no host:1"),
    ],
    ids=["region", "endpoint"],
)
def test_a_client_that_cannot_be_made_is_the_configurations_fault(
    wrong: BucketSettings, access: S3Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    store = Aioboto3Store(S3Access(access.url, wrong))
    with pytest.raises(ConfigError, match="correct bucket"):
        asyncio.run(store.get("k"))


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Credentials were refreshed, but the refreshed credentials are expired.", BadCredentials),
        ("Session is closed", RuntimeError),
    ],
)
def test_credentials_that_expire_in_mid_run_are_bad_credentials(
    words: str, kind: type[Exception], access: S3Access
) -> None:
    class Client:
        async def get_object(self, **_: object) -> Any:
            raise RuntimeError(words)

    store = Aioboto3Store(access)
    store._opened = Client()
    with pytest.raises(kind, match=words[:20]):
        asyncio.run(store.get("k"))


def test_keys_in_the_environment_are_read_without_botocore(
    access: S3Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    program = (
        "import sys; from mirror.store.s3_access import S3Access; "
        "from mirror.store.object_store_options import delta_options; "
        "from mirror.config.settings import BucketSettings; from mirror.layout import BucketUrl; "
        "access = S3Access(BucketUrl.parse('s3://plants'), BucketSettings(region='auto')); "
        "assert access.credentials().access_key == 'AKIAEXAMPLE'; "
        "assert delta_options(access); assert 'botocore' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
