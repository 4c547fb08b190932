"""Presigned URLs in bulk: what reads an object for a while without credentials of the reader's.

obstore signs without a request, at a small part of botocore's cost, and unlike its transfers it works in
a forked child, where a training's workers live.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from mirror.errors import ConfigError, UsageError
from mirror.store.s3_access import Credentials, S3Access
from mirror.urls import ObjectUrls

if TYPE_CHECKING:
    from obstore.store import S3Credential

MIN_LIFE: Final = timedelta(seconds=1)
MAX_LIFE: Final = timedelta(days=7)


class Signer:
    """Signs GET URLs of one mirror's keys. Cheap to make; may be made before a fork or after it.

    Args:
        access: where the bucket is and who signs.

    Raises:
        ConfigError: the mirror is in a folder, or `bucket.endpoint` is not a plain web address.
    """

    def __init__(self, access: S3Access) -> None:
        if access.url.scheme != "s3":
            raise ConfigError(
                "A mirror in a folder has no presigned URLs: choose file URLs, "
                "or set bucket.url to s3://BUCKET/PREFIX."
            )
        # obstore would sign for an endpoint without a scheme, or with a password in it, all the same.
        ObjectUrls(access.url, access.endpoint)
        self._access = access
        self._opened: tuple[Credentials, S3Store] | None = None

    def sign(self, keys: Sequence[str], expires: timedelta) -> list[str]:
        """URLs that read the keys until they expire, in the keys' order. No request is sent.

        With temporary credentials a URL dies when they do: see `temporary`, `credentials_expire`.
        A client must send a URL as it stands (with aiohttp, as `yarl.URL(url, encoded=True)`): some
        servers take another encoding of an odd prefix for another path, and refuse the signature.

        Args:
            keys: relative to the mirror's prefix; thousands at a time cost the least.
            expires: from now, 1 second to 7 days, in whole seconds.

        Raises:
            UsageError: `expires` is outside these limits.
            ConfigError: the host of `bucket.endpoint` cannot be one.
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
        """When the credentials die, with a time zone; None where they do not or it is not known."""
        self._access.credentials()  # a role's are fetched only now
        # botocore keeps the hour to itself; the attribute is absent from lasting credentials.
        known = getattr(self._access.session.get_credentials(), "_expiry_time", None)
        return known if isinstance(known, datetime) else None

    def _store(self) -> S3Store:
        """Made once, and again when the credentials are new ones."""
        credentials = self._access.credentials()
        if self._opened is None or self._opened[0] != credentials:
            self._opened = credentials, _open(self._access, credentials)
        return self._opened[1]


def _open(access: S3Access, credentials: Credentials) -> S3Store:
    # Through a provider: obstore completes keys that it is given outright with AWS_SESSION_TOKEN
    # from the environment, which may belong to other keys.
    def provide() -> S3Credential:
        return {
            "access_key_id": credentials.access_key,
            "secret_access_key": credentials.secret_key,
            "token": credentials.token,
            "expires_at": None,
        }

    return S3Store(
        access.url.bucket,
        prefix=access.url.path or None,
        region=access.region,
        aws_endpoint_url_s3=access.address,
        virtual_hosted_style_request=False,
        credential_provider=provide,
    )
