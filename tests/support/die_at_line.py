"""Runs `mirror` and kills it with SIGKILL before it runs the n-th line of the given modules.

    python -m tests.support.die_at_line N MODULE,… [no-links] ARGUMENTS…

With N = 0 the run is not killed, and standard error gets the number of lines of all threads. With
`no-links`, hard links between folders fail as they do between file systems.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from mirror.cli.main import run


def main(at: int, files: set[str | None], arguments: list[str]) -> int:
    lines = 0

    def count(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            lines += 1
            if lines == at:
                os.kill(os.getpid(), signal.SIGKILL)
        return count

    threading.settrace(count)
    sys.settrace(count)
    status = run(arguments)
    sys.settrace(None)
    sys.stderr.write(f"\n{lines}\n")
    return status


def without_links() -> None:
    real = os.link

    def link(source: Any, target: Any, **options: Any) -> None:
        if options["src_dir_fd"] != options["dst_dir_fd"]:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, target, **options)

    vars(os)["link"] = link


if __name__ == "__main__":
    at, modules, *words = sys.argv[1:]
    if words[0] == "no-links":
        without_links()
        words = words[1:]
    traced = {importlib.import_module(name).__file__ for name in modules.split(",")}
    sys.exit(main(int(at), traced, words))
