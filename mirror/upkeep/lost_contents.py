"""Contents that a mirror has lost, and a search for them in folders of this machine.

A file is opened only if it has the size of a lost content. Its bytes decide, not its name, so any
folder will do: a cache, a fetch cache, a quarantine, a backup.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple

import numpy as np

from mirror.catalog.health import Kind, Problem
from mirror.catalog.index import Index, halves, positions_of
from mirror.catalog.objects import EXTENSIONS, sha256_of_named
from mirror.content.digest import Digest
from mirror.layout import OBJECTS, parse_object_key

# Files whose sizes are compared at once.
_CHUNK: Final = 16_384
_KINDS: Final[tuple[Kind, ...]] = ("missing", "mismatched")


class LostObject(NamedTuple):
    """An object to be restored.

    Attributes:
        at: its position in `LostContents`.
        key: of the object.
        kind: what is wrong with it: "missing" or "mismatched".
        digest: of the content that it should have.
    """

    at: int
    key: str
    kind: Kind
    digest: Digest


class LostContents:
    """The lost contents, about 70 bytes each, and which of them are still to be found.

    Args:
        damage: the mirror's problems. Those of other kinds, and those of objects that no row names,
            are ignored.
        index: has the SHA-256 of each content.
    """

    def __init__(self, damage: Iterable[Problem], index: Index) -> None:
        contents, sha256s, numbers = bytearray(), bytearray(), array("q")
        for problem in damage:
            parsed = parse_object_key(problem.key)
            sha256 = sha256_of_named(index, problem.key)
            if parsed is None or sha256 is None or problem.kind not in _KINDS:
                continue
            contents += parsed[0]
            sha256s += sha256
            numbers.extend((problem.size, EXTENSIONS.index(parsed[1]), _KINDS.index(problem.kind)))
        hi, lo = halves(bytes(contents))
        order = np.lexsort((lo, hi))
        self._hi, self._lo = hi[order], lo[order]
        self._sha256 = np.frombuffer(bytes(sha256s), "V32")[order]
        self._size, self._extension, self._kind = (
            np.array(numbers, np.int64).reshape(-1, 3)[order].T.copy()
        )
        self._open = np.ones(len(order), bool)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._open))

    def remaining(self) -> Iterator[LostObject]:
        """The objects that are still to be found, in the order of keys."""
        return map(self._object, np.flatnonzero(self._open).tolist())

    def settle(self, lost: LostObject) -> None:
        """Stop looking for this object."""
        self._open[lost.at] = False

    def set_kind(self, lost: LostObject, kind: Kind) -> None:
        """Record what another check has found wrong with this object."""
        self._kind[lost.at] = _KINDS.index(kind)

    def match(self, digest: Digest) -> list[LostObject]:
        """The objects that are still to be found and have exactly these bytes.

        There are several where rows name one content under several extensions.
        """
        (at,) = positions_of(*halves(digest.content_hash), self._hi, self._lo).tolist()
        found: list[LostObject] = []
        while 0 <= at < len(self._open):
            lost = self._object(at)
            if lost.digest.content_hash != digest.content_hash:
                break
            if self._open[at] and lost.digest == digest:
                found.append(lost)
            at += 1
        return found

    def _object(self, at: int) -> LostObject:
        content = (int(self._hi[at]) << 64 | int(self._lo[at])).to_bytes(16, "big")
        digits, extension = content.hex(), EXTENSIONS[self._extension[at]]
        digest = Digest(content, self._sha256[at].tobytes(), int(self._size[at]))
        key = f"{OBJECTS}{digits[:2]}/{digits}.{extension}"
        return LostObject(at, key, _KINDS[self._kind[at]], digest)

    def candidates(self, root: bytes) -> Iterator[tuple[bytes, int]]:
        """`(path, size)` of the files below a folder that have the size of a content to be found."""
        files = files_below(root)
        while len(self) and (chunk := list(islice(files, _CHUNK))):
            sizes = np.array([size for _, size in chunk], np.int64)
            for at in np.flatnonzero(np.isin(sizes, self._size[self._open])).tolist():
                yield chunk[at]


def files_below(root: bytes) -> Iterator[tuple[bytes, int]]:
    """`(path, size)` of every regular file below a folder; symbolic links are not followed."""
    folders = [root]
    while folders:
        folder = folders.pop()
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield entry.path, status.st_size
