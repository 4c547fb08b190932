"""Which photo a URL shows, and in which size. Pure.

An iNaturalist photo has many URLs: two hosts and their older spellings, several extensions, and a
query in some datasets. They all mean one photo. Its medium and its large size are two files.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, urlsplit

# Their order is part of `photo_key`.
SIZES: Final = ("original", "large", "medium", "small", "thumb", "square")

# /photos/ID[/SIZE[.EXT]] on inaturalist.org's hosts and in its open-data bucket. S3 allows the
# bucket's name in the host or at the beginning of the path.
_INATURALIST: Final = re.compile(
    rf"""(?: https? : )? //
    (?: (?: [^/?\#]* @ )??
        (?i: inaturalist-open-data \. s3 (?: [.-] [a-z0-9.-]+? )? \. amazonaws \. com \.?
           | (?: [a-z0-9-]+ \. )*? inaturalist \. org \.? )
        (?: : \d+ )?
        /+
      | (?i: s3 (?: [.-] [a-z0-9.-]+ )? \. amazonaws \. com )
        (?: : \d+ )?
        / (?: inaturalist-open-data | static\.inaturalist\.org ) /
    )
    photos / (?P<id> [0-9]+ )
    (?: / (?: (?P<size> {"|".join(SIZES)} ) (?: \. (?P<extension> [A-Za-z0-9]* ) )? | [^/?\#]* ) )?
    /? (?: [?\#] .* )?
    """,
    re.VERBOSE | re.DOTALL,
)

_BUCKETS: Final = ("inaturalist-open-data", "static.inaturalist.org")

# A photo's number will not have more digits, and these leave room for the size in 64 bits.
_LONGEST_ID: Final = 18
# The lowest bits of a `photo_key`; shifted out, they leave the photo's number.
SIZE_BITS: Final = 3
_SIZE_CODES: Final = {size: code for code, size in enumerate(SIZES, 1)}

# Hosts that `spellings` tries, the likeliest first: most datasets name the open-data bucket.
_BASES: Final = (
    "https://inaturalist-open-data.s3.amazonaws.com",
    "https://static.inaturalist.org",
)
_EXTENSIONS: Final = ("jpg", "jpeg", "JPG", "JPEG", "png", "gif")


def photo_of(url: str) -> str:
    """Return a text that is the same for every URL of one photo.

    For an iNaturalist photo it is the address of its page, whatever host, size, extension and query
    the URL has. Any other URL is its own photo.
    """
    match = _INATURALIST.fullmatch(url.strip())
    return url if match is None else f"https://www.inaturalist.org/photos/{match['id']}"


def photo_key(url: str) -> int:
    """Return a number that is the same for every spelling of a URL of one photo in one size.

    Returns:
        1 to 2⁶⁴ - 1, different for every photo and size. 0 if the URL is not an iNaturalist photo's
        or does not say the size.
    """
    match = _sized(url)
    return int(match["id"]) << SIZE_BITS | _SIZE_CODES[match["size"]] if match else 0


def size_code(key: int) -> int:
    """Return the number of the size that a `photo_key` says; 0 if the key is 0."""
    return key & (1 << SIZE_BITS) - 1


def from_inaturalist(url: str) -> bool:
    """Whether a request for a URL would go to iNaturalist's hosts or its buckets on S3.

    True in doubt, because callers want to rule such requests out.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return True
    if re.search(r"(?:^|\.)inaturalist\.(?:org|[a-z]{2,3}(?:\.[a-z]{2})?)$", host):
        return True
    if not host.endswith(("amazonaws.com", "amazonaws.com.cn")):
        return False
    path = unquote(unquote(parts.path)).lstrip("/")
    return any(
        host.startswith(f"{bucket}.s3") or path.partition("/")[0] == bucket for bucket in _BUCKETS
    )


def spellings(url: str) -> list[str]:
    """Return other URLs under which the same photo in the same size may have been cached.

    They combine both hosts with the URL's own extension and the usual ones, without a query. The
    likeliest come first; `url` itself is left out. Empty if the URL has no `photo_key`.
    """
    match = _sized(url)
    if match is None:
        return []
    own, path = match["extension"], f"/photos/{match['id']}/{match['size']}."
    extensions = dict.fromkeys((own, *_EXTENSIONS) if own else _EXTENSIONS)
    others = [f"{base}{path}{extension}" for extension in extensions for base in _BASES]
    return [other for other in others if other != url]


def _sized(url: str) -> re.Match[str] | None:
    match = _INATURALIST.fullmatch(url.strip())
    if match is None or match["size"] is None:
        return None
    number = match["id"]
    return None if number.startswith("0") or len(number) > _LONGEST_ID else match
