"""Where a record holds what: dotted paths into nested objects and lists. Pure.

`photos.url` means the field `url` of the object in `photos`, or of each object where `photos` is a
list of them.
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
"""What `value_at` gives for a record that does not have the field."""


class BadRecord(Exception):
    """A record whose URL cannot be told. Its message is the reason."""


class UrlSite(NamedTuple):
    """A place that holds URLs: `holder[key]` is one URL or a list of them."""

    holder: dict[str, Any]
    key: str

    @property
    def urls(self) -> list[str]:
        value = self.holder[self.key]
        return value if isinstance(value, list) else [value]


def parse_path(text: str) -> FieldPath:
    """The path that a dotted text names.

    Raises:
        UsageError: a piece between dots is empty, or it is no text.
    """
    path = tuple(check_name(text).split("."))
    if not all(path):
        raise UsageError(f"The field {text!r} has an empty piece; write NAME or OUTER.INNER.")
    return path


def check_name(text: str) -> str:
    """The name of a field.

    Raises:
        UsageError: it is not UTF-8 on the command line, so no field can have it.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"The field {text!r} is not UTF-8; no record can have it.") from None
    return text


def url_bytes(url: str) -> bytes:
    """A URL as UTF-8."""
    # A lone surrogate is no character, so no UTF-8; a text in Python may hold one all the same.
    return url.encode("utf-8", "backslashreplace")


def value_at(record: Any, path: FieldPath) -> Any:
    """The value at a path; of a list on the way, the first that has it; else MISSING."""
    for value in values_at(record, path):
        if value is not MISSING:
            return value
    return MISSING


def values_at(value: Any, path: FieldPath) -> Iterator[Any]:
    """The values at a path, one for each item of a list on the way: MISSING for one without."""
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
    """A value itself; of a list what is in it, however deep."""
    if isinstance(value, list):
        for item in value:
            yield from leaves_of(item)
    else:
        yield value


def class_name(value: Any) -> str | None:
    """A value as text; None where there is none: null, empty, no number at all.

    A value has one name however a format spells it, so that groups and classes are the same in
    JSON, CSV, Parquet and MongoDB: 7, "7" and 7.0.
    """
    if value is MISSING or value is None or value == "":
        return None
    if isinstance(value, str):
        # A lone surrogate is no character, so no UTF-8.
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        value = int(value) if value.is_integer() else value
    return msgspec.json.encode(value, enc_hook=str, order="deterministic").decode().strip('"')


def sites_of(record: dict[str, Any], path: FieldPath) -> list[UrlSite]:
    """The places of a record that hold its URLs, at least one, with at least one URL.

    Raises:
        BadRecord: there is none, or what is there is no URL.
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
    """Does the field that an original URL would go to hold something else already?"""
    held = site.holder.get(source)
    return not is_nothing(held) and held != site.holder[site.key]


def is_nothing(held: Any) -> bool:
    """May an original URL take this value's place? A label of 0 is something."""
    return held is None or held in ("", [], {})


class UrlTally(NamedTuple):
    """Of the URLs below a value: how many were taken out, and how many are there."""

    lost: int
    left: int

    @property
    def is_gone(self) -> bool:
        return bool(self.lost and not self.left)


def replace_urls(
    record: Any, path: FieldPath, source: str, urls: Iterator[bytes | None]
) -> UrlTally:
    """Put new URLs in the places of the old, in the order of `sites_of`; in place.

    A URL that is taken out leaves its list; the item of a list that has lost all its URLs leaves
    that list. `splicing.splice` does the same to a line of JSON.

    Args:
        record: of which `sites_of` told the places.
        path: of the URL field.
        source: the field for the original: where it stands if it holds nothing, else it is made
            right after the URL's; if it holds something, that is the original's original and stays.
        urls: one for each old one, as UTF-8; None takes it out.
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
    kept = [at for at, url in enumerate(new) if url is not None]
    tally = UrlTally(len(old) - len(kept), len(kept))
    if not kept:
        return tally
    before = [old[at] for at in kept]
    after = [new_text(old[at], new[at]) for at in kept]
    held = holder.get(source)
    if before != after and is_nothing(held):
        _set_after(holder, key, source, before if isinstance(value, list) else before[0])
    elif tally.lost and isinstance(held, list) and len(held) == len(old):
        holder[source] = [held[at] for at in kept]  # each original stays with its URL
    holder[key] = after if isinstance(value, list) else after[0]
    return tally


def new_text(old: str, url: bytes | None) -> str:
    """A URL's new text; the old one where it stays as it is."""
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
