"""The doctor: well where all is well, and each line fails for its own reason and for no other."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self

import pytest

from mirror.cli.main import run
from mirror.config import Settings
from mirror.diagnosis import machine
from mirror.diagnosis.doctor import DoctorOptions, examine
from mirror.diagnosis.finding import Finding, exit_status, fail, ok, warn
from mirror.layout import CACHE_CONTROL
from mirror.store.base import Create, Headers, list_all
from mirror.sync.run import sync
from tests.cli.test_bad_input import answering
from tests.conftest import MakePlace, Place
from tests.photos import fill, photo, url_of
from tests.proxy import (
    ACCESS_DENIED,
    SLOW_DOWN,
    TOO_MANY_REQUESTS,
    Answer,
    DropWrite,
    Fault,
    FaultProxy,
    Request,
    Without,
    refusal,
)
from tests.servers import READER, WRITER

LINES = [
    "credentials", "endpoint", "bucket", "region", "clock", "list", "write", "read",
    "if-none-match", "if-match", "checksum", "pages", "latency", "delete", "engine", "format",
    "public_url", "cache", "state",
]  # fmt: skip


class Clinic:
    """A machine to be looked at: a cache, a place for its mirror, a state."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place = place
        self.folder = folder
        self.bucket: dict[str, Any] = {}
        self.slept: list[float] = []
        self.cache = folder / "cache"
        fill(self.cache, {url_of(n): photo(n) for n in range(3)})

    def settings(self) -> Settings:
        place = Place(self.place.name, self.place.layer | self.bucket)
        state = {"dir": str(self.folder / "state")}
        return place.settings(cache={"dir": str(self.cache)}, state=state)

    def sync(self) -> None:
        assert sync(self.settings()).uploaded == 3

    def found(self, **options: Any) -> dict[str, Finding]:
        options = {"sleep": self.slept.append} | options
        found = list(examine(self.settings(), DoctorOptions(**options)))
        names = [finding.name for finding in found]
        assert len(set(names)) == len(names)
        for finding in found:
            assert bool(finding.fix) == (finding.status in ("warn", "fail")), finding
        return {finding.name: finding for finding in found}

    def probes(self) -> list[str]:
        async def read() -> list[str]:
            store = self.place.open()
            try:
                return [info.key async for info in list_all(store, "doctor/")]
            finally:
                await store.aclose()

        return asyncio.run(read())


MakeClinic = Callable[[str], Clinic]


@pytest.fixture
def clinic(make_place: MakePlace, tmp_path: Path) -> MakeClinic:
    return lambda name: Clinic(make_place(name), tmp_path)


def statuses(found: Mapping[str, Finding], status: str) -> list[str]:
    return [name for name, finding in found.items() if finding.status == status]


@contextmanager
def between(clinic: Clinic, rule: Callable[[Request], Fault | None]) -> Iterator[FaultProxy]:
    """The clinic's server behind a proxy that answers by `rule`."""
    with FaultProxy(clinic.place.layer["endpoint"], rule) as proxy:
        clinic.bucket["endpoint"] = proxy.endpoint
        yield proxy


@pytest.mark.parametrize(
    ("name", "warns", "fails"),
    [
        ("seaweedfs-obstore", [], []),
        ("seaweedfs-aioboto3", [], []),
        # R2 verifies SHA-256; its stand-in only the MD5.
        ("miniflare-obstore", ["checksum"], []),
        ("miniflare-aioboto3", [], []),
        ("moto-obstore", [], ["checksum"]),
    ],
)
def test_what_each_server_is_like(
    clinic: MakeClinic, name: str, warns: list[str], fails: list[str]
) -> None:
    here = clinic(name)
    found = here.found()
    assert list(found) == LINES
    assert statuses(found, "warn") == warns, found
    assert statuses(found, "fail") == fails, found
    silent = ["clock"] if "miniflare" in name else []  # it sends no Date
    assert statuses(found, "skip") == [*silent, "public_url"]
    assert "no mirror yet" in found["format"].what
    assert here.probes() == []
    assert here.slept == [], "nothing had to be tried again"


