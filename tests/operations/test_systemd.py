"""systemd accepts the units, and rates their permissions as small."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
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
MOST_EXPOSED = 15


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
    options = ("--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", f"--root={root}")
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


def environment_files(unit: str) -> list[str]:
    text = (UNITS / unit).read_text()
    return re.findall(r"^EnvironmentFile=-?/etc/mirror/(.*)$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("unit", "files"),
    [
        ("mirror-sync.service", ["monitoring", "environment"]),
        ("mirror-backfill.service", ["monitoring", "environment-backfill"]),
        ("mirror-upkeep@.service", ["monitoring", "environment-%i"]),
        ("mirror-failed@.service", ["alert"]),
    ],
)
def test_a_unit_reads_only_the_key_of_its_task(unit: str, files: list[str]) -> None:
    """Only sync has the writer's key, and the failure unit has no secret."""
    assert environment_files(unit) == files


def networks(unit: str, setting: str) -> list[IPv4Network | IPv6Network]:
    """The networks of a setting, with systemd's names for some of them."""
    names = {
        "any": "0.0.0.0/0 ::/0",
        "localhost": "127.0.0.0/8 ::1/128",
        "link-local": "169.254.0.0/16 fe80::/64",
        "multicast": "224.0.0.0/4 ff00::/8",
    }
    lines = re.findall(rf"^{setting}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)
    words = " ".join(lines).split()
    return [ip_network(text) for word in words for text in names.get(word, word).split()]


@pytest.mark.parametrize(
    ("unit", "address", "allowed"),
    [
        ("mirror-backfill.service", "10.1.2.3", False),
        ("mirror-backfill.service", "127.0.0.1", False),
        ("mirror-backfill.service", "127.0.0.53", True),  # systemd-resolved
        ("mirror-backfill.service", "169.254.169.254", False),
        ("mirror-backfill.service", "172.31.255.1", False),
        ("mirror-backfill.service", "192.168.1.1", False),
        ("mirror-backfill.service", "::1", False),
        ("mirror-backfill.service", "fd00::1", False),
        ("mirror-backfill.service", "151.101.1.1", True),
        ("mirror-backfill.service", "2a04:4e42::1", True),
        ("mirror-failed@.service", "127.0.0.1", True),
        ("mirror-failed@.service", "::1", True),
        ("mirror-failed@.service", "151.101.1.1", False),
        ("mirror-failed@.service", "192.168.1.1", False),
    ],
)
def test_addresses_that_a_unit_may_connect_to(unit: str, address: str, allowed: bool) -> None:
    """systemd reads IPAddressAllow= first, and allows what neither setting names."""
    found = ip_address(address)
    let = any(found in network for network in networks(unit, "IPAddressAllow"))
    denied = any(found in network for network in networks(unit, "IPAddressDeny"))
    assert (let or not denied) == allowed


def said_of_a_failure(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script with stand-ins for the senders. `$BROKEN` names one that fails."""
    for name in ("curl", "logger", "journalctl"):
        (folder / name).write_text(
            f'#!/bin/sh\nprintf "%s\\n" "{name} $*"; [ {name} = journalctl ] && printf "%s\\n" "$LOG" || cat\n[ "$BROKEN" != {name} ]\n'
        )
        (folder / name).chmod(0o755)
    return subprocess.run(
        [UNITS / "on-failure", "mirror-sync.service"],
        env={"PATH": f"{folder}:/usr/bin:/bin", "BROKEN": "", "LOG": "", **environment},
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
    assert "curl" not in done.stdout


def test_the_journal_has_the_report_before_a_mail_is_tried(tmp_path: Path) -> None:
    done = said_of_a_failure(tmp_path, **MAIL)
    assert done.returncode == 0
    logged, mailed = done.stdout.split("curl --silent")
    assert logged.startswith(LOGGED)
    assert "--mail-rcpt ops@example.org smtp://localhost\nFrom: mirror@" in mailed
    assert "\nTo: ops@example.org\nSubject: mirror-sync.service failed on" in mailed
    for words in (logged, mailed):
        assert "journalctl --unit mirror-sync.service" in words


def test_a_log_sends_no_control_characters(tmp_path: Path) -> None:
    log = "a\x1b]0;title\x07b\rc\x7f\td é" + "x" * 2000
    done = said_of_a_failure(tmp_path, LOG=log, **MAIL)
    assert "a]0;titlebc\td é" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 998, "the limit of a line of mail"


@pytest.mark.parametrize(("broken", "fails"), [("curl", True), ("logger", False)])
def test_a_report_is_sent_even_if_one_way_fails(tmp_path: Path, broken: str, fails: bool) -> None:
    """A mail that cannot be sent also fails the unit, which `systemctl --failed` shows."""
    done = said_of_a_failure(tmp_path, BROKEN=broken, **MAIL)
    assert (done.returncode != 0) == fails
    assert LOGGED in done.stdout
    assert "smtp://localhost" in done.stdout
