"""A sorted table of paths, listed as folders: each folder is a run of neighbours. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np


class PathTree(Sequence[bytes]):
    """Unique paths in sorted order, stored in two buffers; the separator is a slash."""

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
        """Whether a path is below it. The root, the empty path, is always a folder."""
        if not path:
            return True
        at = bisect_left(self, path + b"/")
        return at < len(self) and self[at].startswith(path + b"/")

    def children(self, folder: bytes) -> Iterator[tuple[bytes, bool]]:
        """Yield `(path, is a folder)` for each entry of a folder."""
        above = folder + b"/" if folder else b""
        at = bisect_left(self, above)
        while at < len(self) and (path := self[at]).startswith(above):
            name, slash, _ = path[len(above) :].partition(b"/")
            yield above + name, bool(slash)
            # All paths below a folder sort between "name/" and "name0": 0 follows the slash.
            at = bisect_left(self, above + name + b"0", at) if slash else at + 1
