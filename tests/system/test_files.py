"""A file appears complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mirror.errors import UsageError
from mirror.system.files import ReplacedTogether, replacing, replacing_bytes


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
def test_a_file_that_cannot_be_created_is_an_error_at_once(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"), replacing(tmp_path / name):
        raise AssertionError


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("private")
    path.chmod(0o600)
    with replacing(path) as out:
        out.write("still private")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("still private", 0o600)


def test_files_are_replaced_together_or_not_at_all(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text("old")

    def write(failing: str) -> None:
        with ReplacedTogether() as together:
            for path in paths:
                with replacing_bytes(path, together) as out:
                    out.write(b"new")
                    assert path.name != failing, "failed"
                assert path.read_text() == "old"
            assert failing != "end", "failed"

    for failing in ("a", "c", "end"):
        with pytest.raises(AssertionError, match="failed"):
            write(failing)
        assert [path.read_text() for path in paths] == ["old"] * 3
        assert sorted(tmp_path.iterdir()) == paths
    write("none")
    assert [path.read_text() for path in paths] == ["new"] * 3
    assert sorted(tmp_path.iterdir()) == paths
