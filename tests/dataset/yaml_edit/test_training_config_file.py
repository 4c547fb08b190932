"""The file of a training configuration: replaced as a whole, with a backup and a diff."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mirror.dataset.yaml_edit.training_config import check_config, diff, update_config
from mirror.errors import UsageError
from tests.dataset.yaml_edit.config_example import TRAINING_CONFIG, assigned
from tests.support.mirror_setup import MOUNTS, full_disk

# Files.


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "training.yaml"
    path.write_bytes(TRAINING_CONFIG.replace("\n", "\r\n").encode("utf-8-sig"))
    path.chmod(0o640)
    os.utime(path, ns=(1_600_000_000_123_456_789, 1_500_000_000_987_654_321))
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_file_is_replaced_and_what_it_was_is_kept(config: Path) -> None:
    old, inode = config.read_bytes(), config.stat().st_ino
    done = update_config(config, assigned("data.val_jsonl=new.jsonl"), dry_run=False)
    assert done.changed
    assert config.read_bytes() == old.replace(b"/data/old/val.jsonl", b"new.jsonl")
    assert config.stat().st_mode & 0o7777 == 0o640
    assert config.stat().st_ino != inode
    assert done.backup == config.with_name("training.yaml.bak")
    assert done.backup.read_bytes() == old
    assert done.backup.stat().st_mode & 0o7777 == 0o640
    assert done.backup.stat().st_mtime_ns == 1_500_000_000_987_654_321
    assert names(config.parent) == {"training.yaml", "training.yaml.bak"}


def test_no_backup_is_overwritten(config: Path) -> None:
    config.with_name("training.yaml.bak.1").symlink_to("nowhere")
    was = {}
    for number, name in enumerate(
        ["training.yaml.bak", "training.yaml.bak.2", "training.yaml.bak.3"]
    ):
        was[config.with_name(name)] = config.read_bytes()
        done = update_config(config, assigned(f"optimizer.lr={number}"), dry_run=False)
        assert done.backup == config.with_name(name)
    assert {path: path.read_bytes() for path in was} == was
    assert len(set(was.values())) == 3


def test_a_dry_run_shows_what_would_change_and_writes_nothing(config: Path) -> None:
    old, status = config.read_bytes(), config.stat()
    done = update_config(config, assigned("optimizer.lr=0.5"), dry_run=True)
    assert done.changed
    assert "-  lr: 1e-3\r\n+  lr: 0.5\r\n" in done.diff
    assert done.backup is None
    assert config.read_bytes() == old
    assert (config.stat().st_ino, config.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
    assert names(config.parent) == {"training.yaml"}
    assert update_config(config, assigned("optimizer.lr=0.5"), dry_run=False).diff == done.diff


def test_nothing_is_written_when_nothing_changes(config: Path) -> None:
    status = config.stat()
    done = update_config(config, assigned("optimizer.lr=1e-3"), dry_run=False)
    assert not done.changed
    assert (done.diff, done.backup) == ("", None)
    assert (config.stat().st_ino, config.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
    assert names(config.parent) == {"training.yaml"}


def test_a_link_stays_a_link(config: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link.yaml"
    link.parent.mkdir()
    link.symlink_to("../training.yaml")
    done = update_config(link, assigned("optimizer.lr=0.5"), dry_run=False)
    assert link.is_symlink()
    assert b"lr: 0.5" in config.read_bytes()
    assert done.backup == config.with_name("training.yaml.bak")
    assert names(link.parent) == {"link.yaml"}


def test_a_wrong_key_is_known_before_any_work(config: Path) -> None:
    check_config(config, assigned("data.train_jsonl={train}"))
    with pytest.raises(UsageError, match=r"training\.yaml has no key data\.train"):
        check_config(config, assigned("data.train={train}"))
    assert names(config.parent) == {"training.yaml"}


def test_a_change_made_after_the_check_is_kept(config: Path) -> None:
    check_config(config, assigned("optimizer.lr=0.5"))
    text = config.read_bytes().replace(b"vit-l", b"vit-h").replace(b"# All", b"# T\r\n# All")
    config.write_bytes(text)
    update_config(config, assigned("optimizer.lr=0.5"), dry_run=False)
    assert config.read_bytes() == text.replace(b"1e-3", b"0.5")


def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin.yaml").write_bytes("a: b\nc: ñ\n".encode("latin-1"))
    (tmp_path / "wide.yaml").write_bytes("a: b\n".encode("utf-16"))
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for name, sentence in {
        "absent.yaml": r"absent\.yaml cannot be read \(No such file or directory\); name a YAML file",
        "": r" is not a file; name a YAML file\.$",
        "pipe": r"pipe is not a file",
        "latin.yaml": r"latin\.yaml, line 2, is not UTF-8; save it as UTF-8\.$",
        "wide.yaml": r"wide\.yaml, line 1, is not UTF-8",
        "loop.yaml": r"loop\.yaml cannot be read",
    }.items():
        for act in (check_config, lambda *args: update_config(*args, dry_run=False)):
            with pytest.raises(UsageError, match=sentence):
                act(tmp_path / name, assigned("a=x"))


def test_without_a_backup_nothing_is_replaced(tmp_path: Path) -> None:
    config = tmp_path / ("n" * 250 + ".yaml")  # its backup's name is longer than a name may be
    config.write_text("a: b\n")
    with pytest.raises(UsageError, match=r"is unchanged, because it cannot be replaced \(File"):
        update_config(config, assigned("a=x"), dry_run=False)
    assert config.read_text() == "a: b\n"
    assert names(tmp_path) == {config.name}


UPDATE = """
import sys
from pathlib import Path
from mirror.dataset.yaml_edit.assignment import Assignment
from mirror.dataset.yaml_edit.training_config import update_config
from mirror.errors import MirrorError
try:
    update_config(Path(sys.argv[1]), [Assignment(("optimizer", "lr"), "0.5")], dry_run=False)
