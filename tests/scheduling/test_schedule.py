"""`mirror schedule`: the text of cron and of systemd, and programs in their place that keep it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.cli.main import run
from mirror.errors import UsageError
from mirror.resources import resource
from mirror.scheduling.schedule_text import Every, Job, cron_block, systemd_units, with_cron_block

JOB = Job(
    ["/opt/venv/bin/mirror"], "sync", "/etc/my mirror/50%.toml", "daily", 17, "/var/log/a b.log"
)
SERVICE = resource("config/systemd/mirror-sync.service").read_text("utf-8")
OTHERS = "MAILTO=me\n# mine\n5 4 * * * backup\n"

# Keeps the crontab in a file, as the real one does.
CRONTAB = """#!/bin/sh
case "$1" in
  -l) [ -f "$KEPT/crontab" ] || { echo "no crontab for me" >&2; exit 1; }; cat "$KEPT/crontab";;
  -) cat > "$KEPT/crontab";;
esac
"""
# Notes what it was asked.
SYSTEMCTL = """#!/bin/sh
[ "$2" = show-environment ] && exit "${NO_SYSTEMD:-0}"
echo "$@" >> "$KEPT/asked"
"""


# --- the text alone ---


@pytest.mark.parametrize(
    ("every", "cron", "calendar"),
    [
        ("15m", "*/15 * * * *", "*:0/15"),
        ("30m", "*/30 * * * *", "*:0/30"),
        ("hourly", "17 * * * *", "*:17"),
        ("daily", "17 3 * * *", "*-*-* 03:17"),
        ("weekly", "17 3 * * 0", "Sun *-*-* 03:17"),
    ],
)
def test_how_often(every: Every, cron: str, calendar: str) -> None:
    job = replace(JOB, every=every)
    assert cron_block(job)[1].startswith(f"{cron} /opt/venv/bin/mirror ")
    assert f"OnCalendar={calendar}\n" in systemd_units(job, SERVICE)[f"{job.unit}.timer"]


def test_spaces_and_percent_signs_are_escaped() -> None:
    _, line = cron_block(JOB)
    assert line == (
        "17 3 * * * /opt/venv/bin/mirror --config '/etc/my mirror/50\\%.toml' --quiet sync "
        ">> '/var/log/a b.log' 2>&1"
    )
    service = systemd_units(JOB, SERVICE)[f"{JOB.unit}.service"]
    assert (
        'ExecStart=/opt/venv/bin/mirror --config "/etc/my mirror/50%%.toml" --quiet sync\n'
        in service
    )


def test_a_service_shares_the_directives_of_a_run_with_the_systems_unit() -> None:
    lines = systemd_units(JOB, SERVICE)[f"{JOB.unit}.service"].splitlines()
    assert {"Type=oneshot", "SuccessExitStatus=75", "KillSignal=SIGINT"} <= set(lines)
    assert not any(
        line.startswith(("User=", "EnvironmentFile=", "ProtectSystem=")) for line in lines
    )


@given(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n\0"), min_size=1)
)
def test_cron_passes_every_path_to_the_shell_as_it_is(path: str) -> None:
    _, line = cron_block(replace(JOB, config=path))
    # cron removes the backslash before a percent sign; a shell reads the rest.
    words = shlex.split(line.replace("\\%", "%").split(" ", 5)[5])
    assert words[words.index("--config") + 1] == path


@pytest.mark.parametrize("name", ["config", "log"])
def test_a_line_break_in_a_path_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="line break"):
        replace(JOB, **{name: "/a\nb"})  # type: ignore[arg-type]


def test_other_lines_of_a_crontab_stay() -> None:
    block = cron_block(JOB)
    once = with_cron_block(OTHERS, JOB, block)
    assert once == OTHERS + "\n".join(block) + "\n"
    assert with_cron_block(once, JOB, block) == once
    hourly = replace(JOB, every="hourly")
    again = with_cron_block(once, hourly, cron_block(hourly))
    assert again.count("mirror schedule") == 1
    assert "\n17 * * * * " in again
    assert with_cron_block(again, JOB, []) == OTHERS


def test_another_configuration_is_another_job() -> None:
    other = replace(JOB, config="/other.toml")
    both = with_cron_block(with_cron_block("", JOB, cron_block(JOB)), other, cron_block(other))
    assert both.count("mirror schedule") == 2
    assert with_cron_block(both, JOB, []) == "\n".join(cron_block(other)) + "\n"


# --- the command ---


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Path:
    """A folder with a mirror.toml, and crontab and systemctl that keep what they are told."""
    (tmp_path / "bin").mkdir()
    for name, text in (("crontab", CRONTAB), ("systemctl", SYSTEMCTL)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("KEPT", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    work = tmp_path / "my work"
    (work / "cache").mkdir(parents=True)
    (work / "mirror.toml").write_text(
        f'[cache]\ndir = "{work}/cache"\n[bucket]\nurl = "file://{tmp_path}/m"\n'
        f'[state]\ndir = "{work}/state"\n'
    )
    monkeypatch.chdir(work)
    return tmp_path


def crontab(here: Path) -> str:
    path = here / "crontab"
    return path.read_text() if path.exists() else ""


def test_a_cron_line_is_added_replaced_and_removed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "crontab").write_text(OTHERS)
    assert run(["schedule", "--cron", "--yes"]) == 0
    said = capsys.readouterr().out
    assert "Added to the crontab: mirror sync" in said
    added = crontab(here)
    assert added.startswith(OTHERS)
    assert added.splitlines()[-1] in said
    assert f"'{here}/my work/mirror.toml'" in added
    assert run(["schedule", "--cron", "--yes"]) == 0
    assert "Nothing to change" in capsys.readouterr().out
    assert crontab(here) == added
    assert run(["schedule", "--cron", "--yes", "--every=15m"]) == 0
    assert "Replaced in the crontab" in capsys.readouterr().out
    assert crontab(here).count("*/15 * * * *") == 1
    assert run(["schedule", "--cron", "--yes", "--remove"]) == 0
    assert crontab(here) == OTHERS


def test_the_cron_line_runs(here: Path) -> None:
    """A shell with an empty environment runs the line, as cron does."""
    assert run(["schedule", "--cron", "--yes"]) == 0
    line = crontab(here).splitlines()[-1].replace("\\%", "%").split(" ", 5)[5]
    home = {"HOME": str(here), "PATH": "/usr/bin:/bin", "PYTHONPATH": os.getcwd()}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["/bin/sh", "-c", line], cwd="/", env=home | {"PYTHONPATH": str(root)}, check=False
    )
    log = here / "my work" / "state" / "schedule" / "sync.log"
    assert done.returncode == 0, log.read_text()


def test_systemd_units_are_written_and_removed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    units = here / "xdg" / "systemd" / "user"
    assert run(["schedule", "--yes"]) == 0
    assert "Added to systemd: mirror sync" in capsys.readouterr().out
    names = sorted(path.name for path in units.iterdir())
    (service, timer) = names
    assert service.removesuffix(".service") == timer.removesuffix(".timer")
    assert (here / "asked").read_text().splitlines() == [
        "--user daemon-reload", f"--user enable {timer}", f"--user restart {timer}",
    ]  # fmt: skip
    assert run(["schedule", "--yes"]) == 0
    assert "Nothing to change" in capsys.readouterr().out
    assert run(["schedule", "--yes", "--remove"]) == 0
    assert not list(units.iterdir())
    assert f"--user disable --now {timer}" in (here / "asked").read_text()


def test_without_a_systemd_of_the_user_it_is_cron(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_SYSTEMD", "1")
    assert run(["--json", "schedule", "--yes"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["kind"], report["change"], report["command"]) == ("cron", "added", "sync")
    assert "mirror schedule" in crontab(here)


@pytest.mark.parametrize("kind", ["--cron", "--systemd"])
def test_a_dry_run_and_a_missing_yes_change_nothing(
    here: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["schedule", kind, "--dry-run"]) == 0
    assert "Dry run: nothing was changed." in capsys.readouterr().out
    assert run(["schedule", kind]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert not crontab(here)
    assert not (here / "xdg").exists()


def test_a_program_that_fails_is_quoted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bin" / "crontab").write_text("#!/bin/sh\necho 'you may not use cron' >&2; exit 1\n")
    assert run(["schedule", "--cron", "--yes"]) == 1
    assert "you may not use cron" in capsys.readouterr().err


def test_keys_of_the_shell_are_warned_of(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path("mirror.toml").read_text().replace(f"file://{here}/m", "s3://b/p")
    Path("mirror.toml").write_text(text)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    assert run(["schedule", "--cron", "--yes"]) == 0
    assert "A timer does not have the AWS_* variables" in capsys.readouterr().err


def test_a_wheel_carries_the_documents_and_the_configurations(tmp_path: Path) -> None:
    from zipfile import ZipFile

    from hatchling.builders.wheel import WheelBuilder

    root = Path(__file__).parents[2]
    (wheel,) = WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        inside = "mirror/_resources"
        assert archive.read(f"{inside}/config/systemd/mirror-sync.service").decode() == SERVICE
    assert {f"{inside}/docs/format.md", f"{inside}/config/mirror.example.toml"} <= names
    assert {f"{inside}/config/grafana/mirror.json", f"{inside}/config/cron/mirror"} <= names
    with pytest.raises(FileNotFoundError):
        resource("config/none")
