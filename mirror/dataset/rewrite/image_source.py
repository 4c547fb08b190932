"""Where a rewrite looks images up, and what their new URLs are: a mirror, or a cache folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mirror.catalog.lookup import UrlLookup
from mirror.config.settings import Settings
from mirror.dataset.rewrite.emit import NewUrls
from mirror.dataset.rewrite.rewrite_options import ImageOptions, UrlScheme
from mirror.errors import UsageError
from mirror.run.progress import Progress

if TYPE_CHECKING:
    from mirror.store.signing import Signer

_FAILURES_SHOWN: Final = 20


@dataclass
class ImageSource:
    """Images to rewrite to.

    Attributes:
        lookup: finds images by their URLs.
        new_urls: gives their new URLs; None leaves URLs unchanged.
        warnings: sentences for the report.
        unreadable: files of the cache that could not be read.
    """

    lookup: UrlLookup
    new_urls: NewUrls | None
    warnings: list[str] = field(default_factory=list)
    unreadable: int = 0


def scheme_of(settings: Settings, images: ImageOptions) -> UrlScheme | None:
    """The scheme of the new URLs; None if URLs stay unchanged.

    Raises:
        UsageError: a cache folder has no URLs of the scheme.
        ConfigError: no mirror is configured.
    """
    scheme = images.scheme
    if not images.cached_only:
        return scheme or settings.object_urls.default_scheme
    if scheme in (None, "file"):
        return scheme
    raise UsageError(f"A cache has no {scheme} URLs: leave --scheme out, or choose --scheme file.")


def open_image_source(
    settings: Settings, images: ImageOptions, scheme: UrlScheme | None, progress: Progress
) -> ImageSource:
    """Open the mirror's index, or inspect the cache folder.

    Args:
        settings: where the mirror or the cache is.
        images: how to look images up.
        scheme: of the new URLs, as `scheme_of` gives it.
        progress: receives the inspection of a cache.

    Raises:
        UsageError: the lifetime of presigned URLs is out of its range.
        ConfigError: the mirror has no URLs of the scheme.
        MirrorError: there is no mirror, or it cannot be read.
        CacheError: the cache folder cannot be read.
    """
    if scheme is None or images.cached_only:
        return _cached(settings, images, scheme, progress)
    from mirror.catalog.open_mirror import read_index

    if scheme == "presigned":
        sign, warnings = _signing(settings, images.expires_days)
        lookup = UrlLookup(read_index(settings)[1], images.match, images.min_side)
        return ImageSource(lookup, lambda at: sign(lookup.object_keys(at)), warnings)
    base = settings.object_urls.base(scheme).encode()
    lookup = UrlLookup(read_index(settings)[1], images.match, images.min_side)
    return ImageSource(lookup, lambda at: lookup.object_keys(at, base))


def _cached(
    settings: Settings, images: ImageOptions, scheme: UrlScheme | None, progress: Progress
) -> ImageSource:
    from mirror.catalog.index.cached_images import CachedImages
    from mirror.inspection.inspect_cache import inspect_cache, inspection_arguments

    arguments = inspection_arguments(settings, images.level)
    with inspect_cache(**arguments, progress=progress) as findings:
        cached = CachedImages(settings.cache_dir, findings)
    for path, reason in findings.failures[:_FAILURES_SHOWN]:
        progress.say(f"{path} cannot be read and counts as missing: {reason}", "warning")
    if (more := findings.failed - _FAILURES_SHOWN) > 0:
        progress.say(f"{more:,} more files cannot be read and count as missing.", "warning")
    lookup = UrlLookup(cached.index, images.match, images.min_side, of_mirror=False)
    new_urls = cached.file_urls if scheme == "file" else None
    return ImageSource(lookup, new_urls, unreadable=findings.failed)


def _signing(
    settings: Settings, days: float
) -> tuple[Callable[[list[bytes]], list[bytes]], list[str]]:
    """A function that signs keys, and a warning if its URLs may die before they expire."""
    from mirror.store.s3_access import S3Access
    from mirror.store.signing import Signer

    signer = Signer(S3Access(settings.bucket_url, settings.bucket))
    try:
        lifetime = timedelta(seconds=round(days * 86_400))
    except (ValueError, OverflowError):  # not a number, or too large for a date
        raise UsageError("--expires must be a number of days, at most 7.") from None
    # A wrong lifetime or missing credentials are reported now, not after a million records.
    signer.sign([], lifetime)

    def sign(keys: list[bytes]) -> list[bytes]:
        return [url.encode() for url in signer.sign([key.decode() for key in keys], lifetime)]

    return sign, _lifetime_warnings(signer)


def _lifetime_warnings(signer: Signer) -> list[str]:
    if not signer.temporary:
        return []
    expiry = signer.credentials_expire
    when = f" at {expiry:%Y-%m-%d %H:%M} UTC" if expiry is not None else ""
    warning = (
        f"The credentials are temporary, and presigned URLs expire with them{when}: "
        "use permanent credentials, or rewrite to public URLs."
    )
    return [warning]
