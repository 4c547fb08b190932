"""Run a verb for the library: progress on request, and a frozen report of what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from mirror.errors import Interrupted, MirrorError
from mirror.run.progress import Progress
from mirror.run.report import Report

_T = TypeVar("_T")


class EndedRun(Protocol):
    """The report that a verb fills while it runs. `error` and `interrupted` are optional."""

    @property
    def exit_status(self) -> int: ...

    def as_json(self) -> dict[str, Any]: ...


def run_and_report(
    command: str, verb: Callable[[Progress], EndedRun], progress: bool | Progress = False
) -> Report:
    """Run a verb and freeze its report.

    Args:
        command: the name of the command that does the same.
        verb: does the work.
        progress: True draws bars; an object receives the progress; False ignores it.

    Raises:
        MirrorError: the run ended early. The error's `report` says what was done before.
        Interrupted: Ctrl-C ended it; it has a `report` too.
    """
    with _view(progress) as view:
        ended = run_apart(lambda: verb(view))
    report = Report(command, ended.as_json(), ended.exit_status)
    error: MirrorError | None = getattr(ended, "error", None)
    if error is None and getattr(ended, "interrupted", False):
        error = Interrupted("Interrupted; nothing that was acknowledged is lost.")
    if error is not None:
        error.report = report
        raise error
    return report


def run_apart(work: Callable[[], _T]) -> _T:
    """Do work that runs an event loop of its own, even where a loop is running in this thread.

    The cells of a notebook run inside a loop; there the work goes to another thread. Interrupting
    the kernel then waits for the work to end.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@contextmanager
def _view(progress: bool | Progress) -> Iterator[Progress]:
    if isinstance(progress, Progress):
        yield progress
    elif not progress:
        yield Progress()
    else:
        from mirror.run.progress_bar import ProgressBar

        bar = ProgressBar()
        try:
            yield bar
        finally:
            bar.close()
