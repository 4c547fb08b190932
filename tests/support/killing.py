"""A command that is killed again and again, each time before another line of the code that matters."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

from tests.support.chaos_tally import SEED, count


def dying(modules: str, words: Sequence[str], at: int) -> subprocess.CompletedProcess[str]:
    """Runs `mirror` with these words, killed before the line `at` of the modules; see die_at_line."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.die_at_line", str(at), modules, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    count("kills", done.returncode == -signal.SIGKILL)
    return done


class Killing:
    """Kills a command as often as is asked for, before lines that chance draws.

        killing = Killing("mirror.upkeep.gc", ["gc", …])
        for story in killing.rounds(kills(4), random.Random(SEED)):
            …                   # all is made ready
            killing.run()
            assert …, story     # what must hold

    What there is to do differs from run to run, so that one may end before its line is reached: it
    does not count, and there is a round more.

    Args:
        modules: whose lines are meant, with commas between.
        words: the command and its options.
        status: that it ends with when nobody kills it.
        after: the share of its lines that are passed over: they only get ready.
    """

    def __init__(
        self, modules: str, words: Sequence[str], *, status: int = 0, after: float = 0.0
    ) -> None:
        self._modules, self._words = modules, words
        whole = dying(modules, words, 0)
        assert whole.returncode == status, whole.stderr
        self._lines = int(whole.stderr.split()[-1])
        self._first = 1 + int(self._lines * after)
        self._at = 0
        self._killed = 0

    def rounds(self, most: int, chance: random.Random) -> Iterator[str]:
        """A round a kill, until there were so many; gives what to say if one fails."""
        for _ in range(2 * most + 10):
            self._at = chance.randint(self._first, self._lines)
            yield f"CHAOS_SEED={SEED}, killed before line {self._at} of {self._lines}"
            if self._killed == most:
                return
        raise AssertionError(f"CHAOS_SEED={SEED}: killed {self._killed} times only, not {most}")

    def run(self) -> None:
        """Runs the command, to be killed at this round's line."""
        done = dying(self._modules, self._words, self._at)
        self._killed += done.returncode == -signal.SIGKILL
