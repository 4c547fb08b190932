"""Names of runs: sorted by time, told apart when two begin at once."""

from __future__ import annotations

import os
import time


def new_run_id() -> str:
    """Such as `20261124T031700Z-5f0c1a`: in the report, the log, the state and the monitoring."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(3).hex()}"
