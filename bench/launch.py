# ruff: noqa: INP001 - a script, not a package
"""Run a program and print its cost as JSON: `python -I -S launch.py CPUS OUT ERR COMMAND…`.

The kernel counts the memory of the forking process into the peak of its child. So a small process
forks: an interpreter that has loaded almost nothing.
"""

import os
import sys
import time


def main(cpus: str, out: str, err: str, *command: str) -> None:
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, out, writing, 0o644),
        (os.POSIX_SPAWN_OPEN, 2, err, writing, 0o644),
    ]
    started = time.perf_counter()
    process = os.posix_spawnp(command[0], command, os.environ, file_actions=files)
    _, status, usage = os.wait4(process, 0)
    wall = time.perf_counter() - started
    cpu = usage.ru_utime + usage.ru_stime
    peak = usage.ru_maxrss * (1024 if sys.platform == "linux" else 1)  # macOS counts bytes
    ended = os.waitstatus_to_exitcode(status)
    sys.stdout.write(f'{{"wall": {wall}, "cpu": {cpu}, "peak": {peak}, "ended": {ended}}}')


if __name__ == "__main__":
    main(*sys.argv[1:])
