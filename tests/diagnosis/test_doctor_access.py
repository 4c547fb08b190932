"""The doctor's checks of credentials, endpoint, bucket, region and clock."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mirror.diagnosis.finding import DoctorReport
from tests.diagnosis.doctor_setup import LINES, MakeSetup, statuses
from tests.servers import READER, WRITER
from tests.support.http_servers import answering


def test_no_credentials(make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = make_setup("seaweedfs-obstore")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = setup.found()
    assert statuses(found, "fail") == ["credentials"]
    assert statuses(found, "ok") == ["cache", "state"]
    assert set(found) == set(LINES)
    assert DoctorReport(list(found.values())).exit_status == 78


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_credentials_that_are_not_accepted(
    make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    setup = make_setup("seaweedfs-obstore")
    monkeypatch.setenv(variable, "wrong-value-of-a-key")
    found = setup.found()
    assert statuses(found, "fail") == ["credentials"]
    assert found["endpoint"].status == "ok"
    assert DoctorReport(list(found.values())).exit_status == 78
    assert "wrong-value-of-a-key" not in str(found)


def test_it_says_where_credentials_come_from_and_never_the_secret(
    make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setup = make_setup("seaweedfs-obstore")
    key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    assert "the environment" in setup.found()["credentials"].what
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    file = tmp_path / "credentials"
    file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    found = setup.found()
    assert "~/.aws/credentials" in found["credentials"].what
    assert secret not in str(found)


def test_an_endpoint_at_a_closed_port(make_setup: MakeSetup) -> None:
    setup = make_setup("seaweedfs-obstore")
    setup.bucket["endpoint"] = "http://127.0.0.1:9"
    found = setup.found()
    assert statuses(found, "fail") == ["endpoint"]
    assert found["write"].status == found["engine"].status == "skip"
    assert DoctorReport(list(found.values())).exit_status == 1
    assert len(setup.slept) == 2, "it was tried again before it was given up"


def test_a_bucket_that_does_not_exist(make_setup: MakeSetup) -> None:
    setup = make_setup("seaweedfs-obstore")
    setup.bucket["url"] = "s3://nobodys-bucket/x"
    found = setup.found()
    assert statuses(found, "fail") == ["bucket"]
    assert found["credentials"].status == "ok"


def test_a_bucket_in_another_region(make_setup: MakeSetup) -> None:
    setup = make_setup("moto-obstore")
    body = b"<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>"
    with answering(301, body, {"x-amz-bucket-region": "eu-west-1"}) as endpoint:
        setup.bucket["endpoint"] = endpoint
        found = setup.found()
    assert statuses(found, "fail") == ["region"]
    assert 'bucket.region = "eu-west-1"' in found["region"].what
    assert DoctorReport(list(found.values())).exit_status == 78


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(0, "ok"), (300, "warn"), (-300, "warn"), (3600, "fail"), (-3600, "fail")],
)
def test_a_clock_that_is_wrong(make_setup: MakeSetup, seconds: float, status: str) -> None:
    found = make_setup("seaweedfs-obstore").found(now=lambda: time.time() + seconds)
    assert found["clock"].status == status, found["clock"]


def test_a_clock_so_wrong_that_requests_are_refused(make_setup: MakeSetup) -> None:
    setup = make_setup("moto-obstore")
    body = b"<Error><Code>RequestTimeTooSkewed</Code><Message>clock</Message></Error>"
    with answering(403, body, {}) as endpoint:
        setup.bucket["endpoint"] = endpoint
        assert statuses(setup.found(), "fail") == ["clock"]


def test_a_server_that_does_not_tell_its_time() -> None:
    from mirror.diagnosis.bucket_checks import clock

    assert clock({}, 0.0).status == "skip"
    odd = {"ResponseMetadata": {"HTTPHeaders": {"date": "yesterday"}}}
    assert clock(odd, 0.0).status == "skip"


def test_a_writer_that_may_not_delete_is_well(
    make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = make_setup("seaweedfs-obstore")
    with monkeypatch.context() as writer:
        writer.setenv("AWS_ACCESS_KEY_ID", WRITER.access_key)
        writer.setenv("AWS_SECRET_ACCESS_KEY", WRITER.secret_key)
        found = setup.found()
    assert statuses(found, "fail") == []
    assert "this key may not" in found["delete"].what
    assert setup.probes(), "they stay, and it said so"


def test_a_reader_may_not_write_and_is_well_if_it_need_not(
    make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = make_setup("seaweedfs-obstore")
    setup.sync()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER.secret_key)
    found = setup.found()
    assert statuses(found, "fail") == ["write"]
    assert "--read-only" in found["write"].fix
    found = setup.found(read_only=True)
    assert statuses(found, "fail") == []
    assert {"write", "delete", "pages"} <= set(statuses(found, "skip"))
    assert setup.probes() == []
