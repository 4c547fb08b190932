"""A file appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mirror.errors import UsageError
from mirror.files import replacing


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")

    def fail_halfway() -> None:
        with replacing(path) as out:
            out.write("half")
            assert path.read_text() == "old"
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["out.csv"])
    with replacing(path) as out:
        out.write("new")
    assert (path.read_text(), os.listdir(tmp_path)) == ("new", ["out.csv"])


def test_a_link_is_followed_and_a_device_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with replacing(tmp_path / "link") as out:
        out.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    with replacing(Path("/dev/null")) as out:
        out.write("gone")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("name", ["nowhere/out.csv", "", "file/out.csv"])
def test_a_file_that_cannot_be_made_is_said_at_once(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"), replacing(tmp_path / name):
        raise AssertionError
