"""Presigned URLs in bulk. A reader needs no credentials until they expire.

obstore signs without a request, at a small part of botocore's cost. Unlike its transfers, signing works
in a forked child, such as a worker of a training.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import BaseError

from mirror.errors import ConfigError, UsageError
from mirror.store.engines.obstore import credential_of, open_s3_store
from mirror.store.s3_access import Credentials, S3Access
from mirror.urls import ObjectUrls

if TYPE_CHECKING:
    from obstore.store import S3Store

MIN_LIFE: Final = timedelta(seconds=1)
MAX_LIFE: Final = timedelta(days=7)


class Signer:
    """Signs GET URLs for keys of one mirror. It is cheap to make, before or after a fork.

    Args:
        access: where the bucket is, and the credentials to sign with.

    Raises:
        ConfigError: the mirror is in a folder, or `bucket.endpoint` is not a plain web address.
    """

    def __init__(self, access: S3Access) -> None:
        if access.url.scheme != "s3":
            raise ConfigError(
                "A mirror in a folder has no presigned URLs: choose file URLs, "
                "or set bucket.url to s3://BUCKET/PREFIX."
            )
        # obstore would also sign for an endpoint without a scheme, or with a password.
        ObjectUrls(access.url, access.endpoint)
        self._access = access
        self._opened: tuple[Credentials, S3Store] | None = None

    def sign(self, keys: Sequence[str], expires: timedelta) -> list[str]:
        """Sign URLs that read the keys until they expire. No request is sent.

        URLs signed with temporary credentials stop working when the credentials expire: see
        `temporary` and `credentials_expire`. A client must send a URL unchanged (with aiohttp, as
        `yarl.URL(url, encoded=True)`). Some servers take another encoding of an unusual prefix for
        another path, and refuse the signature.

        Args:
            keys: relative to the mirror's prefix. Signing thousands at a time costs the least.
            expires: time from now, 1 second to 7 days, in whole seconds.

        Returns:
            One URL for each key, in the same order.

        Raises:
            UsageError: `expires` is outside these limits.
            ConfigError: `bucket.endpoint` has an impossible host.
            BadCredentials: the AWS chain has none, or its provider fails.
        """
        if not MIN_LIFE <= expires <= MAX_LIFE:
            raise UsageError(
                f"A presigned URL lives between 1 second and 7 days, not {expires}: "
                "ask for a time in between, or rewrite to public URLs, which do not expire."
            )
        try:
            return list(obstore.sign(self._store(), "GET", list(keys), expires))
        except (BaseError, ValueError):
            raise ConfigError(
                "URLs cannot be signed with these settings: "
                "write bucket.endpoint as https://HOST[:PORT][/PATH]."
            ) from None

    @property
    def temporary(self) -> bool:
        """Whether the credentials are temporary, so that URLs may die before they expire."""
        return self._access.credentials().token is not None

    @property
    def credentials_expire(self) -> datetime | None:
        """When the credentials expire, with a time zone; None where they do not, or that is unknown."""
        self._access.credentials()  # fetches those of a role
        # botocore does not publish the time. Permanent credentials lack the attribute.
        known = getattr(self._access.session.get_credentials(), "_expiry_time", None)
        return known if isinstance(known, datetime) else None

    def _store(self) -> S3Store:
        """The store to sign with, opened again when the credentials change."""
        credentials = self._access.credentials()
        if self._opened is None or self._opened[0] != credentials:
            store = open_s3_store(self._access, lambda: credential_of(credentials))
            self._opened = credentials, store
        return self._opened[1]
