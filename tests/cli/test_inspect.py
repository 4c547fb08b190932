"""`mirror inspect` as a user calls it."""

from __future__ import annotations

import csv
import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.cli.main import run
from mirror.content.digest import digest_of
from tests.cli.test_bad_input import OBEYING, assert_said, mirror
from tests.labelled.photographs import encoded, fitted
from tests.support.damaged_caches import make
from tests.support.photos import fill, name_of, photo, url_of
from tests.support.terminal import Terminal

__all__ = ["mirror"]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    make(tmp_path / "cache")
    return tmp_path / "cache"


def test_json(mirror: Run, cache: Path) -> None:
    done = mirror("--json", "inspect", f"--cache={cache}")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report) == [
        "checked", "ok", "blank", "corrupt", "not_image", "placeholder", "ignored", "failed",
        "failures", "flagged", "flagged_listed", "seconds",
    ]  # fmt: skip
    assert [report[name] for name in list(report)[:8]] == [25, 10, 3, 2, 4, 6, 1, 0]
    assert report["flagged_listed"] == len(report["flagged"]) == 15
    assert report["flagged"] == sorted(report["flagged"], key=lambda one: one["path"])
    assert set(report["flagged"][0]) == {"path", "verdict", "reason", "size", "width", "height"}


def test_json_lists_no_more_than_a_thousand(mirror: Run, tmp_path: Path) -> None:
    fill(tmp_path / "cache", {url_of(n): b"" for n in range(1010)})
    report = json.loads(mirror("--json", "inspect", f"--cache={tmp_path}/cache").stdout)
    assert (report["not_image"], report["flagged_listed"], len(report["flagged"])) == (
        1010,
        1000,
        1000,
    )


def test_an_image_with_odd_metadata_does_not_speak_by_itself(mirror: Run, tmp_path: Path) -> None:
    body = bytearray(encoded(fitted("coffee.png", 64), "TIFF"))
    # Rows in a strip: two short numbers, where there is one long one.
    struct.pack_into("<HHI", body, body.index(struct.pack("<HHI", 278, 4, 1)), 278, 3, 2)
    fill(tmp_path / "cache", {url_of(0): bytes(body)})
    done = mirror("-q", "inspect", f"--cache={tmp_path}/cache")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_table(mirror: Run, cache: Path) -> None:
    done = mirror("inspect", f"--cache={cache}")
    assert done.returncode == 0
    words = [line.split() for line in done.stdout.splitlines()]
    for expected in (["checked", "25"], ["ok", "10"], ["blank", "3"], ["corrupt", "2"],
                     ["not_image", "4"], ["placeholder", "6"]):  # fmt: skip
        assert expected in [line[:2] for line in words]
    assert "one content under 6 URLs" in done.stdout
    assert "and 3 more" in done.stdout
    assert mirror("-q", "inspect", f"--cache={cache}").stdout == ""


def test_a_hostile_name_does_not_reach_the_terminal(mirror: Run, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "\x1b[31mred"
    fill(folder, {url_of(1): b"<html>"})
    done = mirror("inspect", f"--cache={tmp_path}/cache")
    assert "\x1b" not in done.stdout
    assert "\\x1b[31mred" in done.stdout


def test_csv_and_sheet(mirror: Run, cache: Path, tmp_path: Path) -> None:
    done = mirror("inspect", f"--cache={cache}", "--csv", "all.csv", "--sheet", "sheet.html")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO((tmp_path / "work" / "all.csv").read_text())))
    assert len(rows) == 25
    page = (tmp_path / "work" / "sheet.html").read_text()
    assert page.startswith("<!doctype html>")
    assert str(cache) in page
    assert "Written: sheet.html" in done.stdout
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["all.csv", "sheet.html"]


def test_csv_on_standard_output_is_all_there(mirror: Run, cache: Path) -> None:
    done = mirror("inspect", f"--cache={cache}", "--csv", "-")
    assert len(list(csv.DictReader(io.StringIO(done.stdout)))) == 25
    assert_usage(mirror("--json", "inspect", f"--cache={cache}", "--csv", "-"))


