"""How many files this process may have open at once: sockets count, too."""

from __future__ import annotations

import resource
from typing import Final

from mirror.errors import ConfigError

# Beside the requests: the interpreter's files, the local state, the catalog, the index.
_OTHERS: Final = 64
# A soft limit above this makes some programs slow, which close every possible descriptor.
_MOST: Final = 65_536


def raise_limit(requests: int) -> None:
    """Raise the soft limit as far as the hard one allows.

    Args:
        requests: how many are in flight at most. Each has a socket, and may have a file.

    Raises:
        ConfigError: the hard limit is below the need. Libraries end without a sentence then.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    needed = 2 * requests + _OTHERS
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise ConfigError(
            f"This process may open {soft} files at once, and needs {needed}; raise the limit (ulimit "
            "-n, or LimitNOFILE= in a unit), or lower sync.concurrency and fetch.concurrency."
        )
