"""Mirrors for tests of the fetch layer, and fetchers with short timeouts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from mirror.config.settings import BucketSettings, FetchSettings, Settings
from mirror.fetch.engine import RequestPolicy
from mirror.fetch.http.transport import Deadlines
from mirror.layout import object_key
from mirror.store.retry import RetryPolicy
from mirror.sync.run_sync import sync
from tests.conftest import Place
from tests.support.fault_proxy import FaultProxy, Rule
from tests.support.photos import blank, fill, photo, url_of

BLANK = 99
UNKNOWN = 100
ALL = [url_of(number) for number in range(20)]
PHOTOS = {url_of(number): photo(number) for number in range(20)}

HURRY = RequestPolicy(
    retry=RetryPolicy(attempts=12, base=0.001, cap=0.02, longest_retry_after=0.02),
    deadlines=Deadlines(connect=5.0, silence=0.4, total=5.0),
)


def mirrored(place: Place, folder: Path, numbers: Iterable[int] = range(20)) -> Settings:
    """The settings of a mirror of these photos and one blank frame, with its own state."""
    fill(folder / "cache", {url_of(n): photo(n) for n in numbers} | {url_of(BLANK): blank()})
    settings = place.settings(
        cache={"dir": str(folder / "cache")}, state={"dir": str(folder / "state")}
    )
    assert sync(settings).exit_status == 0
    return without_cache(settings)


def without_cache(settings: Settings) -> Settings:
    """The settings of a machine without a URL-keyed cache."""
    return msgspec.structs.replace(
        settings, cache=msgspec.structs.replace(settings.cache, dir=None)
    )


def fetching(settings: Settings, **keys: Any) -> Settings:
    """The settings with other keys of `fetch`."""
    section: FetchSettings = msgspec.structs.replace(settings.fetch, **keys)
    return msgspec.structs.replace(settings, fetch=section)


def reached(settings: Settings, **keys: Any) -> Settings:
    """The settings with other keys of `bucket`."""
    section: BucketSettings = msgspec.structs.replace(settings.bucket, **keys)
    return msgspec.structs.replace(settings, bucket=section)


def key_of(number: int) -> str:
    """The key of a photo's object."""
    from mirror.content.digest import digest_of

    return object_key(digest_of(photo(number)).content_hash, "jpeg")


def through(proxy: FaultProxy, settings: Settings) -> Settings:
    return reached(settings, endpoint=proxy.endpoint)


def images_only(rule: Rule) -> Rule:
    """Apply the rule to objects only, so that the index can be read."""
    return lambda request: rule(request) if "/objects/" in request.path else None


# --- bytes that do not match their hash ---


def damaged(data: bytes, at: int) -> bytes:
    """The data with one bit flipped."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def lost(settings: Settings) -> None:
    """Remove the mirror."""
    path = Path(settings.bucket_url.path)
    path.rename(path.with_name("gone"))


def files_of(settings: Settings) -> list[Path]:
    assert settings.fetch.cache_dir
    return [p for p in Path(settings.fetch.cache_dir, "objects").rglob("*") if p.is_file()]
