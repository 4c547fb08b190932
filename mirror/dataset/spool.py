"""A queue of chunks on disk, for records that wait until all have been read."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from mirror.dataset.chunks import Chunk
from mirror.errors import UsageError
from mirror.system.files import cut_short


class Spool:
    """A queue of chunks in a file without a name, which disappears with the process.

    Args:
        folder: of the file, on a disk with enough room, such as the output's.

    Raises:
        UsageError: no file can be made there.
        MirrorError: the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise UsageError(f"{folder} cannot be written to ({error.strerror}).") from None
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, chunk: Chunk) -> None:
        try:
            pickle.dump(chunk, self._file, protocol=5)
        except OSError as error:
            raise cut_short(self._folder, error) from None
        self._count += 1

    def __iter__(self) -> Iterator[Chunk]:
        try:
            self._file.seek(0)
        except OSError as error:  # from the flush of buffered bytes
            raise cut_short(self._folder, error) from None
        for _ in range(self._count):
            chunk: Chunk = pickle.load(self._file)  # noqa: S301 - this process wrote it
            yield chunk
