"""A running S3 server, and its users."""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections import deque

from .sigv4 import signed_request


@dataclasses.dataclass(frozen=True)
class Identity:
    """A user of a server, with permissions.

    `actions` are SeaweedFS's own ("Read", "Write:bucket", "Admin"…); Write includes delete.
    `policy` is an AWS policy document as JSON, for finer permissions. SeaweedFS grants an action if
    either of them does.
    """

    name: str
    access_key: str
    secret_key: str = dataclasses.field(repr=False)
    actions: tuple[str, ...] = ()
    policy: str = ""


@dataclasses.dataclass(frozen=True)
class S3Server:
    """Address and credentials of a server. `bucket` exists and was empty when the server started.

    The server lives for the whole session. A test that needs an empty place uses its own prefix or a
    `fresh_bucket`.
    """

    name: str
    endpoint: str
    region: str
    access_key: str
    secret_key: str = dataclasses.field(repr=False)
    bucket: str
    admin: Identity
    public_endpoint: str = ""  # empty if reading always needs credentials
    spare_buckets: deque[str] | None = dataclasses.field(default=None, repr=False)

    def environment(self) -> dict[str, str]:
        """Variables for the standard AWS chain, without the user's own files and a metadata service.

        The caller removes AWS_PROFILE and AWS_SESSION_TOKEN, because no value means "unset".
        """
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def acting_as(self, identity: Identity) -> S3Server:
        """The same server for another user. `fresh_bucket` still acts as the admin."""
        return dataclasses.replace(
            self, access_key=identity.access_key, secret_key=identity.secret_key
        )

    def fresh_bucket(self) -> str:
        """The name of a new, empty bucket.

        A server without CreateBucket returns the next of its initial buckets. A copy of this object in
        another process would return the same ones again.
        """
        if self.spare_buckets is not None:
            if not self.spare_buckets:
                raise RuntimeError(f"{self.name} has no fresh bucket left: start it with more")
            return self.spare_buckets.popleft()
        bucket = f"mirror-{secrets.token_hex(6)}"
        status = self.request("PUT", f"/{bucket}")
        if status != 200:
            raise RuntimeError(f"{self.name} answered {status} to CreateBucket")
        return bucket

    def public_url(self, bucket: str) -> str:
        """The URL for readers without credentials: the `public_url` of the settings."""
        if not self.public_endpoint:
            raise RuntimeError(f"{self.name} has no public reads")
        return f"{self.public_endpoint}/{bucket}"

    def request(self, method: str, path: str, body: bytes = b"") -> int:
        """Send one request as the admin, without a client library. Returns the status."""
        return signed_request(
            method,
            self.endpoint + path,
            body,
            access_key=self.admin.access_key,
            secret_key=self.admin.secret_key,
            region=self.region,
        )
