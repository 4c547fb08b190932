"""A command that is killed again and again, each time before a different line of its code."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

from tests.support.chaos_tally import SEED, count


def dying(modules: str, words: Sequence[str], at: int) -> subprocess.CompletedProcess[str]:
    """Run `mirror` with these words, killed before line `at` of the modules. See die_at_line."""
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
    """Kills a command a given number of times, before random lines.

        killing = Killing("mirror.upkeep.gc", ["gc", …])
        for story in killing.rounds(kills(4), random.Random(SEED)):
            …                   # prepare
            killing.run()
            assert …, story     # check

    The amount of work differs between runs, so a run may end before its line. Such runs do not count,
    and another round follows.

    Args:
        modules: the modules whose lines count, separated by commas.
        words: the command and its options.
        status: the exit status of a run that is not killed.
        after: the share of lines to skip, because they only prepare the work.
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
        """Yield once for each kill, with a message for failing assertions, until `kills` runs were killed."""
        for _ in range(2 * most + 10):
            self._at = chance.randint(self._first, self._lines)
            yield f"CHAOS_SEED={SEED}, killed before line {self._at} of {self._lines}"
            if self._killed == most:
                return
        raise AssertionError(f"CHAOS_SEED={SEED}: killed {self._killed} times only, not {most}")

    def run(self) -> None:
        """Run the command, and kill it at this round's line."""
        done = dying(self._modules, self._words, self._at)
        self._killed += done.returncode == -signal.SIGKILL
