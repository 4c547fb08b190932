"""Where an object is asked for: under the public URL where there is one, else under a signed one.

A signature is made when its request is sent, and not kept: it costs 20 µs, cannot have expired, and
a training asks for an object once an epoch. Those of 900,000 would take half a gigabyte in every
process.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from mirror.config import Settings
from mirror.store.control import S3Access
from mirror.store.signing import Signer
from mirror.urls import ObjectUrls

_LIFE: Final = timedelta(hours=1)


class PublicUrls:
    """`bucket.public_url` and a key."""

    def __init__(self, urls: ObjectUrls) -> None:
        self.base = urls.base("public")

    def of(self, key: str) -> str:
        return self.base + key


class SignedUrls:
    """URLs that read an object for an hour, signed with the AWS chain's credentials.

    Attributes:
        base: what all of them begin with.

    Raises:
        BadCredentials: the chain has none.
    """

    def __init__(self, settings: Settings) -> None:
        self._signer = Signer(S3Access(settings.bucket_url, settings.bucket))
        # Asked of what signs: on AWS it is the one that chooses among several hosts.
        self.base = self.of("-").partition("?")[0].removesuffix("-")

    def of(self, key: str) -> str:
        return self._signer.sign((key,), _LIFE)[0]


Addresses = PublicUrls | SignedUrls


def addresses_of(settings: Settings) -> Addresses:
    """How a mirror in a bucket is read.

    Raises:
        BadCredentials: it has no public URL, and there is nobody to sign.
    """
    urls = settings.object_urls
    return PublicUrls(urls) if urls.public_url else SignedUrls(settings)
