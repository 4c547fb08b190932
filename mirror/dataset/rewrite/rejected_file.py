"""The file of invalid records, with their positions and reasons."""

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
    """JSON lines with `input`, `line`, `reason` and `text`. The first invalid record creates the file.

    A record that is not UTF-8 has `base64` instead of `text`. A file of an earlier run is deleted if
    this run has no invalid records, because it describes other records.

    Args:
        path: of the file.
        dry_run: write nothing.
    """

    def __init__(self, path: Path, dry_run: bool) -> None:
        self._path = path
        self._dry_run = dry_run
        self._files = ExitStack()
        self._file: TextIO | None = None

    @property
    def written(self) -> str | None:
        """The name of the file; None if no record was written to it."""
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
            with suppress(OSError):  # no such file, or no permission
                self._path.unlink()
        self._files.__exit__(kind, error, traceback)

    def write(self, name: str, rejected: Rejected) -> None:
        if self._dry_run:
            return
        if self._file is None:
            self._file = self._files.enter_context(replacing(self._path))
        entry: dict[str, Any] = {
            "input": name.encode(
                errors="backslashreplace"
            ).decode(),  # a path may contain any bytes
            "line": rejected.number,
            "reason": rejected.reason,
        }
        try:
            entry["text"] = rejected.raw.decode()
        except UnicodeDecodeError:
            entry["base64"] = base64.b64encode(rejected.raw).decode()
        self._file.write(msgspec.json.encode(entry).decode() + "\n")
