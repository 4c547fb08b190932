"""The manifest of a quarantine: every move and its reason, one JSON object a line, append-only.

A line is on disk before its file moves. So a line may describe a move that did not happen, but every
file in the quarantine has a line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

from mirror.content.image import VERDICTS
from mirror.system.files import flush_folder, open_regular

NAME: Final = "manifest.jsonl"

Action = Literal["quarantine", "restore"]

# The only paths that quarantine and restore may move: files named by the MD5 of a URL, in folders
# that the scan of a cache enters. Above all no absolute path, no `..` and no dot-folder.
_PATH = re.compile(rb"(?:[^/.\0][^/\0]*/)*[0-9a-fA-F]{32}\.[0-9A-Za-z]+")


class ManifestLine(NamedTuple):
    """One move. `path` is relative to the cache and to the quarantine; `time` is ISO 8601."""

    action: Action
    path: bytes
    verdict: str
    reason: str
    size: int
    content_hash: bytes
    sha256: bytes
    time: str


class BadManifestLine(NamedTuple):
    """A line that cannot be used, with its number and the reason."""

    number: int
    reason: str


def append(folder: Path, lines: Iterable[ManifestLine]) -> None:
    """Append lines, and return once they are on disk. Raises: OSError."""
    file = os.open(
        folder / NAME, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
    )
    with open(file, "r+b", buffering=0) as out:
        _cut_torn_line(out.fileno())
        data = memoryview(b"".join(_encoded(line) for line in lines))
        while data:
            data = data[os.write(out.fileno(), data) :]
        os.fsync(out.fileno())
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        flush_folder(descriptor)
    finally:
        os.close(descriptor)


def _cut_torn_line(file: int) -> None:
    """Remove an incomplete last line of a killed run; its file did not move."""
    size = end = os.fstat(file).st_size
    while end > 0:
        begin = max(0, end - 4096)
        at = os.pread(file, end - begin, begin).rfind(b"\n")
        if at >= 0:
            end = begin + at + 1
            break
        end = begin
    if end < size:
        os.ftruncate(file, end)


def read(folder: Path) -> Iterator[ManifestLine | BadManifestLine]:
    """Yield all lines in order, without an incomplete last one. Raises: OSError."""
    descriptor, _ = open_regular(folder / NAME, follow=True)
    with open(descriptor, "rb") as file:
        for number, data in enumerate(file, 1):
            if data.endswith(b"\n"):
                yield _decoded(number, data)


def _encoded(line: ManifestLine) -> bytes:
    record = {
        **line._asdict(),
        # Bytes that are not UTF-8 become lone surrogates, which JSON escapes.
        "path": line.path.decode("utf-8", "surrogateescape"),
        "content_hash": line.content_hash.hex(),
        "sha256": line.sha256.hex(),
    }
    return json.dumps(record).encode() + b"\n"


def _decoded(number: int, data: bytes) -> ManifestLine | BadManifestLine:
    try:
        record = json.loads(data)
        path = record["path"].encode("utf-8", "surrogateescape")
        line = ManifestLine(
            record["action"],
            path,
            str(record["verdict"]),
            str(record["reason"]),
            int(record["size"]),
            bytes.fromhex(record["content_hash"]),
            bytes.fromhex(record["sha256"]),
            str(record["time"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return BadManifestLine(number, "is not a line of a manifest")
    if not _PATH.fullmatch(path):
        return BadManifestLine(number, "has a path that cannot be in a cache; it is left alone")
    if (
        line.action not in ("quarantine", "restore")
        or line.verdict not in VERDICTS
        or (len(line.content_hash), len(line.sha256)) != (16, 32)
    ):
        return BadManifestLine(number, "is not a line of a manifest")
    return line
