"""What a command says where there is no terminal: sentences, and how far it is once a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TextIO

EVERY_SECONDS: Final = 60.0


class Log:
    """Lines on a stream, each flushed as it is said; cron's mail and a journal want it so."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """The work that is timed begins now."""
        self._began_at = self._said_at = self._clock()

    def say(self, sentence: str) -> None:
        print(f"mirror: {sentence}", file=self._stream, flush=True)

    def due(self) -> float | None:
        """Seconds since the work began when it is time for a line about it, at most one a minute."""
        now = self._clock()
        if now - self._said_at < EVERY_SECONDS:
            return None
        self._said_at = now
        return now - self._began_at
