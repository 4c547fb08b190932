"""Eviction from a full cache: approximate LRU by sampling, as in Redis.

A pool keeps candidates, oldest first. Each look at a shard adds a random sample of its files, and the
youngest candidates drop out of the pool. So evicted files are old among all files that were sampled,
without a list of all files in memory or on disk.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Final, NamedTuple

_SAMPLE: Final = 64  # files of one shard
_POOL: Final = 64
# The pool is refilled when it has fewer: the youngest files of a sample are not old among all.
_REFILL_BELOW: Final = 48


class _Candidate(NamedTuple):
    used_at: int
    shard: str
    name: str
    size: int


class Eviction:
    """Deletes the least recently used files. For one thread.

    Args:
        open_shard: opens a shard's folder by its name.
        shards: the names of all shards.
        is_image: says whether a file name is one of ours.
        rng: chooses shards and files.
    """

    def __init__(
        self,
        open_shard: Callable[[str], AbstractContextManager[int]],
        shards: Sequence[str],
        is_image: Callable[[str], object],
        rng: random.Random | None = None,
    ) -> None:
        self._open_shard = open_shard
        self._shards = shards
        self._is_image = is_image
        self._rng = rng or random.Random()  # noqa: S311 - not for secrets
        self._pool: list[_Candidate] = []

    def remove(self, nbytes: int) -> int:
        """Delete files until `nbytes` are free or no file is left; returns the bytes freed."""
        freed = 0
        while freed < nbytes:
            if len(self._pool) < _REFILL_BELOW:
                self._refill()
            if not self._pool:
                break
            freed += self._remove(self._pool.pop(0))
        return freed

    def _refill(self) -> None:
        """Fill the pool from samples of random shards, as many as it takes."""
        pool = set(self._pool)
        for shard in self._rng.sample(self._shards, len(self._shards)):
            with suppress(OSError), self._open_shard(shard) as folder:
                names = [name for name in os.listdir(folder) if self._is_image(name)]
                for name in self._rng.sample(names, min(_SAMPLE, len(names))):
                    if (found := _candidate(folder, shard, name)) is not None:
                        pool.add(found)
            if len(pool) >= _POOL:
                break
        self._pool = sorted(pool)[:_POOL]

    def _remove(self, candidate: _Candidate) -> int:
        shard, name = candidate.shard, candidate.name
        with suppress(OSError), self._open_shard(shard) as folder:
            if (
                _candidate(folder, shard, name) == candidate
            ):  # else it was used since it was sampled
                os.unlink(name, dir_fd=folder)
                return candidate.size
        return 0


def _candidate(folder: int, shard: str, name: str) -> _Candidate | None:
    with suppress(OSError):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            return _Candidate(status.st_mtime_ns, shard, name, status.st_size)
    return None
