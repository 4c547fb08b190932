"""Records that could not be read, set aside with where they stood and why."""

from __future__ import annotations

import base64
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import msgspec

from mirror.dataset.records import Rejected
from mirror.system.files import replacing


class RejectedFile:
    """JSON lines of `input`, `line`, `reason` and `text`: made when there is the first of them.

    What is not UTF-8 stands in `base64` in place of `text`. A file that an earlier run has left and that
    may be replaced goes away when this one has nothing to set aside: it would speak of other records.

    Args:
        path: where.
        dry_run: write nothing.
    """

    def __init__(self, path: Path, dry_run: bool) -> None:
        self._path = path
        self._dry_run = dry_run
        self._files = ExitStack()
        self._file: TextIO | None = None

    @property
    def written(self) -> str | None:
        """The file's name, if there is anything in it."""
        return None if self._file is None else str(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is None and kind is None and not self._dry_run:
            with suppress(OSError):  # none there, or one that is not ours to remove
                self._path.unlink()
        self._files.__exit__(kind, error, traceback)

    def write(self, name: str, rejected: Rejected) -> None:
        if self._dry_run:
            return
        if self._file is None:
            self._file = self._files.enter_context(replacing(self._path))
        told: dict[str, Any] = {
            "input": name.encode(errors="backslashreplace").decode(),  # a path may be any bytes
            "line": rejected.number,
            "reason": rejected.reason,
        }
        try:
            told["text"] = rejected.raw.decode()
        except UnicodeDecodeError:
            told["base64"] = base64.b64encode(rejected.raw).decode()
        self._file.write(msgspec.json.encode(told).decode() + "\n")
