"""Text for people: sizes with units, and text that cannot control a terminal."""

from __future__ import annotations

from typing import Final


def printable(text: str) -> str:
    """Escape characters that do not print, because they could move a cursor or reverse a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_json(text: str) -> str:
    """The same JSON, with `\\u` escapes for what does not print; newlines between values stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else _json_escape(c) for c in text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


_SINGULAR: Final = {"are": "is", "have": "has", "were": "was"}


def plural(number: int, noun: str, verb: str = "") -> str:
    """A number with its noun, and with a verb that agrees: `1 image was`, `2 images were`.

    Args:
        number: of them.
        noun: in the singular; the plural has an s.
        verb: `are`, `have` or `were`; empty for none.
    """
    text = f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
    if not verb:
        return text
    return f"{text} {_SINGULAR[verb] if number == 1 else verb}"


def format_size(nbytes: float) -> str:
    """Bytes in decimal units, as providers bill them: 132.8 MB."""
    if nbytes < 1000:
        return f"{nbytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        nbytes /= 1000
        if nbytes < 1000:
            return f"{nbytes:.1f} {unit}"
    return f"{nbytes / 1000:.1f} TB"