except MirrorError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_file_alone(config: Path) -> None:
    old = config.read_bytes()
    ran = subprocess.run(
        [*full_disk(10), sys.executable, "-c", UPDATE, str(config)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{config} cannot be written to its end (File too large)" in ran.stdout
    assert config.read_bytes() == old
    assert names(config.parent) == {"training.yaml"}


# A mount that nobody may write to: root writes where permissions only forbid it.
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
REFUSED = """
import sys
from functools import partial
from pathlib import Path
from mirror.dataset.yaml_edit.assignment import parse_assignment
from mirror.dataset.yaml_edit.training_config import check_config, update_config
from mirror.errors import UsageError
for action in (check_config, partial(update_config, dry_run=False)):
    try:
        action(Path(sys.argv[1]), [parse_assignment("optimizer.lr=0.5")])
    except UsageError as error:
        print(error)
"""


def test_a_read_only_folder_is_known_before_any_work(config: Path) -> None:
    command = [*MOUNTS, "sh", "-c", READ_ONLY, "sh", str(config.parent)]
    ran = subprocess.run(
        [*command, sys.executable, "-c", REFUSED, str(config)],
        capture_output=True,
        text=True,
        check=True,
    )
    checked, updated = ran.stdout.splitlines()
    assert re.search("its folder .* is read-only", checked)
    assert "cannot be written" in updated
    assert names(config.parent) == {"training.yaml"}


# Kills a process by SIGKILL before the n-th line of the code that writes, for every n until it ends.
KILL_AT_EVERY_LINE = """
import os, signal, sys
from pathlib import Path
from mirror.dataset.yaml_edit import training_config as code
from mirror.dataset.yaml_edit.assignment import Assignment
from mirror.system import files

watched = {code.update_config.__code__, code._back_up.__code__, files.replacing.__wrapped__.__code__}
folder = Path(sys.argv[1])
for at in range(1, 1000):
    config = folder / str(at) / "c.yaml"
    config.parent.mkdir()
    config.write_text("a: b\\n")
    pid = os.fork()
    if not pid:
        lines = 0
        def count(frame, event, _):
            global lines
            if frame.f_code in watched:
                lines += event == "line"
                if lines == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return count
        sys.settrace(count)
        code.update_config(config, [Assignment(("a",), "x")], dry_run=False)
        os._exit(0)
    if os.waitpid(pid, 0)[1] == 0:
        break
"""


def test_killed_at_any_line_the_file_is_whole(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILL_AT_EVERY_LINE, str(tmp_path)], check=True)
    folders = sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))
    found = [(folder / "c.yaml").read_text() for folder in folders]
    assert set(found) == {"a: b\n", "a: x\n"}
    assert found == sorted(found)
    assert names(folders[-1]) == {"c.yaml", "c.yaml.bak"}
    replaced = [folder for folder, text in zip(folders, found, strict=True) if text == "a: x\n"]
    assert {(folder / "c.yaml.bak").read_text() for folder in replaced} == {"a: b\n"}
    assert any((folder / "c.yaml.bak").exists() for folder in folders if folder not in replaced)


DIFFS = {
    "one line": ("a: b\nc: d\n", "a: x\nc: d\n"),
    "no final line end": ("a: b\nc: d", "a: b\nc: x"),
    "CRLF": ("a: b\r\nc: d\r\n", "a: x\r\nc: d\r\n"),
    "a line break only for Unicode": ("a: b # \u2028e\nc: d\n", "a: b # \u2028e\nc: x\n"),
    "fewer lines": ("a: |\n  b\n  c\nd: e\n", "a: x\nd: e\n"),
}


@pytest.mark.parametrize(("old", "new"), DIFFS.values(), ids=DIFFS)
@pytest.mark.skipif(shutil.which("git") is None, reason="git applies the diff")
def test_a_diff_leads_from_the_old_to_the_new(old: str, new: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(old.encode())
    subprocess.run(
        ["git", "apply", "-p0", "--whitespace=nowarn", "-"],
        input=diff(old, new, "c.yaml").encode(),
        cwd=tmp_path,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
        check=True,
    )
    assert (tmp_path / "c.yaml").read_bytes() == new.encode()


def test_equal_texts_have_no_diff() -> None:
    assert diff("a: b\n", "a: b\n", "c.yaml") == ""
