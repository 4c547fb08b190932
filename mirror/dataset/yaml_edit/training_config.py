"""Sets values in a training's YAML configuration without changing any other byte.

Loading and dumping a YAML file would lose comments, quotes, alignment and line endings. So the text
of one scalar is replaced where the parser found it. The result is parsed again, and accepted only if
nothing but the requested value reads differently.

    the old value                      the new value is written
    'quoted'                           in single quotes; in double quotes if it has what those lack
    "quoted"                           in double quotes
    plain text, a block (| or >)       plain if every reader reads that text, else quoted
    3, 0.5, true, yes, null, nothing   plain as given, so 0.5 is a number; quoted if plain cannot be

So a text stays a text: `name: resnet` set to 50 becomes `name: '50'`. This holds for readers of YAML
1.1 (PyYAML, OmegaConf) and 1.2 (ruamel.yaml, most others). Values are not parsed as YAML: `[1]` is
three characters. Keys are changed, never added.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

from mirror.dataset.yaml_edit.assignment import Assignment, dotted
from mirror.dataset.yaml_edit.scalar_text import with_value
from mirror.errors import UsageError
from mirror.system.files import keep_permissions, open_private, replacing


@dataclass(frozen=True, slots=True)
class Update:
    """The result of updating a configuration.

    Attributes:
        path: the file, as it was named.
        diff: unified diff of the changes, also in a dry run; empty if there are none.
        backup: the file with the previous content; None if nothing was written.
    """

    path: Path
    diff: str
    backup: Path | None

    @property
    def changed(self) -> bool:
        return bool(self.diff)


def check_config(path: Path, assignments: Sequence[Assignment]) -> None:
    """Raise the errors that `update_config` would raise for these keys, before any work is done.

    The values may be preliminary, because a key that accepts one text accepts any other.

    Raises:
        UsageError: the file cannot be read or replaced, or an assignment cannot be made.
    """
    with_values(_read(path)[1], assignments, str(path))
    folder = Path(os.path.realpath(path)).parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"{path} cannot be updated, because its folder {folder} is read-only; "
            "change the folder's permissions."
        )


def update_config(path: Path, assignments: Sequence[Assignment], *, dry_run: bool) -> Update:
    """Set values in a configuration file, and keep a backup.

    The file is replaced as a whole. The backup is `NAME.bak`, or the first unused name of
    `NAME.bak.1` …, in the same folder, with the mode and modification time of the file. The target
    of a symbolic link is replaced, not the link. Without a change nothing is written.

    Raises:
        UsageError: the file cannot be read or replaced, or an assignment cannot be made.
        MirrorError: the disk is full; the file is unchanged.
    """
    content, old = _read(path)
    new = with_values(old, assignments, str(path))
    changes = diff(old, new, str(path))
    if dry_run or not changes:
        return Update(path, changes, None)
    target = Path(os.path.realpath(path))
    try:
        status = target.stat()
        with replacing(target) as file:
            file.write(new)
            backup = _back_up(target, content, status)
    except OSError as error:
        raise UsageError(
            f"{path} is unchanged, because it cannot be replaced ({error.strerror}); "
            "make room, and allow a backup in its folder."
        ) from None
    return Update(path, changes, backup)


def with_values(text: str, assignments: Sequence[Assignment], name: str) -> str:
    """Set values in the text of a configuration.

    Args:
        text: one YAML document, with its line endings and byte order mark.
        assignments: the values to set. Each path must exist in the text, and be given once.
        name: of the file, for messages.

    Raises:
        UsageError: an assignment cannot be made, or not without changing something else.
    """
    paths = [assignment.path for assignment in assignments]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise UsageError(f"--set names {dotted(path)} twice; give it one value.")
    for assignment in assignments:
        text = with_value(text, assignment, name)
    return text


def diff(old: str, new: str, name: str) -> str:
    """Unified diff of two texts, for people and for `patch`; empty if they are equal."""
    # str.splitlines also breaks at characters that diff tools do not take for a line's end.
    lines = unified_diff(list(io.StringIO(old)), list(io.StringIO(new)), name, name)
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _read(path: Path) -> tuple[bytes, str]:
    """The bytes of a file, and their text with unchanged line endings."""
    try:
        # Reading a pipe or a terminal would block, and neither can be replaced.
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is not a file; name a YAML file.")
        content = path.read_bytes()
        return content, content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}, is not UTF-8; save it as UTF-8.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); name a YAML file.") from None


def _back_up(path: Path, content: bytes, status: os.stat_result) -> Path:
    for number in itertools.count():
        backup = path.with_name(f"{path.name}.bak.{number}" if number else f"{path.name}.bak")
        try:
            file = open(backup, "xb", opener=open_private)  # noqa: SIM115 - closed below
        except FileExistsError:
            continue
        try:
            with file:
                file.write(content)
                file.flush()
                keep_permissions(file.fileno(), status)
                os.fsync(file.fileno())
            os.utime(backup, ns=(status.st_atime_ns, status.st_mtime_ns))
        except BaseException:
            backup.unlink()
            raise
        return backup
    raise AssertionError  # pragma: no cover - count() has no end
