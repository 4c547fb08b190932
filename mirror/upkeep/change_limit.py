"""A limit on how many objects a plan may change without the user's explicit consent."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mirror.errors import UsageError


@dataclass(frozen=True, slots=True)
class ChangeLimit:
    """A number of objects, or a share of all objects."""

    number: int | None = None
    share: float = 0.5

    @classmethod
    def parse(cls, text: str, option: str) -> ChangeLimit:
        """Parse `500`, `10%` or `all`.

        Args:
            text: the value.
            option: its name on the command line, for the message.

        Raises:
            UsageError: the value is none of these.
        """
        if re.fullmatch(r"[0-9]{1,15}", text):
            return cls(number=int(text))
        if text == "all":
            return cls(share=1.0)
        if (match := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]+)?)%", text)) and float(match[1]) <= 100:
            return cls(share=float(match[1]) / 100)
        raise UsageError(f"{option} {text} is not understood; write a limit like 500, 10% or all.")

    def allows(self, objects: int, of: int) -> bool:
        """Whether a plan may change so many `objects` of all `of` them."""
        return objects <= (self.share * of if self.number is None else self.number)
