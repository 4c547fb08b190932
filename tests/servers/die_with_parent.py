"""Becomes another program, which gets a signal when the process that started it dies.

    python die_with_parent.py PARENT_PID SIGNAL COMMAND…

A killed pytest runs no clean-up, so the kernel has to do it. PR_SET_PDEATHSIG survives exec, and the
server keeps this process's id. The call is here, after an exec, and not in a `preexec_fn`. That would
run Python between fork and exec of a process with threads, and newer Pythons warn about it. On systems
without this call, only a regular end of the tests stops the server.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, number: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died before the call, so no signal will come
        sys.exit("die_with_parent: the process that wanted this server is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
