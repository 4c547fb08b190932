"""Divides JSON values that are no lines, an array or objects over several lines, into records.

Memory stays constant: the values are found by a search for brackets and texts, and are not decoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final, NamedTuple

from mirror.dataset.compression import TolerantStream
from mirror.dataset.formats.splicing import STRING
from mirror.system.display_text import format_size

_BLOCK: Final = 1 << 20
# MongoDB's documents are limited to 16 MiB of BSON.
_LONGEST: Final = 32 << 20
_DEEPEST: Final = 64
_SHOWN: Final = 4096
_BOM: Final = b"\xef\xbb\xbf"
_GAP: Final = re.compile(rb"\s*+").match
# A line's end between texts, with the indentation around it. Texts stay as they are.
_LAYOUT: Final = re.compile(rb"(%b)|\s*[\r\n]\s*" % STRING, re.DOTALL).sub
_SPACES: Final = b" \t\r\n"


class Values(NamedTuple):
    """Consecutive values, each on one line.

    Attributes:
        lines: the values; empty where one is flawed.
        flawed: by position in `lines` the reason and the beginning of what was read.
    """

    lines: list[bytes]
    flawed: dict[int, tuple[str, bytes]]


def values_of(file: TolerantStream) -> Iterator[Values]:
    """Read arrays, or values one after the other, and give their items.

    A value keeps its bytes, except line ends and the indentation around them. After a place where no
    value can be recognised the rest is not read.

    Args:
        file: UTF-8 that begins with `[` or `{`.
    """
    walk = _Walk()
    rest = b""
    while not walk.ended:
        # What is incomplete is searched again, so twice as much must come before that.
        block = file.read(max(_BLOCK, len(rest)))
        text = (rest + block).removeprefix(_BOM)
        found, end = walk.values(text)
        rest = text[end:]
        if not block or len(rest) > _LONGEST:
            walk.give_up(found, rest, file.broken)
        if found.lines:
            yield found


class _Walk:
    """The place in the text: whether it is inside an array, and what may come next."""

    def __init__(self) -> None:
        self.ended = False
        self._in_array = False
        self._needs_value = False

    def values(self, text: bytes) -> tuple[Values, int]:
        """The values that are complete, and the position after the last one."""
        found = Values([], {})
        element, at = _element(), 0
        while True:
            begin = _end(_GAP(text, at))
            if not self._in_array and text[begin : begin + 1] == b"[":
                self._in_array, at = True, begin + 1
                continue
            if self._in_array and not self._needs_value and text[begin : begin + 1] == b"]":
                self._in_array, at = False, begin + 1
                continue
            match = element(text, begin)
            if match is None:
                return found, at
            after = _end(_GAP(text, match.end()))
            if self._in_array:
                mark = text[after : after + 1]
                if mark not in (b",", b"]"):
                    return found, at
                self._needs_value = mark == b","
                after += self._needs_value
            self._take(found, match[0])
            at = after

    @staticmethod
    def _take(found: Values, raw: bytes) -> None:
        line = _LAYOUT(rb"\1", raw) if b"\n" in raw or b"\r" in raw else raw
        if b"\n" in line:
            reason = "not JSON: a line's end within a text"
            found.flawed[len(found.lines)] = (reason, raw[:_SHOWN])
            line = b""
        found.lines.append(line)

    def give_up(self, found: Values, rest: bytes, reason: str | None) -> None:
        """Nothing more is read.

        Args:
            found: takes what remains as a flawed value.
            rest: what remains, from a place where a value was expected.
            reason: why the file cannot be read further; None if it can.
        """
        self.ended = True
        if rest.strip(_SPACES) or self._in_array:
            if reason is None and len(rest) > _LONGEST:
                reason = f"an open bracket or text, or longer than {format_size(_LONGEST)}"
            reason = f"{reason or 'a comma or a bracket is missing, or nested too deeply'}; the rest was not read"
            found.flawed[len(found.lines)] = (reason, rest.strip(_SPACES)[:_SHOWN])
            found.lines.append(b"")


def _end(match: re.Match[bytes] | None) -> int:
    assert match is not None  # a gap may be empty
    return match.end()


@cache
def _element() -> Callable[[bytes, int], re.Match[bytes] | None]:
    """Matches one value, whatever the kinds of its brackets; the decoder checks it."""
    inner = rb'(?:[^"{}\[\]]++|%b)*+' % STRING
    for _ in range(_DEEPEST):
        inner = rb'(?:[^"{}\[\]]++|%b|[\[{]%b[\]}])*+' % (STRING, inner)
    scalar = rb'(?:%b|[^\s,"{}\[\]]++(?=[\s,\]]))' % STRING
    return re.compile(rb"[\[{]%b[\]}]|%b" % (inner, scalar), re.DOTALL).match
