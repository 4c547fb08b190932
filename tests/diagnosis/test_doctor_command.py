"""`mirror doctor`: its output and exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mirror.cli.main import run
from mirror.diagnosis.finding import DoctorReport, Finding, fail, ok, warn
from tests.diagnosis.doctor_setup import LINES, DoctorSetup, MakeSetup


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
    assert DoctorReport(findings).exit_status == expected


def flags(setup: DoctorSetup) -> list[str]:
    layer = setup.place.layer | setup.bucket
    given = {
        "cache": str(setup.cache),
        "state": str(setup.folder / "state"),
        "bucket": layer["url"],
    }
    given |= {name: layer[name] for name in ("endpoint", "region") if name in layer}
    return [f"--{name}={value}" for name, value in given.items()]


def test_the_command_shows_a_line_each_and_a_fix_for_what_fails(
    make_setup: MakeSetup, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = make_setup("moto-obstore")
    assert run(["doctor", *flags(setup)]) == 1
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split()[1] for line in lines if not line.startswith("      ")]
    assert shown == LINES
    at = next(n for n, line in enumerate(lines) if line.startswith("FAIL  checksum"))
    assert lines[at + 1].strip().startswith("→ ")

    assert run(["-q", "doctor", *flags(setup)]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2, "the failure and its fix"


def test_checks_skipped_for_one_reason_share_a_line(
    make_setup: MakeSetup, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = make_setup("moto-obstore")
    setup.bucket["endpoint"] = "http://127.0.0.1:9"
    assert run(["doctor", *flags(setup)]) == 1
    printed = capsys.readouterr().out
    assert "because of the endpoint; likewise region, clock, list\n" in printed
    assert len(printed.splitlines()) < 10
    (fault,) = (line for line in printed.splitlines() if line.startswith("FAIL"))
    assert "?list-type" not in fault, "messages hold no URL query"
    assert run(["--json", "doctor", *flags(setup)]) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert sorted(check["name"] for check in checks) == sorted(LINES)


def test_advice_is_given_once(
    make_setup: MakeSetup, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = make_setup("seaweedfs-obstore")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert run(["doctor", *flags(setup)]) == 78
    (fault,) = (line for line in capsys.readouterr().out.splitlines() if "FAIL" in line)
    assert fault.endswith("is not accepted (403 SignatureDoesNotMatch)")


def test_the_commands_json(make_setup: MakeSetup, capsys: pytest.CaptureFixture[str]) -> None:
    setup = make_setup("file")
    assert run(["--json", "doctor", *flags(setup)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["fail"] == 0
    assert printed["ok"] == sum(check["status"] == "ok" for check in printed["checks"])
    assert {"name": "cache", "status": "ok", "fix": ""}.items() <= printed["checks"][-2].items()


def test_without_a_bucket_it_says_what_is_missing(
    clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["doctor"]) == 78


def test_quiet_shows_only_problems(
    make_setup: MakeSetup, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = make_setup("file")
    found = [ok("list", "this key may"), warn("clock", "70 s behind", "Set the clock.")]
    monkeypatch.setattr("mirror.diagnosis.doctor.examine", lambda *_: iter(found))
    assert run(["-q", "doctor", *flags(setup)]) == 0
    printed = capsys.readouterr().out
    assert "clock" in printed
    assert "Set the clock." in printed
    assert "list" not in printed
