"""Which photo, and which size of it, a URL shows. Pure.

An iNaturalist photo stands under many URLs: two hosts and their older spellings, an extension that
varies, a query that some datasets carry. They mean one photo; a medium and a large one are two
files of it.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, urlsplit

# Their order is part of `photo_key`.
SIZES: Final = ("original", "large", "medium", "small", "thumb", "square")

# /photos/ID[/SIZE[.EXT]] of inaturalist.org's hosts and of its open-data bucket, whose name may
# stand in the host or, as S3 allows too, at the path's beginning.
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

# More digits than a photo's number will have, and as many as leave room for the size in 64 bits.
_LONGEST_ID: Final = 18
# Without them a `photo_key` is the photo's number.
SIZE_BITS: Final = 3
_SIZE_CODES: Final = {size: code for code, size in enumerate(SIZES, 1)}

# What `spellings` tries, the likeliest first. Datasets name the open-data bucket since it exists.
_BASES: Final = (
    "https://inaturalist-open-data.s3.amazonaws.com",
    "https://static.inaturalist.org",
)
_EXTENSIONS: Final = ("jpg", "jpeg", "JPG", "JPEG", "png", "gif")


def photo_of(url: str) -> str:
    """Which photo a URL shows: the same text for every URL of one photo.

    An iNaturalist photo is known by its number whatever host, size, extension and query its URL
    has; its page's address stands for it. Any other URL is its own photo.
    """
    match = _INATURALIST.fullmatch(url.strip())
    return url if match is None else f"https://www.inaturalist.org/photos/{match['id']}"


def photo_key(url: str) -> int:
    """Which photo in which size a URL shows: the same number for every spelling of its URL.

    Returns:
        1 to 2⁶⁴ - 1, different for every photo and size; 0 for what is no iNaturalist photo, or
        does not say its size.
    """
    match = _sized(url)
    return int(match["id"]) << SIZE_BITS | _SIZE_CODES[match["size"]] if match else 0


def from_inaturalist(url: str) -> bool:
    """Whether a request for a URL would go to iNaturalist: its hosts, and its buckets on S3.

    True in doubt: whoever asks wants to be sure that it would not.
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
    """Other URLs under which the same photo in the same size may have been cached.

    Both hosts, its own extension and the usual ones, no query: the likeliest first, each once, `url`
    not among them. None for what has no `photo_key`.
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