def test_a_mirror_in_a_folder_is_well(clinic: MakeClinic) -> None:
    here = clinic("file")
    first = here.found()
    assert "will be made" in first["folder"].what
    here.sync()
    found = here.found()
    assert statuses(found, "fail") == statuses(found, "warn") == []
    assert found["format"].what.startswith("1, mirror ")
    assert not (Path(here.place.url.path) / "doctor").exists()


def test_a_folder_that_cannot_be_used(clinic: MakeClinic) -> None:
    here = clinic("file")
    Path(here.place.url.path).write_text("a file is in the way")
    found = here.found()
    assert "write" in statuses(found, "fail")
    assert here.found(read_only=True)["write"].status == "skip"


def test_a_folder_to_read_that_is_not_there(clinic: MakeClinic) -> None:
    found = clinic("file").found(read_only=True)
    assert found["folder"].status == "fail"
    assert found["engine"].status == "skip"


def test_no_credentials(clinic: MakeClinic, monkeypatch: pytest.MonkeyPatch) -> None:
    here = clinic("seaweedfs-obstore")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = here.found()
    assert statuses(found, "fail") == ["credentials"]
    assert statuses(found, "ok") == ["cache", "state"]
    assert set(found) == set(LINES)
    assert exit_status(found.values()) == 78


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_credentials_that_are_not_accepted(
    clinic: MakeClinic, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    here = clinic("seaweedfs-obstore")
    monkeypatch.setenv(variable, "wrong-value-of-a-key")
    found = here.found()
    assert statuses(found, "fail") == ["credentials"]
    assert found["endpoint"].status == "ok"
    assert exit_status(found.values()) == 78
    assert "wrong-value-of-a-key" not in str(found)


def test_it_says_where_credentials_come_from_and_never_the_secret(
    clinic: MakeClinic, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = clinic("seaweedfs-obstore")
    key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    assert "the environment" in here.found()["credentials"].what
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    file = tmp_path / "credentials"
    file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    found = here.found()
    assert "~/.aws/credentials" in found["credentials"].what
    assert secret not in str(found)


def test_an_endpoint_that_nobody_listens_at(clinic: MakeClinic) -> None:
    here = clinic("seaweedfs-obstore")
    here.bucket["endpoint"] = "http://127.0.0.1:9"
    found = here.found()
    assert statuses(found, "fail") == ["endpoint"]
    assert found["write"].status == found["engine"].status == "skip"
    assert exit_status(found.values()) == 1
    assert len(here.slept) == 2, "it was tried again before it was given up"


def test_a_bucket_that_does_not_exist(clinic: MakeClinic) -> None:
    here = clinic("seaweedfs-obstore")
    here.bucket["url"] = "s3://nobodys-bucket/x"
    found = here.found()
    assert statuses(found, "fail") == ["bucket"]
    assert found["credentials"].status == "ok"


def test_a_bucket_in_another_region(clinic: MakeClinic) -> None:
    here = clinic("moto-obstore")
    body = b"<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>"
    with answering(301, body, {"x-amz-bucket-region": "eu-west-1"}) as endpoint:
        here.bucket["endpoint"] = endpoint
        found = here.found()
    assert statuses(found, "fail") == ["region"]
    assert 'bucket.region = "eu-west-1"' in found["region"].what
    assert exit_status(found.values()) == 78


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(0, "ok"), (300, "warn"), (-300, "warn"), (3600, "fail"), (-3600, "fail")],
)
def test_a_clock_that_is_wrong(clinic: MakeClinic, seconds: float, status: str) -> None:
    found = clinic("seaweedfs-obstore").found(now=lambda: time.time() + seconds)
    assert found["clock"].status == status, found["clock"]


def test_a_clock_so_wrong_that_requests_are_refused(clinic: MakeClinic) -> None:
    here = clinic("moto-obstore")
    body = b"<Error><Code>RequestTimeTooSkewed</Code><Message>clock</Message></Error>"
    with answering(403, body, {}) as endpoint:
        here.bucket["endpoint"] = endpoint
        assert statuses(here.found(), "fail") == ["clock"]


def test_a_server_that_does_not_tell_its_time() -> None:
    from mirror.diagnosis.endpoint import clock

    assert clock({}, 0.0).status == "skip"
    odd = {"ResponseMetadata": {"HTTPHeaders": {"date": "yesterday"}}}
    assert clock(odd, 0.0).status == "skip"


