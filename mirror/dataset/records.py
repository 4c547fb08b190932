"""Records of a dataset's file, one at a time."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from mirror.errors import UsageError


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Every record of a JSON-lines file, plain or gzip (by its first bytes), in order.

    Raises:
        UsageError: the file cannot be read, or a line is not a JSON object; the sentence names it.
    """
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    number = 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007 - named in the errors below
                if not line.isspace():
                    yield decode(line)
    except msgspec.DecodeError as error:
        raise UsageError(f"{path}, line {number}, is not a JSON object: {error}.") from None
    except (OSError, EOFError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from None
