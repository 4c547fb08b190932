"""The user's URL-keyed cache as a tier: files named by the MD5 of their URL. Read, never written.

A folder may hold a million files and is not listed: where it keeps them, and under which
extensions, is told from the first few thousand entries. What it has in some rarer way is read from
the mirror instead.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final

# Entries that are looked at, of the folder and of one sub-folder on each level below it.
_SAMPLE: Final = 4096
_SHARD: Final = re.compile(rb"[0-9a-fA-F]{2}").fullmatch

# How an image's folder follows from its name: none, `ab/`, `ab/cd/`.
_FLAT, _ONE, _TWO = range(3)


class UrlCache:
    """Looks files up.

    Args:
        folder: the cache's; it need not exist.
        extensions: what an image's name may end with.
    """

    def __init__(self, folder: str, extensions: Sequence[str]) -> None:
        self._root = os.fsencode(folder)
        names = "|".join(map(re.escape, extensions))
        self._is_image = re.compile(rb"[0-9a-fA-F]{32}(\.(?i:%b))" % names.encode()).fullmatch
        self._layouts = self._seen()

    def paths(self, url_md5: bytes) -> Iterator[bytes]:
        """Where the file of a URL may be, the likeliest first; nothing is looked at."""
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
                if os.stat(path).st_size == size:
                    return True
        return False

    def _seen(self) -> list[tuple[int, bytes]]:
        """Pairs of layout and extension that were seen, the commonest first."""
        seen: Counter[tuple[int, bytes]] = Counter()
        folder = self._root
        for depth in (_FLAT, _ONE, _TWO):
            shard = None
            for entry in self._some(folder):
                if match := self._is_image(entry.name):
                    seen[depth, match[1]] += 1
                elif shard is None and _SHARD(entry.name):
                    shard = entry.path
            if shard is None:
                break
            folder = shard
        return [layout for layout, _ in seen.most_common()]

    def _some(self, folder: bytes) -> Iterator[os.DirEntry[bytes]]:
        with suppress(OSError), os.scandir(folder) as entries:
            yield from islice(entries, _SAMPLE)
