"""The servers behave as the other tests assume."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from . import (
    READER,
    WRITER,
    S3Server,
    ServerUnavailable,
    miniflare_server,
    moto_server,
    seaweedfs_server,
)
from .process import eventually, free_ports, running
from .seaweedfs import remove_sockets

EVERY = ("moto", "seaweedfs", "miniflare")


@pytest.fixture(params=EVERY)
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


def client(server: S3Server) -> Any:
    made: Any = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            proxies={},
        ),
    )
    made.meta.events.register("before-call.s3", drop_expect)
    return made


def drop_expect(params: dict[str, Any], **_: object) -> None:
    # Must return None: botocore treats any other value as the response, and sends nothing.
    params["headers"].pop("Expect", None)


def refusal(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    response: Any = error.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def keys(s3: Any, bucket: str) -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_put_get_list_delete(server: S3Server) -> None:
    s3, bucket = client(server), server.fresh_bucket()

    put = s3.put_object(Bucket=bucket, Key="a/b.jpg", Body=b"photo", ContentType="image/jpeg")
    got = s3.get_object(Bucket=bucket, Key="a/b.jpg")

    assert put["ETag"] == f'"{hashlib.md5(b"photo", usedforsecurity=False).hexdigest()}"'
    assert got["Body"].read() == b"photo"
    assert got["ContentType"] == "image/jpeg"
    assert keys(s3, bucket) == ["a/b.jpg"]
    s3.delete_object(Bucket=bucket, Key="a/b.jpg")
    assert keys(s3, bucket) == []


def test_fresh_buckets_are_new_and_empty(server: S3Server) -> None:
    s3 = client(server)
    first, second = server.fresh_bucket(), server.fresh_bucket()

    assert len({first, second, server.bucket}) == 3
    assert keys(s3, first) == keys(s3, second) == []


def test_conditional_put_of_an_existing_key_is_412(server: S3Server) -> None:
    s3, bucket = client(server), server.fresh_bucket()

    s3.put_object(Bucket=bucket, Key="once", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=bucket, Key="once", Body=b"second", IfNoneMatch="*")

    assert refusal(error) == (412, "PreconditionFailed")
    assert s3.get_object(Bucket=bucket, Key="once")["Body"].read() == b"first"


def test_put_of_a_file_object_without_expect(server: S3Server, tmp_path: Path) -> None:
    """botocore adds `Expect: 100-continue` for file objects. The header must be gone."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"x" * 100_000)
    s3, bucket = client(server), server.fresh_bucket()
    sent: list[Any] = []
    s3.meta.events.register("before-send.s3", lambda request, **_: sent.append(request))

    with path.open("rb") as body:
        s3.put_object(Bucket=bucket, Key="file", Body=body)

    assert "Expect" not in sent[0].headers
    assert s3.head_object(Bucket=bucket, Key="file")["ContentLength"] == 100_000


@pytest.mark.parametrize("name", ["seaweedfs", "miniflare"])
def test_a_wrong_secret_is_refused(name: str, request: pytest.FixtureRequest) -> None:
    server: S3Server = request.getfixturevalue(name)
    stranger = client(dataclasses.replace(server, secret_key="not the secret"))

    with pytest.raises(ClientError) as error:
        stranger.put_object(Bucket=server.bucket, Key="secret", Body=b"x")

    assert refusal(error) == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("name", ["seaweedfs", "miniflare"])
def test_a_write_with_a_wrong_md5_is_refused(name: str, request: pytest.FixtureRequest) -> None:
    server: S3Server = request.getfixturevalue(name)
    s3, bucket = client(server), server.fresh_bucket()
    digest = hashlib.md5(b"what was meant", usedforsecurity=False).digest()

    with pytest.raises(ClientError) as error:
        s3.put_object(
            Bucket=bucket, Key="k", Body=b"what came", ContentMD5=base64.b64encode(digest).decode()
        )

    assert refusal(error) == (400, "BadDigest")
    assert keys(s3, bucket) == []


