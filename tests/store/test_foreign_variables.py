"""Variables of other programs: none of them changes a request of obstore or deltalake."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import arro3.core as arrow
import obstore
import pytest
from deltalake import DeltaTable, Field, Schema, write_deltalake
from deltalake.schema import PrimitiveType

from mirror.config.settings import BucketSettings
from mirror.errors import ConfigError
from mirror.layout import BucketUrl
from mirror.store.base import Create, Headers
from mirror.store.engines.obstore import ObstoreStore
from mirror.store.object_store_options import delta_options
from mirror.store.s3_access import S3Access
from mirror.store.signing import Signer
from mirror.system.foreign_variables import foreign_variables
from tests.conftest import MakePlace
from tests.support.fault_proxy import FaultProxy, Request
from tests.support.photos import fill, photo, url_of

# What object_store, deltalake and the AWS SDK inside it look for, without `aws_`.
NAMES = [
    "bucket",
    "bucket_name",
    "conditional_put",
    "copy_if_not_exists",
    "checksum_algorithm",
    "default_region",
    "disable_bulk_delete",
    "disable_tagging",
    "endpoint",
    "endpoint_url",
    "endpoint_url_sts",
    "sts_endpoint",
    "imdsv1_fallback",
    "metadata_endpoint",
    "region",
    "request_payer",
    "role_arn",
    "role_session_name",
    "s3_express",
    "skip_signature",
    "sse_bucket_key_enabled",
    "sse_customer_key_base64",
    "sse_kms_key_id",
    "unsigned_payload",
    "virtual_hosted_style_request",
    "web_identity_token_file",
    "container_authorization_token_file",
    "container_credentials_full_uri",
    "container_credentials_relative_uri",
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "default_headers",
    "disable_system_certificates",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_max_frame_size",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "read_timeout",
    "root_certificate",
    "timeout",
    "user_agent",
    "endpoint_url_dynamodb",
    "force_credential_load",
    "iam_role_session_name",
    "s3_allow_unsafe_rename",
    "s3_endpoint",
    "s3_force_path_style",
    "s3_get_internal_server_error_retries",
    "s3_locking_provider",
    "s3_pool_idle_timeout_seconds",
    "s3_role_session_name",
    "sts_pool_idle_timeout_seconds",
    "account_id_endpoint_mode",
    "disable_s3_express_session_auth",
    "request_checksum_calculation",
    "sdk_ua_app_id",
    "sigv4a_signing_region_set",
    "sts_regional_endpoints",
    "use_dualstack_endpoint",
    "use_fips_endpoint",
]
# These belong to the user's credentials; a variable that no option replaces is refused.
KEYS = {"access_key_id", "secret_access_key", "session_token"}
REFUSED = {"server_side_encryption", "token", "session_token"}

# Differ between two equal requests, or between two places.
VARYING = re.compile(r"[0-9a-f]{12,}.*|part-.*")
SIGNED = re.compile(r"Signature=.*|Date=\w+|\d{8}%2F")
CHANGING = {"authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-checksum-sha256"} | {
    "content-length",
    "host",
    "if-match",
    "range",
}


def use_obstore(access: S3Access) -> str:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"y"

    async def use() -> None:
        store = ObstoreStore(access)
        await store.put("a", b"x", Create(), Headers("image/png"))
        await store.get("a")
        await store.list_page("", "")
        await store.put_multipart("m", chunks, 5 << 20, Headers("image/png"))
        await store.aclose()

    asyncio.run(use())
    return ""


def use_deltalake(access: S3Access) -> str:
    uri, options = f"{access.url}/catalog", delta_options(access)
    schema = Schema([Field("a", PrimitiveType("integer"))])
    DeltaTable.create(uri, schema=schema, storage_options=options)
    table = DeltaTable(uri, storage_options=options)
    rows = arrow.Table.from_pydict({"a": arrow.Array([1], type=arrow.DataType.int32())})
    write_deltalake(table, rows, mode="append")
    return ""


def sign(access: S3Access) -> str:
    (url,) = Signer(access).sign(["x"], timedelta(minutes=1))
    return SIGNED.sub("", url.split("/x?")[1])


Seen = tuple[str, list[tuple[object, ...]]]


@pytest.fixture
def seen_by(make_place: MakePlace) -> Iterator[Callable[[Callable[[S3Access], str]], Seen]]:
    """Returns the result of an action, and its requests without what always differs."""
    place = make_place("moto-obstore")
    requests: list[tuple[object, ...]] = []

    def record(request: Request) -> None:
        fields = {n: v for n, v in request.headers.items() if n not in CHANGING}
        names = sorted(request.headers)
        requests.append((request.method, VARYING.sub("", request.target), names, fields))

    with FaultProxy(place.layer["endpoint"], record) as proxy:

        def run(action: Callable[[S3Access], str]) -> Seen:
            requests.clear()
            url = BucketUrl.parse(f"s3://{place.url.bucket}/{secrets.token_hex(6)}")
            access = S3Access(url, BucketSettings(endpoint=proxy.endpoint, region="us-east-1"))
            return action(access), list(requests)

        yield run


@pytest.mark.parametrize("action", [use_obstore, use_deltalake, sign])
def test_no_variable_changes_a_request(
    action: Callable[[S3Access], str],
    seen_by: Callable[[Callable[[S3Access], str]], Seen],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = seen_by(action)
    assert expected == seen_by(action)
    for value in ("true", "junk", "1ns", "http://127.0.0.1:9", "dynamodb"):
        with monkeypatch.context() as patch:
            for name in NAMES:
                for form in (f"AWS_{name.upper()}", name.upper(), name):
                    patch.setenv(form, value)
            assert seen_by(action) == expected, value


def test_the_names_are_those_that_obstore_documents() -> None:
    documented: set[str] = set()
    for stub, kind in (("_aws", "S3Config"), ("_client", "ClientConfig")):
        text = (Path(obstore.__file__).parent / "_store" / f"{stub}.pyi").read_text()
        (found,) = (n for n in ast.parse(text).body if getattr(n, "name", "") == kind)
        assert isinstance(found, ast.ClassDef)
        documented |= {
            line.target.id.removeprefix("aws_")
            for line in found.body
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        }
    assert len(documented) > 40
    assert documented - {*NAMES, "endpoint_url_s3"} == KEYS | {"server_side_encryption"}


@pytest.mark.parametrize("option", sorted(REFUSED))
def test_a_variable_that_no_option_replaces_is_refused(
    option: str, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    access = S3Access(BucketUrl.parse("s3://plants"), BucketSettings(region="auto"))
    assert "aws_session_token" not in delta_options(access)
    for name in {f"AWS_{option.upper()}", option.upper(), option} - {"AWS_SESSION_TOKEN"}:
        with monkeypatch.context() as patch:
            patch.setenv(name, "x")
            with pytest.raises(ConfigError, match=f"env -u {name}"):
                delta_options(access)


def test_the_token_of_the_credentials_replaces_any_other() -> None:
    assert foreign_variables({"TOKEN": "x", "AWS_TOKEN": "x"}, temporary=True) == []
    assert foreign_variables({"TOKEN": "x", "HF_TOKEN": "x", "GITHUB_TOKEN": "x"}) == ["TOKEN"]


def test_the_command_line_runs_without_them(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place("moto-obstore")
    fill(tmp_path / "cache", {url_of(1): photo(1)})
    sent: list[Request] = []
    with FaultProxy(place.layer["endpoint"], sent.append) as proxy:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "mirror", "sync", f"--cache={tmp_path}/cache"),
                *(f"--bucket={place.url}", f"--endpoint={proxy.endpoint}", "--region=us-east-1"),
            ],
            env=os.environ
            | dict.fromkeys(("TOKEN", "SESSION_TOKEN", "AWS_SERVER_SIDE_ENCRYPTION"), "secret")
            | {
                "AWS_RETRY_MODE": "legacy",
                "AWS_SESSION_TOKEN": "",
                "XDG_STATE_HOME": str(tmp_path),
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert any("_delta_log" in request.path for request in sent)
    assert not [request for request in sent if "x-amz-security-token" in request.headers]
    assert not [request for request in sent if "secret" in str(request.headers)]
