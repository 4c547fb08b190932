"""Placeholders: one content in place of many photos, or a content that is known to be bad.

A server or a loader that lacks photos puts the same picture in place of each. A real photograph has
several URLs too, but they mean one photo: its sizes, spellings and hosts. So photos are counted, not
URLs. Pure except for `load_known_bad`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from mirror.content.digest import Digest
from mirror.content.image import Inspection
from mirror.content.photo import photo_of
from mirror.errors import ConfigError

# The reason of a placeholder whose hash was known.
KNOWN_BAD: Final = "known placeholder"

_HASH = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{32}")


def distinct_photos(urls: Iterable[str]) -> int:
    """Count the photos that URLs show."""
    return len({photo_of(url) for url in urls})


def shared_reason(count: int, noun: str = "photos") -> str:
    """Return the reason of a placeholder that was detected because many photos share it."""
    return f"one content under {count} {noun}"


def is_known_bad(digest: Digest, known_bad: frozenset[bytes]) -> bool:
    """Whether a content is in the list, by either of its hashes."""
    return digest.sha256 in known_bad or digest.content_hash in known_bad


def with_known_bad(
    inspection: Inspection, digest: Digest, known_bad: frozenset[bytes]
) -> Inspection:
    """Change `ok` to `placeholder` if the content is known to be one."""
    if inspection.verdict != "ok" or not is_known_bad(digest, known_bad):
        return inspection
    return inspection._replace(verdict="placeholder", reason=KNOWN_BAD)


def parse_known_bad(text: str, name: str = "known_bad") -> frozenset[bytes]:
    """Parse a list of hashes: 32 bytes are a SHA-256, 16 bytes an XXH3-128.

    Args:
        text: one hexadecimal hash a line; `#` begins a comment; blank lines are ignored.
        name: name of the list in error messages.

    Raises:
        ConfigError: a line is neither; the message has its number.
    """
    found = set()
    for number, line in enumerate(text.split("\n"), 1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        if not _HASH.fullmatch(word):
            raise ConfigError(
                f"{name}, line {number}: {word[:80]!r} is not a hash; write 64 hexadecimal digits "
                "(SHA-256) or 32 (XXH3-128) on a line, and comments after #."
            )
        found.add(bytes.fromhex(word))
    return frozenset(found)


def load_known_bad(path: Path | str | None) -> frozenset[bytes]:
    """Read the file `inspect.known_bad`; no hashes if `path` is None.

    Raises:
        ConfigError: the file cannot be read, or a line is wrong.
    """
    if path is None:
        return frozenset()
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"The list of known bad hashes {path} cannot be read ({error.strerror}); "
            "set inspect.known_bad to a file that exists."
        ) from None
    except ValueError:
        raise ConfigError(
            f"The list of known bad hashes {path} is not text; write one hash a line."
        ) from None
    return parse_known_bad(text, str(path))
