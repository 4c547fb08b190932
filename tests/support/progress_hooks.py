"""Progress that calls a test back."""

from __future__ import annotations

from collections.abc import Callable

from mirror.run.progress import Progress, Stage


class Advances(Progress):
    """Calls back with the items and bytes of each advance."""

    def __init__(self, call: Callable[[int, int], object]) -> None:
        self._call = call

    def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
        self._call(items, nbytes)


class WhenPlanned(Progress):
    """Calls back when a stage begins: gc has its plan, and has deleted nothing yet."""

    def __init__(self, call: Callable[[Stage], object]) -> None:
        self._call = call

    def begin(self, stage: Stage) -> None:
        self._call(stage)
