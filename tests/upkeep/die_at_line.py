"""Runs `mirror` and kills it, by SIGKILL, before the n-th line of some of its code is run.

    python -m tests.upkeep.die_at_line N [no-links] [in=MODULE,…] ARGUMENTS…

With N = 0 it is not killed, and says on standard error how many lines there were. With `no-links`,
hard links between folders fail as they do between file systems. Lines of all threads are counted,
of the quarantine's modules unless others are named.
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
from mirror.upkeep import manifest, quarantine, tree

QUARANTINE = {module.__file__ for module in (manifest, quarantine, tree)}


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
    words = sys.argv[2:]
    if words[0] == "no-links":
        without_links()
        words = words[1:]
    traced = QUARANTINE
    if words[0].startswith("in="):
        modules = words[0].removeprefix("in=").split(",")
        traced = {importlib.import_module(name).__file__ for name in modules}
        words = words[1:]
    sys.exit(main(int(sys.argv[1]), traced, words))
