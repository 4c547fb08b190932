"""A file that appears whole or not at all."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from mirror.errors import UsageError


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A text file to write (UTF-8, lines end as written); as `replacing_bytes` in all else."""
    with replacing_bytes(path) as raw:
        text = io.TextIOWrapper(raw, "utf-8", newline="", write_through=True)
        yield text
        text.detach()


@contextmanager
def replacing_bytes(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes `path`'s place when the block ends without an error.

    What is no plain file (`/dev/null`, a pipe) is written to as it is.

    Raises:
        UsageError: the file cannot be made there; said at once, before any work is done for it.
    """
    target = Path(os.path.realpath(path))
    in_place = target.exists() and not target.is_file()
    written = target if in_place else target.with_name(f".mirror-{secrets.token_hex(6)}.tmp")
    try:
        file = written.open("wb" if in_place else "xb")
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror}); name another file."
        ) from None
    try:
        with file:
            yield file
            file.flush()
            if not in_place:
                os.fsync(file.fileno())
        if not in_place:
            written.replace(target)
    except BaseException:
        if not in_place:
            with suppress(OSError):
                written.unlink()
        raise
