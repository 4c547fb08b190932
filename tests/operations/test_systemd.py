"""systemd accepts the units, and rates their permissions as small."""

from __future__ import annotations

import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")

UNITS = Path(__file__).resolve().parents[2] / "config" / "systemd"
SYSTEM_UNITS = Path("/usr/lib/systemd/system")
# A template needs the name of an instance.
NAMES = {
    "mirror-sync.service": "",
    "mirror-sync.timer": "",
    "mirror-backfill.service": "",
    "mirror-backfill.timer": "",
    "mirror-upkeep@.service": "verify",
    "mirror-upkeep@.timer": "gc",
    "mirror-failed@.service": "x",
}
# Exposure by `systemd-analyze security`: from 0 to 100 for a service without limits.
MOST_EXPOSED = 20
# A local MTA needs set-id programs, which almost every rated setting forbids.
MOST_EXPOSED_OF = {"mirror-failed@.service": 70}


def instance(unit: str) -> str:
    return unit.replace("@.", f"@{NAMES[unit]}.")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system with our units, installed as in docs/operations.md, and the programs that they start."""
    if not (shutil.which("systemd-analyze") and SYSTEM_UNITS.is_dir()):
        pytest.fail("systemd-analyze is needed to check the units: apt-get install systemd")
    here = tmp_path / "etc" / "systemd" / "system"
    shutil.copytree(SYSTEM_UNITS, tmp_path / "usr" / "lib" / "systemd" / "system", symlinks=True)
    here.mkdir(parents=True)
    for unit in NAMES:
        shutil.copy(UNITS / unit, here)
    for program in ("opt/mirror/bin/mirror", "etc/mirror/on-failure"):
        (tmp_path / program).parent.mkdir(parents=True)
        shutil.copy(UNITS / "on-failure", tmp_path / program)
    return tmp_path


def verify(root: Path) -> subprocess.CompletedProcess[str]:
    units = [instance(unit) for unit in NAMES]
    return subprocess.run(
        ["systemd-analyze", "verify", f"--root={root}", *units],
        capture_output=True,
        text=True,
        check=False,
    )


def security(root: Path, unit: str) -> subprocess.CompletedProcess[str]:
    most = MOST_EXPOSED_OF.get(unit, MOST_EXPOSED)
    options = ("--offline=true", f"--threshold={most}", "--no-pager", f"--root={root}")
    return subprocess.run(
        ["systemd-analyze", "security", *options, instance(unit)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_unit_is_tested() -> None:
    assert NAMES.keys() == {path.name for path in UNITS.iterdir() if path.suffix}


def test_systemd_takes_the_units(root: Path) -> None:
    done = verify(root)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", [unit for unit in NAMES if unit.endswith(".service")])
def test_a_service_can_do_little_beyond_its_work(root: Path, unit: str) -> None:
    done = security(root, unit)
    assert done.returncode == 0, done.stdout


def test_these_checks_can_fail(root: Path) -> None:
    unit = root / "etc" / "systemd" / "system" / "mirror-sync.service"
    text = unit.read_text()
    unit.write_text(text.replace("ProtectSystem=strict", "ProtectSystem=strickt"))
    assert "strickt" in verify(root).stderr
    unit.write_text("\n".join(line for line in text.splitlines() if "Protect" not in line))
    assert security(root, "mirror-sync.service").returncode != 0


def settings(unit: str) -> ConfigParser:
    parsed = ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parsed.read(UNITS / unit)
    return parsed


@pytest.mark.parametrize("unit", [unit for unit in NAMES if unit.endswith(".timer")])
def test_a_missed_night_is_made_up_at_different_times(unit: str) -> None:
    timer = settings(unit)["Timer"]
    assert timer["Persistent"] == "yes"
    assert timer["RandomizedDelaySec"]
    calendar = subprocess.run(
        ["systemd-analyze", "calendar", timer["OnCalendar"]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert calendar.returncode == 0, calendar.stderr


@pytest.mark.parametrize(
    ("unit", "fine"),
    [
        ("mirror-sync.service", "75"),
        ("mirror-backfill.service", "3 75"),
        ("mirror-upkeep@.service", "75"),
    ],
)
def test_a_failure_starts_the_failure_unit_but_a_busy_lock_does_not(unit: str, fine: str) -> None:
    service = settings(unit)
    assert service["Unit"]["OnFailure"] == "mirror-failed@%n.service"
    assert service["Service"]["SuccessExitStatus"] == fine
    assert service["Service"]["Type"] == "oneshot"
    assert "/var/lib/prometheus/node-exporter" in service["Service"]["ReadWritePaths"]


# With User=, any of these settings disables the set-id bits of an MTA's programs.
NO_NEW_PRIVILEGES = {
    "DynamicUser", "LockPersonality", "MemoryDenyWriteExecute", "NoNewPrivileges", "PrivateDevices",
    "PrivateUsers", "ProtectClock", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules",
    "ProtectKernelTunables", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime",
    "RestrictSUIDSGID", "SystemCallArchitectures", "SystemCallFilter", "SystemCallLog",
}  # fmt: skip


def test_the_failure_unit_lets_a_local_mta_take_a_mail() -> None:
    """Postfix's postdrop is setgid, Exim is setuid, and both write below /var/spool."""
    service = settings("mirror-failed@.service")["Service"]
    assert service["User"] == "mirror"
    assert not {name.lower() for name in NO_NEW_PRIVILEGES} & service.keys()
    assert {"CAP_SETGID", "CAP_SETUID"} <= set(service["CapabilityBoundingSet"].split())
    assert service["ProtectSystem"] != "strict"


def said_of_a_failure(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script with stand-ins for the senders. `$BROKEN` names one that fails."""
    for name in ("mail", "logger", "journalctl"):
        (folder / name).write_text(
            f'#!/bin/sh\necho "{name} $*"; [ {name} = journalctl ] || cat\n[ "$BROKEN" != {name} ]\n'
        )
        (folder / name).chmod(0o755)
    return subprocess.run(
        [UNITS / "on-failure", "mirror-sync.service"],
        env={"PATH": f"{folder}:/usr/bin:/bin", "BROKEN": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


LOGGED = "logger --priority user.alert --tag mirror\nmirror-sync.service failed on"
MAIL = {"MIRROR_ALERT_MAIL": "ops@example.org"}


def test_the_failure_script_says_which_unit_failed(tmp_path: Path) -> None:
    done = said_of_a_failure(tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(LOGGED)
    assert "journalctl --unit mirror-sync.service" in done.stdout
    assert "mail -s" not in done.stdout


def test_the_journal_has_the_report_before_a_mail_is_tried(tmp_path: Path) -> None:
    done = said_of_a_failure(tmp_path, **MAIL)
    assert done.returncode == 0
    logged, mailed = done.stdout.split("mail -s mirror-sync.service failed on")
    assert logged.startswith(LOGGED)
    assert "ops@example.org" in mailed
    for words in (logged, mailed):
        assert "journalctl --unit mirror-sync.service" in words


@pytest.mark.parametrize(("broken", "fails"), [("mail", True), ("logger", False)])
def test_a_report_is_sent_even_if_one_way_fails(tmp_path: Path, broken: str, fails: bool) -> None:
    """A mail that cannot be sent also fails the unit, which `systemctl --failed` shows."""
    done = said_of_a_failure(tmp_path, BROKEN=broken, **MAIL)
    assert (done.returncode != 0) == fails
    assert LOGGED in done.stdout
    assert "mail -s" in done.stdout
