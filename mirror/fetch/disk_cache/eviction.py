"""Which images a full cache lets go: the oldest of a growing sample, as Redis approximates LRU.

A pool of candidates is kept, the oldest first. Each look at a shard adds a sample of its files, and
the youngest fall out again: what is removed is old among all that was looked at, with no list of
everything in memory and none on disk.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

_SAMPLE: Final = 64  # files of a shard
_POOL: Final = 64
# Below so many the pool is filled again: the youngest of a sample are not old among all.
_LEAST: Final = 48


class _Candidate(NamedTuple):
    used_at: int
    shard: str
    name: str
    size: int


class Eviction:
    """Removes old files. For one thread.

    Args:
        root: the folder of the shards. No link below it is followed.
        shards: names of its sub-folders.
        is_image: says of a file's name that it is ours.
        chance: chooses.
    """

    def __init__(
        self,
        root: str,
        shards: Sequence[str],
        is_image: Callable[[str], object],
        chance: random.Random | None = None,
    ) -> None:
        self._root = root
        self._shards = shards
        self._is_image = is_image
        self._chance = chance or random.Random()  # noqa: S311 - nothing secret
        self._pool: list[_Candidate] = []

    def remove(self, wanted: int) -> int:
        """Remove files until so many bytes are free, or none are left; returns how many are."""
        freed = 0
        while freed < wanted:
            if len(self._pool) < _LEAST:
                self._look()
            if not self._pool:
                break
            freed += self._remove(self._pool.pop(0))
        return freed

    def _look(self) -> None:
        """Fill the pool from samples of random shards, as many as it takes."""
        pool = set(self._pool)
        for shard in self._chance.sample(self._shards, len(self._shards)):
            with suppress(OSError), _Folder(f"{self._root}/{shard}") as folder:
                names = [name for name in os.listdir(folder) if self._is_image(name)]
                for name in self._chance.sample(names, min(_SAMPLE, len(names))):
                    if (found := _candidate(folder, shard, name)) is not None:
                        pool.add(found)
            if len(pool) >= _POOL:
                break
        self._pool = sorted(pool)[:_POOL]

    def _remove(self, one: _Candidate) -> int:
        with suppress(OSError), _Folder(f"{self._root}/{one.shard}") as folder:
            if _candidate(folder, one.shard, one.name) == one:  # not used since it was looked at
                os.unlink(one.name, dir_fd=folder)
                return one.size
        return 0


def _candidate(folder: int, shard: str, name: str) -> _Candidate | None:
    with suppress(OSError):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            return _Candidate(status.st_mtime_ns, shard, name, status.st_size)
    return None


class _Folder:
    """An open folder, so that no name below it leads elsewhere."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags)
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
