"""The number of bytes in a fetch cache, where its file is closed or refuses to be written."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from mirror.fetch.usage import Usage


def test_a_count_that_ends_after_the_closing_writes_into_nobodys_file(tmp_path: Path) -> None:
    """The system gives the number of a file that was closed to the next one that is opened."""
    other = tmp_path / "checkpoint"
    other.write_bytes(b"weights" * 10)
    counting = False

    def count() -> int:
        if counting:
            usage.close()
            if (opened := os.open(other, os.O_RDWR)) != number:
                os.dup2(opened, number)
                os.close(opened)
        return 5

    usage = Usage(tmp_path / "usage", count)
    number = usage._file
    counting = True
    with suppress(OSError):
        usage.count_again()
    os.close(number)
    assert other.read_bytes() == b"weights" * 10


def test_what_is_asked_after_the_closing_is_an_error(tmp_path: Path) -> None:
    usage = Usage(tmp_path / "usage", lambda: 5)
    usage.close()
    for ask in (lambda: usage.used, lambda: usage.reserve(1, 10), lambda: usage.release(1)):
        with pytest.raises(OSError) as error:
            ask()
        assert error.value.errno == errno.EBADF
