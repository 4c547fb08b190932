"""One `--set KEY=VALUE`: the path of a key in a YAML file, and the text to set it to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mirror.errors import UsageError

_BARE: Final = re.compile(r'[^."=]+')
_KEY: Final = re.compile(r'([^."=]+)|"((?:[^"\\]|\\["\\])*)"')


@dataclass(frozen=True, slots=True)
class Assignment:
    """A key of a YAML file, and the text to set it to.

    Attributes:
        path: the keys from the root; the index of a list item is written in decimal digits.
        value: the text, which is not parsed as YAML.
    """

    path: tuple[str, ...]
    value: str

    @property
    def key(self) -> str:
        """The path as it is written on the command line."""
        return dotted(self.path)


def parse_assignment(text: str) -> Assignment:
    """Parse `data.files.0=train.jsonl`; a key with a dot, quote or `=` is quoted: `a."b.c".d=1`.

    Raises:
        UsageError: the text is not of that form.
    """
    path: list[str] = []
    at = 0
    while match := _KEY.match(text, at):
        bare, quoted = match.groups()
        path.append(bare or re.sub(r"\\(.)", r"\1", quoted))
        at = match.end() + 1
        if text[at - 1 : at] == "=":
            return Assignment(tuple(path), text[at:])
        if text[at - 1 : at] != ".":
            break
    raise UsageError(
        f"--set {text} is not understood; write KEY=VALUE, as in data.train_jsonl=train.jsonl, "
        'with a key that has a dot of its own in quotes: data."my.key"=VALUE.'
    )


def dotted(path: Sequence[str]) -> str:
    """A path as text; keys with a dot, quote or `=` are quoted."""
    return ".".join(
        part
        if _BARE.fullmatch(part)
        else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for part in path
    )