def assert_usage(done: subprocess.CompletedProcess[str]) -> None:
    assert_said(done, 2, "standard output")


@pytest.mark.parametrize("option", ["--csv", "--sheet"])
def test_a_file_that_cannot_be_written_is_said_before_the_work(
    mirror: Run, cache: Path, option: str
) -> None:
    done = mirror("inspect", f"--cache={cache}/nowhere", option, "/dev/null/no/file")
    assert_said(done, 2, "The folder /dev/null/no cannot be made", "name another file")


def test_known_bad_hashes(mirror: Run, cache: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.txt"
    known.write_text(f"{digest_of(photo(3)).sha256.hex()}  # seen before\n")
    by_flag = mirror("--json", "inspect", f"--cache={cache}", f"--known-bad={known}")
    config = tmp_path / "mirror.toml"
    config.write_text(f'[cache]\ndir = "{cache}"\n[inspect]\nknown_bad = "known.txt"\n')
    by_file = mirror("--config", str(config), "--json", "inspect")
    for done in (by_flag, by_file):
        report = json.loads(done.stdout)
        assert report["placeholder"] == 7
        (one,) = (f for f in report["flagged"] if f["reason"] == "known placeholder")
        assert one["path"] == name_of(url_of(3))
    known.write_text("abc\n")
    assert_said(mirror("--config", str(config), "inspect"), 78, "known.txt, line 1")
    known.unlink()
    assert_said(mirror("--config", str(config), "inspect"), 78, "known.txt", "cannot be read")


def test_the_threshold_is_a_setting(
    mirror: Run, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIRROR_INSPECT__PLACEHOLDER_PHOTOS", "7")
    assert json.loads(mirror("--json", "inspect", f"--cache={cache}").stdout)["placeholder"] == 0
    monkeypatch.setenv("MIRROR_INSPECT__PLACEHOLDER_PHOTOS", "1")
    assert_said(mirror("inspect", f"--cache={cache}"), 78, "inspect.placeholder_photos")


def test_a_level(mirror: Run, cache: Path) -> None:
    done = mirror("--json", "inspect", f"--cache={cache}", "--level=header")
    report = json.loads(done.stdout)
    assert (report["blank"], report["not_image"]) == (0, 4)


def test_files_that_cannot_be_read(mirror: Run, cache: Path) -> None:
    bad = cache / name_of(url_of(2))
    bad.chmod(0)
    done = mirror("--json", "inspect", f"--cache={cache}", within=OBEYING)
    report = json.loads(done.stdout)
    assert (done.returncode, report["checked"], report["failed"]) == (3, 24, 1)
    assert report["failures"] == [{"path": bad.name, "reason": "cannot be read: Permission denied"}]
    assert bad.name in done.stderr


def test_no_cache(mirror: Run, cache: Path) -> None:
    assert_said(mirror("inspect"), 78, "cache.dir")
    assert_said(mirror("inspect", f"--cache={cache}/nowhere"), 1, "does not exist")


def test_the_counter_is_gone_when_the_table_comes(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert run(["inspect", f"--cache={cache}"]) == 0
    counter, table = terminal.getvalue().rsplit("\r", 1)
    assert "0/25 files judged" in counter
    assert table.startswith("checked ")


@pytest.mark.parametrize("option", ["--sheet", "--csv"])
def test_a_full_disk_is_told_and_nothing_is_called_written(
    mirror: Run, cache: Path, option: str
) -> None:
    done = mirror("inspect", f"--cache={cache}", option, "/dev/full")
    assert_said(done, 1, "/dev/full cannot be written to its end")
    assert "Written" not in done.stdout


def test_a_fresh_process_loads_no_engine(mirror: Run) -> None:
    code = (
        "import sys; sys.argv = ['mirror', 'inspect', '--help']\n"
        "from mirror.cli.main import run; run(['inspect', '--help'])\n"
        "print([m for m in ('numpy', 'PIL', 'obstore', 'deltalake') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
