"""`-q`: what cron mails is what is wrong, and all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.cli.main import run
from tests.support.photos import fill, photo, url_of


def flags(folder: Path) -> list[str]:
    given = {"cache": folder / "cache", "state": folder / "state"}
    return [*(f"--{name}={path}" for name, path in given.items()), f"--bucket=file://{folder}/m"]


@pytest.fixture
def said(
    clean_environment: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> pytest.CaptureFixture[str]:
    fill(tmp_path / "cache", {url_of(n): photo(n) for n in range(2)})
    monkeypatch.chdir(tmp_path)
    return capsys


def test_every_quiet_sync_of_a_cache_that_is_not_mounted_says_so(
    said: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for _ in range(2):
        assert run(["-q", "sync", *flags(tmp_path)]) == 0
        assert said.readouterr() == ("", "")
    (tmp_path / "cache").rename(tmp_path / "unmounted")
    (tmp_path / "cache").mkdir()
    for _ in range(2):
        assert run(["-q", "sync", *flags(tmp_path)]) == 0
        out, err = said.readouterr()
        assert out == ""
        assert err.startswith("mirror: The cache folder is empty, and 2 files were there before")


def test_a_quiet_backfill_warns(said: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    dataset = tmp_path / "dataset.jsonl"
    dataset.write_text(f'{{"image_url": "{url_of(0)}"}}\n')
    asked = ["backfill", str(dataset), "--contact=me@example.org", *flags(tmp_path)]
    assert run(["-q", *asked]) == 0
    out, err = said.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "Until then only the cache counts" in line
    assert run(["-q", *asked, "--no-bucket"]) == 0
    assert said.readouterr() == ("", "")
