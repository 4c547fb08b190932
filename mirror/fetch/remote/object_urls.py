"""Where an object is asked for: under the public URL where there is one, else under a signed one.

URLs are signed many at a time, shortly before they are asked for, and not kept: one by one they cost
three times as much; a training asks for an object once an epoch, and the signatures of 900,000 would
take half a gigabyte in every process.
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

_LIFE: Final = timedelta(hours=1)
# Seconds in which a URL that was signed ahead is used; temporary credentials die meanwhile.
_FRESH: Final = 300.0
# URLs that were signed ahead, at most: those of orders that were given up are not asked for.
_AHEAD: Final = 16_384


class PublicUrls:
    """`bucket.public_url` and a key."""

    def __init__(self, urls: ObjectUrls) -> None:
        self.base = urls.base("public")

    def expect(self, keys: Sequence[str]) -> None:
        """These will be asked for soon."""

    def of(self, key: str) -> str:
        return self.base + key


class SignedUrls:
    """URLs that read an object for an hour, signed with the AWS chain's credentials.

    Args:
        settings: where the bucket is.
        clock: seconds, those of a sleeping machine, too: signatures age meanwhile.

    Attributes:
        base: what all of them begin with.

    Raises:
        BadCredentials: the chain has none.
    """

    def __init__(self, settings: Settings, clock: Clock = since_boot) -> None:
        self._clock = clock
        self._signer = Signer(S3Access(settings.bucket_url, settings.bucket))
        self._ahead: dict[str, tuple[str, float]] = {}
        # Asked of what signs: on AWS it is the one that chooses among several hosts.
        self.base = self.of("-").partition("?")[0].removesuffix("-")

    def expect(self, keys: Sequence[str]) -> None:
        """These will be asked for soon. For any thread."""
        if len(self._ahead) + len(keys) > _AHEAD:
            self._ahead.clear()
        now = self._clock()
        urls = self._signer.sign(keys, _LIFE)
        self._ahead.update(zip(keys, [(url, now) for url in urls], strict=True))

    def of(self, key: str) -> str:
        url, signed_at = self._ahead.pop(key, ("", float("-inf")))
        if self._clock() - signed_at < _FRESH:
            return url
        return self._signer.sign((key,), _LIFE)[0]


Addresses = PublicUrls | SignedUrls


def addresses_of(settings: Settings) -> Addresses:
    """How a mirror in a bucket is read.

    Raises:
        BadCredentials: it has no public URL, and there is nobody to sign.
    """
    urls = settings.object_urls
    return PublicUrls(urls) if urls.public_url else SignedUrls(settings)
