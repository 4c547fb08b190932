"""A file appears complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.errors import UsageError
from mirror.system.files import Access, ReplacedTogether, replacing, replacing_bytes
from tests.support.deadline import seconds_left


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


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("old", "access", "during", "after"),
    [
        (None, Access.INHERITED, 0o644, 0o644),
        (None, Access.OWNER, 0o600, 0o600),
        (None, Access.EVERYONE, 0o600, 0o644),
        (0o600, Access.INHERITED, 0o600, 0o600),
        (0o640, Access.INHERITED, 0o600, 0o640),
        (0o666, Access.INHERITED, 0o600, 0o666),
        (0o644, Access.OWNER, 0o600, 0o600),
        (0o400, Access.OWNER, 0o600, 0o400),
        (0o600, Access.EVERYONE, 0o600, 0o644),
    ],
)
def test_no_file_is_ever_wider_than_it_may_be(
    old: int | None, access: Access, during: int, after: int, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    if old is not None:
        path.touch()
        path.chmod(old)
    with replacing(path, access=access) as out:
        out.write("secret")
        out.flush()
        (temporary,) = tmp_path.glob(".mirror-*")
        assert mode(temporary) == during
    assert mode(path) == after


@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize("is_new", [True, False])
def test_a_file_is_on_disk_before_it_has_its_name(
    access: Access, is_new: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    if not is_new:
        path.touch()
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(file: int) -> None:
        events.append(f"flushed {os.fstat(file).st_size} bytes")
        fsync(file)

    def noted_replace(written: Path, target: Path) -> Path:
        events.append("named")
        return replace(written, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    with replacing(path, access=access) as out:
        out.write("whole")
    assert events == ["flushed 5 bytes", "named"]


def test_another_group_gets_no_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    path.touch()
    os.chown(path, -1, os.getgid() + 1) if os.getuid() == 0 else pytest.skip("needs root")
    path.chmod(0o664)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "not a member")

    with replacing(path) as out:
        out.write("of the same group")
    assert (path.stat().st_gid, mode(path)) == (os.getgid() + 1, 0o664)
    monkeypatch.setattr(os, "fchown", refuse)
    with replacing(path) as out:
        out.write("of this group")
    assert (path.stat().st_gid, mode(path)) == (os.getgid(), 0o644)


@pytest.mark.parametrize("planted", ["link", "dangling link", "FIFO", "hard link"])
def test_what_another_user_planted_is_replaced_and_not_written_to(
    planted: str, tmp_path: Path
) -> None:
    victim, path = tmp_path / "victim", tmp_path / "shared" / "out"
    path.parent.mkdir()
    victim.write_text("private")
    victim.chmod(0o600)
    match planted:
        case "link":
            path.symlink_to(victim)
        case "dangling link":
            path.symlink_to(tmp_path / "nothing")
        case "FIFO":
            os.mkfifo(path)
        case _:
            os.link(victim, path)
    with seconds_left(5), replacing(path, follow=False) as out:
        out.write("new")
    assert path.is_file()
    assert not path.is_symlink()
    assert (path.read_text(), victim.read_text(), mode(victim)) == ("new", "private", 0o600)
    assert sorted(tmp_path.rglob("*")) == [path.parent, path, victim]


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"), replacing(tmp_path, follow=False):
        raise AssertionError