def test_seaweedfs_writer_may_not_delete(seaweedfs: S3Server) -> None:
    bucket = seaweedfs.fresh_bucket()
    s3 = client(seaweedfs.acting_as(WRITER))

    s3.put_object(Bucket=bucket, Key="k", Body=b"x", IfNoneMatch="*")
    with pytest.raises(ClientError) as error:
        s3.delete_object(Bucket=bucket, Key="k")
    many = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}]})

    assert refusal(error) == (403, "AccessDenied")
    assert [item["Code"] for item in many["Errors"]] == ["AccessDenied"]
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    assert keys(s3, bucket) == ["k"]


def test_seaweedfs_reader_may_not_write(seaweedfs: S3Server) -> None:
    bucket = seaweedfs.fresh_bucket()
    client(seaweedfs).put_object(Bucket=bucket, Key="k", Body=b"x")
    s3 = client(seaweedfs.acting_as(READER))

    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=bucket, Key="k", Body=b"y")

    assert refusal(error) == (403, "AccessDenied")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_seaweedfs_has_room_for_many_buckets(seaweedfs: S3Server) -> None:
    """With the defaults, writing to a fourth bucket finds no volume."""
    s3 = client(seaweedfs)
    buckets = [seaweedfs.fresh_bucket() for _ in range(8)]
    for bucket in buckets:
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert [keys(s3, bucket) for bucket in buckets] == [["k"]] * 8


def test_seaweedfs_creates_no_bucket_on_a_put(seaweedfs: S3Server) -> None:
    with pytest.raises(ClientError) as error:
        client(seaweedfs).put_object(Bucket="never-made", Key="k", Body=b"x")

    assert refusal(error) == (404, "NoSuchBucket")


def test_seaweedfs_keeps_a_bucket_with_objects(seaweedfs: S3Server) -> None:
    s3, bucket = client(seaweedfs), seaweedfs.fresh_bucket()
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")

    with pytest.raises(ClientError) as error:
        s3.delete_bucket(Bucket=bucket)

    assert refusal(error) == (409, "BucketNotEmpty")


def test_miniflare_reads_without_credentials(miniflare: S3Server) -> None:
    bucket = miniflare.fresh_bucket()
    client(miniflare).put_object(Bucket=bucket, Key="a/b", Body=b"x", ContentType="image/png")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    with direct.open(f"{miniflare.public_url(bucket)}/a/b", timeout=10) as answer:
        assert (answer.read(), answer.headers["Content-Type"]) == (b"x", "image/png")


def test_a_server_that_is_not_installed_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVERS_DIR", str(tmp_path))
    for start in (moto_server, seaweedfs_server, miniflare_server):
        with pytest.raises(ServerUnavailable, match="run: make servers"), start(tmp_path):
            pass


def test_a_server_that_ends_shows_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no room'); raise SystemExit(3)"]
    with (
        pytest.raises(ServerUnavailable, match=r"(?s)status 3 .*no room"),
        running("it", command, tmp_path, ready=lambda: False),
    ):
        pass


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "input()"]
    with (
        pytest.raises(ServerUnavailable, match="did not answer within"),
        running("it", command, tmp_path, ready=lambda: False, patience=0.1),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
@pytest.mark.parametrize("name", EVERY)
def test_no_server_outlives_a_killed_run(name: str, tmp_path: Path) -> None:
    script = (
        "import importlib, pathlib, sys\n"
        f"servers = importlib.import_module({__package__!r})\n"
        f"with servers.{name}_server(pathlib.Path({str(tmp_path)!r})) as server:\n"
        "    print(server.endpoint, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        address = urllib.parse.urlsplit(run.stdout.readline().strip())
        assert not is_refused(address.netloc)
        run.kill()
        run.wait()

    assert eventually(lambda: is_refused(address.netloc), within=10)
    remove_sockets(tmp_path)


def is_refused(netloc: str) -> bool:
    host, port = netloc.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


def test_free_ports_are_distinct_and_can_be_listened_on() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    with socket.create_server(("127.0.0.1", ports[0])):
        pass
