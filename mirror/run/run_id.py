"""Names of runs: they sort by time, and differ if two runs start at once."""

from __future__ import annotations

import os
import time


def new_run_id() -> str:
    """A name such as `20261124T031700Z-5f0c1a`, for report, log, state and monitoring."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(3).hex()}"
