"""Where a record holds what: dotted paths into nested objects and lists. Pure.

`photos.url` means the field `url` of the object in `photos`, or of each object where `photos` is a
list of them.
"""

from __future__ import annotations

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


class Site(NamedTuple):
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
        UsageError: a piece between dots is empty.
    """
    path = tuple(text.split("."))
    if not all(path):
        raise UsageError(f"The field {text!r} has an empty piece; write NAME or OUTER.INNER.")
    return path


def value_at(record: Any, path: FieldPath) -> Any:
    """The value at a path; of a list on the way, the first that has it; else MISSING."""
    return next(_values(record, path), MISSING)


def _values(value: Any, path: Sequence[str]) -> Iterator[Any]:
    if not path:
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _values(item, path)
    elif isinstance(value, dict) and path[0] in value:
        yield from _values(value[path[0]], path[1:])


def class_name(value: Any) -> str | None:
    """The class that a field's value names: text as it is, anything else as JSON, nothing as None."""
    if value is MISSING or value is None or value == "":
        return None
    return value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()


def sites_of(record: dict[str, Any], path: FieldPath) -> list[Site]:
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


def _sites(value: Any, path: Sequence[str]) -> Iterator[Site]:
    if isinstance(value, list):
        for item in value:
            yield from _sites(item, path)
    elif isinstance(value, dict) and path[0] in value:
        if len(path) == 1:
            yield Site(value, path[0])
        else:
            yield from _sites(value[path[0]], path[1:])


def holds_other(site: Site, source: str) -> bool:
    """Does the field that an original URL would go to hold something else already?"""
    held = site.holder.get(source)
    return bool(held) and held != site.holder[site.key]


def replace_urls(
    record: dict[str, Any], path: FieldPath, source: str, urls: Iterator[str | None]
) -> None:
    """Put new URLs in the places of the old, in the order of `sites_of`; in place.

    Args:
        record: of which `sites_of` told the places.
        path: of the URL field.
        source: the field that gets the original, right after the URL's, unless it holds something.
        urls: one for each old one; None takes it out of its list.
    """
    dead: set[int] = set()
    for holder, key in _sites(record, path):
        old = holder[key]
        if isinstance(old, list):
            pairs = [(before, after) for before in old if (after := next(urls)) is not None]
            kept: Any = [before for before, _ in pairs]
            new: Any = [after for _, after in pairs]
        else:
            kept, new = old, next(urls)
        if new is None or new == []:
            dead.add(id(holder))
        elif new != kept:
            _set_beside(holder, key, new, source, kept)
    _prune(record, path, dead)


def _set_beside(holder: dict[str, Any], key: str, value: Any, beside: str, original: Any) -> None:
    if holder.get(beside):  # what it holds is the original's original: a mirror's URL is replaced
        holder[key] = value
        return
    items = list(holder.items())
    holder.clear()
    for name, item in items:
        if name == key:
            # the dict's own key object: it may know how it was spelled
            holder[name] = value
            holder[beside] = original
        elif name != beside:
            holder[name] = item


def _prune(value: Any, path: Sequence[str], dead: set[int]) -> None:
    """Take objects without a URL left out of the lists that hold them."""
    if not dead or not path:
        return
    if isinstance(value, list):
        value[:] = [item for item in value if id(item) not in dead]
        for item in value:
            _prune(item, path, dead)
    elif isinstance(value, dict) and path[0] in value:
        _prune(value[path[0]], path[1:], dead)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"
