"""The user's URL-keyed cache as a tier: files named by the MD5 of their URL. Read-only.

A folder with a million files is not listed. Its layout and extensions are inferred from the first few
thousand entries. Files in a rarer layout are not found, and their images come from the mirror.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final

# Entries to look at in the folder, and in one sub-folder on each level below it.
_SAMPLE: Final = 4096
_SHARD: Final = re.compile(rb"[0-9a-fA-F]{2}").fullmatch

# Sub-folders above a file: none, `ab/`, `ab/cd/`.
_FLAT, _ONE, _TWO = range(3)


class UrlCache:
    """Finds files by the MD5 of their URL.

    Args:
        folder: the cache folder; it need not exist.
        extensions: the extensions of image files.
    """

    def __init__(self, folder: str, extensions: Sequence[str]) -> None:
        self._root = os.fsencode(folder)
        names = "|".join(map(re.escape, extensions))
        self._is_image = re.compile(rb"[0-9a-fA-F]{32}(\.(?i:%b))" % names.encode()).fullmatch
        self._layouts = self._sample_layouts()

    def paths(self, url_md5: bytes) -> Iterator[bytes]:
        """The paths that a URL's file may have, the likeliest first; none is opened."""
        digits = url_md5.hex().encode()
        for depth, suffix in self._layouts:
            if depth == _FLAT:
                yield b"%b/%b%b" % (self._root, digits, suffix)
            elif depth == _ONE:
                yield b"%b/%b/%b%b" % (self._root, digits[:2], digits, suffix)
            else:
                yield b"%b/%b/%b/%b%b" % (self._root, digits[:2], digits[2:4], digits, suffix)

    def has(self, url_md5: bytes, size: int) -> bool:
        """Whether the URL has a file of that size; its bytes are not read."""
        for path in self.paths(url_md5):
            with suppress(OSError):
                status = os.lstat(path)
                if status.st_size == size and stat.S_ISREG(status.st_mode):
                    return True
        return False

    def _sample_layouts(self) -> list[tuple[int, bytes]]:
        """The pairs of depth and extension that occur, the most frequent first."""
        seen: Counter[tuple[int, bytes]] = Counter()
        folder = self._root
        for depth in (_FLAT, _ONE, _TWO):
            shard = None
            for entry in self._first_entries(folder):
                if match := self._is_image(entry.name):
                    seen[depth, match[1]] += 1
                elif shard is None and _SHARD(entry.name):
                    shard = entry.path
            if shard is None:
                break
            folder = shard
        return [layout for layout, _ in seen.most_common()]

    def _first_entries(self, folder: bytes) -> Iterator[os.DirEntry[bytes]]:
        with suppress(OSError), os.scandir(folder) as entries:
            yield from islice(entries, _SAMPLE)
