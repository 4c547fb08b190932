"""The URLs that objects are read from: below the public URL if there is one, else signed.

URLs are signed in batches, shortly before they are used, and not kept. Signed one by one they cost
three times as much. An image is read once an epoch, and the signatures of 900,000 images would take
half a gigabyte in every process.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from mirror.config.settings import Settings
from mirror.store.s3_access import S3Access
from mirror.store.signing import Signer
from mirror.store.throttle import Clock
from mirror.system.clock import since_boot
from mirror.urls import ObjectUrls

_LIFETIME: Final = timedelta(hours=1)
# Seconds after which a prepared URL is not used any more: temporary credentials may expire first.
_MAX_AGE: Final = 300.0
# Prepared URLs to hold at most: URLs of cancelled requests are never used.
_MAX_PREPARED: Final = 16_384


class PublicUrls:
    """URLs below `bucket.public_url`."""

    def __init__(self, urls: ObjectUrls) -> None:
        self.base = urls.base("public")

    def prepare(self, keys: Sequence[str]) -> None:
        """Nothing to prepare."""

    def of(self, key: str) -> str:
        return self.base + key


class SignedUrls:
    """URLs that read an object for an hour, signed with the credentials of the AWS chain.

    Args:
        settings: where the bucket is.
        clock: seconds, including those of a sleeping machine: signatures age while it sleeps.

    Attributes:
        base: the common prefix of all URLs.

    Raises:
        BadCredentials: the AWS chain has no credentials.
    """

    def __init__(self, settings: Settings, clock: Clock = since_boot) -> None:
        self._clock = clock
        self._signer = Signer(S3Access(settings.bucket_url, settings.bucket))
        self._prepared: dict[str, tuple[str, float]] = {}
        # Taken from a signed URL: on AWS, the signer chooses among several hosts.
        self.base = self.of("-").partition("?")[0].removesuffix("-")

    def prepare(self, keys: Sequence[str]) -> None:
        """Sign the URLs of keys that are about to be read. For any thread."""
        if len(self._prepared) + len(keys) > _MAX_PREPARED:
            self._prepared.clear()
        now = self._clock()
        urls = self._signer.sign(keys, _LIFETIME)
        self._prepared.update(zip(keys, [(url, now) for url in urls], strict=True))

    def of(self, key: str) -> str:
        url, signed_at = self._prepared.pop(key, ("", float("-inf")))
        if self._clock() - signed_at < _MAX_AGE:
            return url
        return self._signer.sign((key,), _LIFETIME)[0]


RequestUrls = PublicUrls | SignedUrls


def request_urls(settings: Settings) -> RequestUrls:
    """The URLs to read a mirror in a bucket with.

    Raises:
        BadCredentials: there is no public URL, and there are no credentials to sign with.
    """
    urls = settings.object_urls
    return PublicUrls(urls) if urls.public_url else SignedUrls(settings)
