"""The doctor passes a sound setup, and each check fails for its own reason only."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.diagnosis import machine_checks
from mirror.diagnosis.finding import DoctorReport
from mirror.store.base import Create, Headers
from tests.diagnosis.doctor_setup import LINES, MakeSetup, proxied, statuses
from tests.support.fault_proxy import (
    ACCESS_DENIED,
    SLOW_DOWN,
    TOO_MANY_REQUESTS,
    Answer,
    DropWrite,
    Fault,
    Request,
    Without,
    refusal,
)
from tests.support.mirror_setup import IS_ROOT
from tests.support.photos import photo


@pytest.mark.parametrize(
    ("name", "warns", "fails"),
    [
        ("seaweedfs-obstore", [], []),
        ("seaweedfs-aioboto3", [], []),
        # R2 verifies SHA-256; miniflare verifies only MD5.
        ("miniflare-obstore", ["checksum"], []),
        ("miniflare-aioboto3", [], []),
        ("moto-obstore", [], ["checksum"]),
    ],
)
def test_what_each_server_is_like(
    make_setup: MakeSetup, name: str, warns: list[str], fails: list[str]
) -> None:
    setup = make_setup(name)
    found = setup.found()
    assert list(found) == LINES
    assert statuses(found, "warn") == warns, found
    assert statuses(found, "fail") == fails, found
    silent = ["clock"] if "miniflare" in name else []  # it sends no Date
    assert statuses(found, "skip") == [*silent, "public_url"]
    assert "no mirror yet" in found["format"].what
    assert setup.probes() == []
    assert setup.slept == [], "nothing had to be tried again"


def test_a_mirror_in_a_folder_is_well(make_setup: MakeSetup) -> None:
    setup = make_setup("file")
    first = setup.found()
    assert "will be made" in first["folder"].what
    setup.sync()
    found = setup.found()
    assert statuses(found, "fail") == statuses(found, "warn") == []
    assert found["format"].what.startswith("1, mirror ")
    assert not (Path(setup.place.url.path) / "doctor").exists()


def test_a_folder_that_cannot_be_used(make_setup: MakeSetup) -> None:
    setup = make_setup("file")
    Path(setup.place.url.path).write_text("a file is in the way")
    found = setup.found()
    assert "write" in statuses(found, "fail")
    assert setup.found(read_only=True)["write"].status == "skip"


def test_a_folder_to_read_that_is_not_there(make_setup: MakeSetup) -> None:
    found = make_setup("file").found(read_only=True)
    assert found["folder"].status == "fail"
    assert found["engine"].status == "skip"


def only(operation: str, fault: Fault, when: str = "") -> Callable[[Request], Fault | None]:
    """A rule that applies a fault to some requests and to no others."""

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
def test_each_check_fails_for_its_own_reason(
    make_setup: MakeSetup,
    line: str,
    words: str,
    server: str,
    rule: Callable[[Request], Fault | None],
) -> None:
    setup = make_setup(f"{server}-obstore")
    with proxied(setup, rule):
        found = setup.found()
    assert found[line].status == "fail", found
    assert words in found[line].what
    others = set(statuses(found, "fail")) - {line}
    # moto verifies no checksum, and some other checks rely on reading.
    allowed = {"checksum"} if server == "moto" else set()
    allowed |= {"latency", "if-none-match", "engine"} if line == "read" else set()
    assert others <= allowed, found
    assert DoctorReport(list(found.values())).exit_status == 1


@pytest.mark.parametrize("trouble", [SLOW_DOWN, TOO_MANY_REQUESTS], ids=["503", "429"])
def test_one_transient_refusal_is_no_finding(make_setup: MakeSetup, trouble: Answer) -> None:
    setup = make_setup("seaweedfs-obstore")
    seen: set[tuple[str, str]] = set()

    def first_of_each(request: Request) -> Fault | None:
        name = (request.method, request.target)
        if "doctor" not in request.target or name in seen:
            return None
        seen.add(name)
        return trouble if request.operation == "put" and "/d-" not in request.target else None

    with proxied(setup, first_of_each):
        found = setup.found()
    assert statuses(found, "fail") == []
    assert setup.slept
    assert min(setup.slept) >= 1.0, "R2 takes one write a second for each key"


@pytest.mark.parametrize(("step", "status"), [(0.001, "ok"), (2.0, "warn")])
def test_latency_is_measured_and_slowness_is_reported(
    make_setup: MakeSetup, step: float, status: str
) -> None:
    ticks = iter(range(1000))
    found = make_setup("moto-obstore").found(clock=lambda: next(ticks) * step)
    assert found["latency"].status == status
    assert f"p50 {step * 1000:.0f} ms" in found["latency"].what


def test_an_engine_that_is_not_installed(
    make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = make_setup("seaweedfs-aioboto3")
    monkeypatch.setitem(sys.modules, "mirror.store.engines.aioboto3", None)
    found = setup.found()
    assert statuses(found, "fail") == ["engine"]
    assert "pip install" in found["engine"].fix


def test_an_engine_that_cannot_do_what_boto3_can(make_setup: MakeSetup) -> None:
    setup = make_setup("seaweedfs-obstore")
    with proxied(setup, only("get", ACCESS_DENIED, "format.json")):
        found = setup.found()
    assert statuses(found, "fail") == ["engine"]
    assert "obstore" in found["engine"].what


@pytest.mark.parametrize(
    ("body", "words"),
    [(b'{"format": 99, "id": "x"}', "mirror format 99"), (b"<html>", "is not a mirror's")],
)
def test_a_format_that_is_not_known(make_setup: MakeSetup, body: bytes, words: str) -> None:
    setup = make_setup("seaweedfs-obstore")

    async def write() -> None:
        store = setup.place.open()
        await store.put("format.json", body, Create(), Headers())
        await store.aclose()

    asyncio.run(write())
    found = setup.found()
    assert statuses(found, "fail") == ["format"]
    assert words in found["format"].what


def test_a_cache_that_is_not_there(make_setup: MakeSetup) -> None:
    setup = make_setup("file")
    setup.cache = setup.folder / "nowhere"
    found = setup.found()
    assert statuses(found, "fail") == ["cache"]
    assert DoctorReport(list(found.values())).exit_status == 78


@pytest.mark.parametrize(("name", "words"), [(None, "is empty"), ("photo1.jpg", "none of 1 files")])
def test_a_cache_without_images(make_setup: MakeSetup, name: str | None, words: str) -> None:
    setup = make_setup("file")
    for file in setup.cache.iterdir():
        file.unlink()
    if name:
        (setup.cache / name).write_bytes(photo(1))
    found = setup.found()["cache"]
    assert found.status == "warn"
    assert words in found.what


@pytest.mark.parametrize("which", ["folder", "file"])
def test_the_fix_for_an_unreadable_cache_covers_future_files(
    make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """The advice covers future files too: it names a default ACL."""
    setup = make_setup("file")
    (setup.cache / "sub").mkdir()

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine_checks, "open_regular", refused)
    if which == "folder":
        really = os.scandir
        monkeypatch.setattr(
            os, "scandir", lambda path: refused() if b"sub" in path else really(path)
        )
    found = machine_checks.cache(setup.settings())
    assert found.status == "fail"
    assert "setfacl -R -m u:mirror:rX,d:u:mirror:rX" in found.fix


def test_a_machine_without_a_cache(make_setup: MakeSetup) -> None:
    setup = make_setup("file")
    settings = setup.place.settings(state={"dir": str(setup.folder / "state")})
    assert machine_checks.cache(settings).status == "skip"
    assert machine_checks.state(settings).status == "ok"


def test_root_makes_nothing_in_the_state_of_a_user(
    make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor also makes nothing there. People run it first when a timer's run has failed."""
    setup = make_setup("file")
    state = setup.folder / "state"
    state.mkdir()
    if IS_ROOT:
        os.chown(state, 65534, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = setup.found()["state"]
    assert found.status == "warn"
    assert "runuser -u " in found.fix
    assert list(state.iterdir()) == []


def test_a_state_that_cannot_be_written(make_setup: MakeSetup) -> None:
    setup = make_setup("file")
    (setup.folder / "state").write_text("a file is in the way")
    found = setup.found()
    assert statuses(found, "fail") == ["state"]
    assert DoctorReport(list(found.values())).exit_status == 78


def test_a_disk_with_little_room(make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "free_bytes", lambda _: 5_000_000)
    found = make_setup("file").found()["state"]
    assert found.status == "warn"
    assert "5.0 MB are free" in found.what
