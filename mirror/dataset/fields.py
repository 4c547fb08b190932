"""Dotted paths into the nested objects and lists of a record. Pure.

`photos.url` is the field `url` of the object in `photos`, or of each object if `photos` is a list.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from mirror.errors import UsageError

FieldPath = tuple[str, ...]


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = _Missing()
"""The value of a field that a record does not have."""


class BadRecord(Exception):
    """A record without a usable URL. The message is the reason."""


class UrlSite(NamedTuple):
    """A place that holds URLs: `holder[key]` is one URL or a list of them."""

    holder: dict[str, Any]
    key: str

    @property
    def urls(self) -> list[str]:
        value = self.holder[self.key]
        return value if isinstance(value, list) else [value]


def parse_path(text: str) -> FieldPath:
    """Parse a dotted path.

    Raises:
        UsageError: a piece between dots is empty, or the text is not UTF-8.
    """
    path = tuple(check_name(text).split("."))
    if not all(path):
        raise UsageError(f"The field {text!r} has an empty piece; write NAME or OUTER.INNER.")
    return path


def check_name(text: str) -> str:
    """Return the name of a field if a record can have it.

    Raises:
        UsageError: the name is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"The field {text!r} is not UTF-8; no record can have it.") from None
    return text


def url_bytes(url: str) -> bytes:
    """A URL as UTF-8."""
    # A Python text may hold a lone surrogate, which UTF-8 cannot encode.
    return url.encode("utf-8", "backslashreplace")


def value_at(record: Any, path: FieldPath) -> Any:
    """The first value at a path, through lists on the way; MISSING if there is none."""
    for value in values_at(record, path):
        if value is not MISSING:
            return value
    return MISSING


def values_at(value: Any, path: FieldPath) -> Iterator[Any]:
    """The values at a path, one for each item of a list on the way; MISSING for items without it."""
    if not path:
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from values_at(item, path)
    elif isinstance(value, dict):
        yield from values_at(value.get(path[0], MISSING), path[1:])
    else:
        yield MISSING


def leaves_of(value: Any) -> Iterator[Any]:
    """The value itself; for a list its items, at any depth."""
    if isinstance(value, list):
        for item in value:
            yield from leaves_of(item)
    else:
        yield value


def class_name(value: Any) -> str | None:
    """The name of a class or group; None for null, empty text and not-a-number.

    A value has the same name in every format, so groups and classes agree in JSON, CSV, Parquet and
    MongoDB: 7, "7" and 7.0 are one.
    """
    if value is MISSING or value is None or value == "":
        return None
    if isinstance(value, str):
        # UTF-8 cannot encode a lone surrogate.
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        value = int(value) if value.is_integer() else value
    return msgspec.json.encode(value, enc_hook=str, order="deterministic").decode().strip('"')


def sites_of(record: dict[str, Any], path: FieldPath) -> list[UrlSite]:
    """The places of a record that hold its URLs. There is at least one URL.

    Raises:
        BadRecord: the record has no URL, or a value there is no URL.
    """
    sites = list(_sites(record, path))
    name = ".".join(path)
    if not sites:
        raise BadRecord(f"no field {name!r}")
    for site in sites:
        value = site.holder[site.key]
        for url in value if isinstance(value, list) else [value]:
            if not isinstance(url, str):
                raise BadRecord(f"{name!r} is {_kind(url)}, not text")
            if not url:
                raise BadRecord(f"{name!r} is empty")
    if not any(site.urls for site in sites):
        raise BadRecord(f"{name!r} is an empty list")
    return sites


def _sites(value: Any, path: Sequence[str]) -> Iterator[UrlSite]:
    if isinstance(value, list):
        for item in value:
            yield from _sites(item, path)
    elif isinstance(value, dict) and path[0] in value:
        if len(path) == 1:
            yield UrlSite(value, path[0])
        else:
            yield from _sites(value[path[0]], path[1:])


def holds_other(site: UrlSite, source: str) -> bool:
    """Whether the field for original URLs already holds something else."""
    held = site.holder.get(source)
    return not is_nothing(held) and held != site.holder[site.key]


def is_nothing(held: Any) -> bool:
    """Whether an original URL may replace this value. A label of 0 may not be replaced."""
    return held is None or held in ("", [], {})


class UrlTally(NamedTuple):
    """How many URLs below a value were removed (`lost`), and how many remain (`left`)."""

    lost: int
    left: int

    @property
    def is_gone(self) -> bool:
        return bool(self.lost and not self.left)


def replace_urls(
    record: Any, path: FieldPath, source: str, urls: Iterator[bytes | None]
) -> UrlTally:
    """Replace the URLs of a record in place, in the order of `sites_of`.

    A removed URL leaves its list. A list item that loses all its URLs leaves its list too.
    `splicing.splice` does the same to a line of JSON.

    Args:
        record: a record for which `sites_of` succeeded.
        path: of the field of the URL.
        source: the field for the original URL. It is created after the field of the URL, or filled
            if it holds nothing. If it holds a value, that is the first original URL and stays.
        urls: one for each old URL, as UTF-8; None removes it.
    """
    if isinstance(record, list):
        tallies = [replace_urls(item, path, source, urls) for item in record]
        if any(tally.lost for tally in tallies):
            record[:] = [item for item, t in zip(record, tallies, strict=True) if not t.is_gone]
        return UrlTally(sum(t.lost for t in tallies), sum(t.left for t in tallies))
    if not isinstance(record, dict) or path[0] not in record:
        return UrlTally(0, 0)
    if len(path) > 1:
        return replace_urls(record[path[0]], path[1:], source, urls)
    return _replace_in(record, path[0], source, urls)


def _replace_in(
    holder: dict[str, Any], key: str, source: str, urls: Iterator[bytes | None]
) -> UrlTally:
    value = holder[key]
    old = value if isinstance(value, list) else [value]
    new = [next(urls) for _ in old]
    kept = [i for i, url in enumerate(new) if url is not None]
    tally = UrlTally(len(old) - len(kept), len(kept))
    if not kept:
        return tally
    before = [old[i] for i in kept]
    after = [new_text(old[i], new[i]) for i in kept]
    held = holder.get(source)
    if before != after and is_nothing(held):
        _set_after(holder, key, source, before if isinstance(value, list) else before[0])
    elif tally.lost and isinstance(held, list) and len(held) == len(old):
        holder[source] = [held[i] for i in kept]  # each original stays with its URL
    holder[key] = after if isinstance(value, list) else after[0]
    return tally


def new_text(old: str, url: bytes | None) -> str:
    """The new text of a URL; the old text if the URL is unchanged."""
    assert url is not None
    return old if url == url_bytes(old) else url.decode()


def _set_after(holder: dict[str, Any], key: str, name: str, value: Any) -> None:
    if name in holder:
        holder[name] = value
        return
    items = list(holder.items())
    holder.clear()
    for each, item in items:
        holder[each] = item
        if each == key:
            holder[name] = value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else f"of type {type(value).__name__}"
