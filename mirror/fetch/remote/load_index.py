"""The mirror's index, for a fetcher to look URLs up in."""

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


def load_index(settings: Settings, *, offline: bool) -> Index:
    """Read the index of the newest catalog; offline, the newest index on this machine.

    Raises:
        MirrorError: there is no mirror, it cannot be read, or (offline) this machine has no index.
    """
    if offline:
        return read_local_index(settings)
    if is_forked():
        return _read_in_subprocess(settings)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return read_index(settings)[1]
    # This thread already runs an event loop, and `read_index` starts one.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(read_index, settings).result()[1]


def _read_in_subprocess(settings: Settings) -> Index:
    """Read the index in a new interpreter.

    A forked child cannot use what deltalake and obstore started in a parent or grandparent:
    deltalake panics, and obstore waits forever. multiprocessing does not help, because DataLoader
    workers are daemons and may have no children.

    `-P` keeps the current folder out of the child's module path: a folder of data may hold files
    like `mirror.py` or `numpy.py`. The child finds its modules where this process finds them.
    """
    child = subprocess.run(  # noqa: S603 - this module itself
        [sys.executable, "-P", "-m", __name__],
        input=pickle.dumps(settings),
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    if child.returncode:
        last = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise CatalogError(
            f"The catalog cannot be read from a forked process ({last}); make the Fetcher "
            "before the fork, or use the start method spawn."
        )
    index = pickle.loads(child.stdout)  # noqa: S301 - written by our own child
    if isinstance(index, MirrorError):
        raise index
    assert isinstance(index, Index)
    return index


def _main() -> None:
    settings = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by our own parent
    index: Index | MirrorError
    try:
        index = read_index(settings)[1]
    except MirrorError as error:
        index = error
    sys.stdout.buffer.write(pickle.dumps(index))


if __name__ == "__main__":
    _main()
