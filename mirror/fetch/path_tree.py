"""Paths as folders: a sorted table of them, in which a folder is a run of neighbours. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np


class PathTree(Sequence[bytes]):
    """Paths in order, each once, in two buffers; separators are slashes."""

    def __init__(self, paths: Iterable[bytes]) -> None:
        ordered = sorted(set(paths))
        self._text = b"".join(ordered)
        self._ends = np.cumsum(np.fromiter(map(len, ordered), np.int64, len(ordered)))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        begin = self._ends[index - 1] if index else 0
        return self._text[begin : self._ends[index]]

    def is_folder(self, path: bytes) -> bool:
        """Is there anything below it? The root, which is empty, always is one."""
        if not path:
            return True
        at = bisect_left(self, path + b"/")
        return at < len(self) and self[at].startswith(path + b"/")

    def children(self, folder: bytes) -> Iterator[tuple[bytes, bool]]:
        """`(path, is a folder)` of what stands directly in a folder."""
        above = folder + b"/" if folder else b""
        at = bisect_left(self, above)
        while at < len(self) and (path := self[at]).startswith(above):
            name, slash, _ = path[len(above) :].partition(b"/")
            yield above + name, bool(slash)
            # All that is below a folder is between "name/" and "name0": that is the next character.
            at = bisect_left(self, above + name + b"0", at) if slash else at + 1