def only(operation: str, fault: Fault, when: str = "") -> Callable[[Request], Fault | None]:
    """A rule: this happens to such requests, and nothing to others."""

    def rule(request: Request) -> Fault | None:
        hit = request.operation == operation and when in f"{request.target} {request.headers}"
        return fault if hit else None

    return rule


def without_bytes(body: bytes) -> Answer:
    return Answer(200, {"Content-Type": "application/xml"}, body)


EMPTY_PAGE = without_bytes(
    b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>"
)


@pytest.mark.parametrize(
    ("line", "words", "server", "rule"),
    [
        ("list", "may not", "seaweedfs", only("list", ACCESS_DENIED)),
        ("write", "may not", "seaweedfs", only("put", ACCESS_DENIED)),
        ("read", "may not", "seaweedfs", only("get", ACCESS_DENIED, "/a ")),
        ("read", "other bytes", "seaweedfs", only("get", Answer(200, {}, b"x"), "doctor/")),
        ("read", "Content-Type", "moto", only("put", Without("content-type"), "doctor/")),
        ("if-none-match", "overwritten", "moto", only("put", Without("if-none-match"))),
        ("if-none-match", "501", "moto", only("put", refusal(501, "NotImplemented"), "none-match")),
        ("if-match", "overwritten", "moto", only("put", Without("if-match"))),
        ("if-match", "was refused", "moto", only("put", refusal(412, "X"), "'if-match'")),
        ("checksum", "accepted", "moto", lambda _: None),
        ("pages", "keys came", "seaweedfs", only("list", EMPTY_PAGE, "continuation")),
        ("pages", "StartAfter", "seaweedfs", only("list", EMPTY_PAGE, "start-after")),
        ("delete", "still there", "seaweedfs", only("delete", DropWrite())),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_line_fails_for_its_reason(
    clinic: MakeClinic, line: str, words: str, server: str, rule: Callable[[Request], Fault | None]
) -> None:
    here = clinic(f"{server}-obstore")
    with between(here, rule):
        found = here.found()
    assert found[line].status == "fail", found
    assert words in found[line].what
    others = set(statuses(found, "fail")) - {line}
    # moto verifies no checksum; reading is what some other lines judge by.
    allowed = {"checksum"} if server == "moto" else set()
    allowed |= {"latency", "if-none-match", "engine"} if line == "read" else set()
    assert others <= allowed, found
    assert exit_status(found.values()) == 1


@pytest.mark.parametrize("trouble", [SLOW_DOWN, TOO_MANY_REQUESTS], ids=["503", "429"])
def test_one_refusal_that_may_pass_is_no_finding(clinic: MakeClinic, trouble: Answer) -> None:
    here = clinic("seaweedfs-obstore")
    seen: set[tuple[str, str]] = set()

    def first_of_each(request: Request) -> Fault | None:
        name = (request.method, request.target)
        if "doctor" not in request.target or name in seen:
            return None
        seen.add(name)
        return trouble if request.operation == "put" and "/d-" not in request.target else None

    with between(here, first_of_each):
        found = here.found()
    assert statuses(found, "fail") == []
    assert here.slept
    assert min(here.slept) >= 1.0, "R2 takes one write a second for each key"


@pytest.mark.parametrize(("step", "status"), [(0.001, "ok"), (2.0, "warn")])
def test_latency_is_measured_and_slowness_is_told(
    clinic: MakeClinic, step: float, status: str
) -> None:
    ticks = iter(range(1000))
    found = clinic("moto-obstore").found(clock=lambda: next(ticks) * step)
    assert found["latency"].status == status
    assert f"p50 {step * 1000:.0f} ms" in found["latency"].what


def test_a_writer_that_may_not_delete_is_well(
    clinic: MakeClinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = clinic("seaweedfs-obstore")
    with monkeypatch.context() as writer:
        writer.setenv("AWS_ACCESS_KEY_ID", WRITER.access_key)
        writer.setenv("AWS_SECRET_ACCESS_KEY", WRITER.secret_key)
        found = here.found()
    assert statuses(found, "fail") == []
    assert "this key may not" in found["delete"].what
    assert here.probes(), "they stay, and it said so"


def test_a_reader_may_not_write_and_is_well_if_it_need_not(
    clinic: MakeClinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = clinic("seaweedfs-obstore")
    here.sync()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER.secret_key)
    found = here.found()
    assert statuses(found, "fail") == ["write"]
    assert "--read-only" in found["write"].fix
    found = here.found(read_only=True)
    assert statuses(found, "fail") == []
    assert {"write", "delete", "pages"} <= set(statuses(found, "skip"))
    assert here.probes() == []


def test_an_engine_that_is_not_installed(
    clinic: MakeClinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = clinic("seaweedfs-aioboto3")
    monkeypatch.setitem(sys.modules, "mirror.store.aioboto3", None)
    found = here.found()
    assert statuses(found, "fail") == ["engine"]
    assert "pip install" in found["engine"].fix


def test_an_engine_that_cannot_do_what_boto3_can(clinic: MakeClinic) -> None:
    here = clinic("seaweedfs-obstore")
    with between(here, only("get", ACCESS_DENIED, "format.json")):
        found = here.found()
    assert statuses(found, "fail") == ["engine"]
    assert "obstore" in found["engine"].what


@pytest.mark.parametrize(
    ("body", "words"),
    [(b'{"format": 99, "id": "x"}', "mirror format 99"), (b"<html>", "is not a mirror's")],
)
def test_a_format_that_is_not_known(clinic: MakeClinic, body: bytes, words: str) -> None:
    here = clinic("seaweedfs-obstore")

    async def write() -> None:
        store = here.place.open()
        await store.put("format.json", body, Create(), Headers())
        await store.aclose()

    asyncio.run(write())
    found = here.found()
    assert statuses(found, "fail") == ["format"]
    assert words in found["format"].what


def test_a_public_url_that_serves_the_bucket(clinic: MakeClinic) -> None:
    here = clinic("miniflare-obstore")
    assert here.place.server is not None
    base = here.place.server.public_url(here.place.url.bucket)
    here.bucket["public_url"] = f"{base}/{here.place.url.path}"
    assert here.found()["public_url"].status == "skip", "no object: nothing is asked for"
    here.sync()
    found = here.found()["public_url"]
    assert found.status == "ok", found
    here.bucket["public_url"] = f"{base}/elsewhere"
    found = here.found()["public_url"]
    assert found.status == "fail"
    assert "404" in found.what


class Web:
    """A CDN: answers every GET the same, and remembers what it was asked for."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.asked: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Silence."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> Self:
        self.url = f"http://127.0.0.1:{self._server.server_port}/inat"
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


GOOD = {"Content-Type": "image/jpeg", "Cache-Control": CACHE_CONTROL}


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected", "words"),
    [
        (200, None, GOOD, "ok", "same bytes"),
        (403, b"", {}, "fail", "answers 403"),
        (404, b"", {}, "fail", "answers 404"),
        (302, b"", {"Location": "http://127.0.0.1:9/"}, "fail", "answers 302"),
        (200, b"another picture", GOOD, "fail", "other bytes"),
        (200, None, GOOD | {"Content-Type": "text/plain"}, "fail", "text/plain, not image/jpeg"),
        (200, None, {"Content-Type": "image/jpeg"}, "warn", "Cache-Control"),
    ],
)
def test_a_public_url_is_compared_with_the_bucket(
    clinic: MakeClinic,
    status: int,
    body: bytes | None,
    headers: Mapping[str, str],
    expected: str,
    words: str,
) -> None:
    here = clinic("file")
    here.sync()
    objects = Path(here.place.url.path) / "objects"
    smallest = min((p for p in objects.rglob("*.jpg")), key=lambda p: (p.stat().st_size, p))
    with Web(status, smallest.read_bytes() if body is None else body, headers) as web:
        here.bucket["public_url"] = web.url
        found = here.found()["public_url"]
    assert (found.status, words in found.what) == (expected, True), found
    (asked,) = web.asked
    assert asked == f"/inat/objects/{smallest.parent.name}/{smallest.name}"


def test_a_public_url_that_nobody_listens_at(clinic: MakeClinic) -> None:
    here = clinic("file")
    here.sync()
    here.bucket["public_url"] = "http://127.0.0.1:9/inat"
    assert here.found()["public_url"].status == "fail"


def test_a_cache_that_is_not_there(clinic: MakeClinic) -> None:
    here = clinic("file")
    here.cache = here.folder / "nowhere"
    found = here.found()
    assert statuses(found, "fail") == ["cache"]
    assert exit_status(found.values()) == 78


@pytest.mark.parametrize(("name", "words"), [(None, "is empty"), ("photo1.jpg", "none of 1 files")])
def test_a_cache_without_images(clinic: MakeClinic, name: str | None, words: str) -> None:
    here = clinic("file")
    for file in here.cache.iterdir():
        file.unlink()
    if name:
        (here.cache / name).write_bytes(photo(1))
    found = here.found()["cache"]
    assert found.status == "warn"
    assert words in found.what


def test_a_machine_without_a_cache(clinic: MakeClinic) -> None:
    here = clinic("file")
    settings = here.place.settings(state={"dir": str(here.folder / "state")})
    assert machine.cache(settings).status == "skip"
    assert machine.state(settings).status == "ok"


def test_a_state_that_cannot_be_written(clinic: MakeClinic) -> None:
    here = clinic("file")
    (here.folder / "state").write_text("a file is in the way")
    found = here.found()
    assert statuses(found, "fail") == ["state"]
    assert exit_status(found.values()) == 78


def test_a_disk_with_little_room(clinic: MakeClinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_bytes", lambda _: 5_000_000)
    found = clinic("file").found()["state"]
    assert found.status == "warn"
    assert "5 MB are free" in found.what


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ([], 0),
        ([ok("a", ""), warn("b", "", "")], 0),
        ([ok("a", ""), fail("b", "", "")], 1),
        ([fail("a", "", ""), fail("b", "", "", 78)], 78),
    ],
)
def test_the_exit_status(findings: list[Finding], expected: int) -> None:
    assert exit_status(findings) == expected


def flags(here: Clinic) -> list[str]:
    layer = here.place.layer | here.bucket
    given = {"cache": str(here.cache), "state": str(here.folder / "state"), "bucket": layer["url"]}
    given |= {name: layer[name] for name in ("endpoint", "region") if name in layer}
    return [f"--{name}={value}" for name, value in given.items()]


def test_the_command_shows_a_line_each_and_a_fix_for_what_fails(
    clinic: MakeClinic, capsys: pytest.CaptureFixture[str]
) -> None:
    here = clinic("moto-obstore")
    assert run(["doctor", *flags(here)]) == 1
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split()[1] for line in lines if not line.startswith("      ")]
    assert shown == LINES
    at = next(n for n, line in enumerate(lines) if line.startswith("FAIL  checksum"))
    assert lines[at + 1].strip().startswith("→ ")

    assert run(["-q", "doctor", *flags(here)]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2, "what fails, and its fix"


def test_what_is_not_tried_for_one_reason_is_one_line(
    clinic: MakeClinic, capsys: pytest.CaptureFixture[str]
) -> None:
    here = clinic("moto-obstore")
    here.bucket["endpoint"] = "http://127.0.0.1:9"
    assert run(["doctor", *flags(here)]) == 1
    printed = capsys.readouterr().out
    assert "because of the endpoint; likewise region, clock, list\n" in printed
    assert len(printed.splitlines()) < 10
    (fault,) = (line for line in printed.splitlines() if line.startswith("FAIL"))
    assert "?list-type" not in fault, "what was asked for is said in words"
    assert run(["--json", "doctor", *flags(here)]) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert sorted(check["name"] for check in checks) == sorted(LINES)


def test_what_to_do_is_said_once(
    clinic: MakeClinic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = clinic("seaweedfs-obstore")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert run(["doctor", *flags(here)]) == 78
    (fault,) = (line for line in capsys.readouterr().out.splitlines() if "FAIL" in line)
    assert fault.endswith("is not accepted (403 SignatureDoesNotMatch)")


def test_the_commands_json(clinic: MakeClinic, capsys: pytest.CaptureFixture[str]) -> None:
    here = clinic("file")
    assert run(["--json", "doctor", *flags(here)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["fail"] == 0
    assert printed["ok"] == sum(check["status"] == "ok" for check in printed["checks"])
    assert {"name": "cache", "status": "ok", "fix": ""}.items() <= printed["checks"][-2].items()


def test_without_a_bucket_it_says_what_is_missing(
    clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["doctor"]) == 78
