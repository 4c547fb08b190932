"""Text for people: sizes with units, and text that cannot control a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Escape characters that do not print, because they could move a cursor or reverse a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def format_size(nbytes: float) -> str:
    """Bytes in decimal units, as providers bill them: 132.8 MB."""
    if nbytes < 1000:
        return f"{nbytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        nbytes /= 1000
        if nbytes < 1000:
            return f"{nbytes:.1f} {unit}"
    return f"{nbytes / 1000:.1f} TB"
