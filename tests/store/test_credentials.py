"""Who is asking: keys in the environment are what the AWS chain would find, at less cost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mirror.config import BucketSettings
from mirror.errors import BadCredentials
from mirror.layout import BucketUrl
from mirror.store.control import S3Access

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


def test_keys_in_the_environment_are_read_without_botocore(
    access: S3Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    program = (
        "import sys; from mirror.store.control import S3Access; "
        "from mirror.config import BucketSettings; from mirror.layout import BucketUrl; "
        "access = S3Access(BucketUrl.parse('s3://plants'), BucketSettings(region='auto')); "
        "assert access.credentials().access_key == 'AKIAEXAMPLE'; "
        "assert access.delta_options(); assert 'botocore' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
