"""Become another program that is sent a signal when the process that started it dies.

    python die_with_parent.py PARENT_PID SIGNAL COMMAND…

A run of pytest that is killed runs no clean-up, so the kernel has to do it: PR_SET_PDEATHSIG
survives exec, and the server keeps this process's id. It is asked for here, after an exec, and not
in a `preexec_fn`, which runs Python between fork and exec of a process that has threads (newer
Pythons warn of it). Where there is no such call, only a tidy end of the tests stops the server.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, number: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died before the call: no signal is going to come
        sys.exit("die_with_parent: the process that wanted this server is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
