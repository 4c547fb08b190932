# ruff: noqa: INP001 - for the scripts beside it, not a package
"""Image caches for the measurements, made once from a seed and kept below .bench.

The photographs are real ones (scikit-image's), encoded to about the given size. A comment in the
header makes the bytes of each file unique, and the file still decodes.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from measure import BENCH, ROOT, say

sys.path.insert(0, str(ROOT))

from tests.labelled.photographs import PHOTOGRAPHS, fitted
from tests.support.photos import name_of, url_of

CACHES = BENCH / "caches"
_JPEG_START = b"\xff\xd8"


@dataclass(frozen=True)
class Cache:
    """A folder of images.

    Attributes:
        folder: its path.
        files: the number of its files.
        contents: the number of distinct contents.
    """

    folder: Path
    files: int
    contents: int

    def sample(self, count: int) -> list[Path]:
        """Some of its files, evenly spread."""
        step = max(1, self.files // count)
        return [self.folder / name_of(url_of(n)) for n in range(0, self.files, step)]

    def warm(self) -> None:
        """Read all files, so that the page cache holds them even after a program dropped them."""
        for entry in os.scandir(self.folder):
            Path(entry.path).read_bytes()

    def digests(self, count: int) -> set[str]:
        """The SHA-256 of some of its files, in hex."""
        return {hashlib.sha256(path.read_bytes()).hexdigest() for path in self.sample(count)}


def photographs(files: int, size: int, *, duplicates: float = 0.0) -> Cache:
    """Make photographs of about `size` bytes. A share of them are copies under other URLs."""
    contents = files - round(files * duplicates)
    folder = CACHES / f"{files}x{size}-{contents}"

    def bodies() -> Iterator[bytes]:
        bases = [encoded_to(name, size) for name in PHOTOGRAPHS]
        for number in range(files):
            which = number % contents
            yield marked(bases[which % len(bases)], which)

    return _made(folder, files, contents, bodies())


def tiny(files: int) -> Cache:
    """Make files of a few bytes with one content, for workloads that read only names."""
    body = _JPEG_START + b"\xff"
    return _made(CACHES / f"{files}-tiny", files, 1, (body for _ in range(files)))


def small(files: int) -> Cache:
    """Make files of 1 kB with distinct contents, which are not images."""
    bodies = (_JPEG_START + b"%01000d" % number for number in range(files))
    return _made(CACHES / f"{files}-small", files, files, bodies)


def marked(body: bytes, number: int) -> bytes:
    """A JPEG with a unique comment."""
    comment = b"%016x" % number
    return body[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + body[2:]


def encoded_to(name: str, size: int) -> bytes:
    """A photograph as a JPEG of about `size` bytes, as near as its quality allows.

    It is 500 pixels wide, or 2048 for large sizes: iNaturalist's medium and original.
    """
    image = fitted(name, 500 if size < 300_000 else 2048)

    def encoded(quality: int) -> bytes:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        return out.getvalue()

    low, high = 10, 98
    while low < high:
        middle = (low + high) // 2
        if len(encoded(middle)) < size:
            low = middle + 1
        else:
            high = middle
    return encoded(low)


def _made(folder: Path, files: int, contents: int, bodies: Iterator[bytes]) -> Cache:
    cache = Cache(folder, files, contents)
    if folder.exists():
        return cache
    say(f"making {folder.name}: {files:,} files …")
    half = folder.with_name(f"{folder.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    for number, body in enumerate(bodies):
        descriptor = os.open(half / name_of(url_of(number)), os.O_CREAT | os.O_WRONLY, 0o644)
        os.write(descriptor, body)
        os.close(descriptor)
    half.rename(folder)
    return cache
