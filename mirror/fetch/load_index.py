"""The index that a fetcher looks URLs up in."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from mirror.catalog.index import Index
from mirror.catalog.open_mirror import read_index, read_local_index
from mirror.config.settings import Settings
from mirror.errors import CatalogError, MirrorError
from mirror.fetch.fork_lock import is_forked


def index_of(settings: Settings, *, offline: bool) -> Index:
    """The mirror's index: of its newest catalog, or as this machine last read it.

    Raises:
        MirrorError: there is no mirror, it cannot be read, or (offline) it never was.
    """
    if offline:
        return read_local_index(settings)
    if is_forked():
        return _read_apart(settings)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return read_index(settings)[1]
    with ThreadPoolExecutor(1) as pool:  # this thread's loop runs; the reading needs one of its own
        return pool.submit(read_index, settings).result()[1]


def _read_apart(settings: Settings) -> Index:
    """The same by an interpreter of its own.

    What deltalake and obstore began in a parent, or in a parent of that, its forked children cannot
    use: deltalake panics there, obstore waits for ever. multiprocessing would not help a worker of a
    DataLoader, for a daemon may have no children.
    """
    told = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-m", __name__],
        input=pickle.dumps(settings),
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    if told.returncode:
        last = told.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise CatalogError(
            f"The catalog cannot be read from a forked process ({last}); make the Fetcher "
            "before the fork, or use the start method spawn."
        )
    index = pickle.loads(told.stdout)  # noqa: S301 - our own child wrote it
    if isinstance(index, MirrorError):
        raise index
    assert isinstance(index, Index)
    return index


def _answer() -> None:
    settings = pickle.load(sys.stdin.buffer)  # noqa: S301 - our own parent wrote it
    index: Index | MirrorError
    try:
        index = read_index(settings)[1]
    except MirrorError as error:
        index = error
    sys.stdout.buffer.write(pickle.dumps(index))


if __name__ == "__main__":
    _answer()
