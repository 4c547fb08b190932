"""How a run ends, noted in its report: its seconds, an error, an interruption."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from mirror.errors import MirrorError


class RunReport(Protocol):
    """The part of a report that every run fills.

    Attributes:
        seconds: how long the run took.
        interrupted: whether a signal stopped it.
        error: what ended it early, if anything did.
    """

    seconds: float
    interrupted: bool
    error: MirrorError | None


@contextmanager
def timed(report: RunReport) -> Iterator[None]:
    """Note how long the block took. A block that raises leaves no report, and so no time."""
    began_at = time.monotonic()
    yield
    report.seconds = time.monotonic() - began_at


@contextmanager
def outcome_noted(report: RunReport, stop: asyncio.Event) -> Iterator[None]:
    """Note what ended the block: an error, else the stop that a signal asked for."""
    try:
        yield
    except MirrorError as error:
        report.error = error
    report.interrupted = stop.is_set() and report.error is None
