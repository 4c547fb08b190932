"""Progress as a bar of tqdm: on a terminal, in a notebook, in a log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mirror.run.progress import Level, Progress, Stage
from mirror.system.display_text import printable

if TYPE_CHECKING:
    from tqdm import tqdm


class ProgressBar(Progress):
    """Draws one bar for each stage of a run; `tqdm.auto` chooses how."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._counts_bytes = False

    def begin(self, stage: Stage) -> None:
        from tqdm.auto import tqdm

        self.close()
        self._counts_bytes = bool(stage.nbytes)
        if self._counts_bytes:
            self._bar = tqdm(total=stage.nbytes, unit="B", unit_scale=True, desc=stage.noun)
        else:
            self._bar = tqdm(total=stage.items, unit=f" {stage.noun}")

    def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
        if self._bar is not None:
            self._bar.update(nbytes if self._counts_bytes else items)

    def wait(self, seconds: float, reason: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"waiting: {printable(reason)}")

    def say(self, sentence: str, level: Level = "info") -> None:
        from tqdm.auto import tqdm

        tqdm.write(printable(sentence), file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is drawn; a run that has ended draws no more."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
