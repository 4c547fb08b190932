"""What a test knows of a running S3 server."""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections import deque

from .sigv4 import signed_request


@dataclasses.dataclass(frozen=True)
class Identity:
    """Someone a server lets in, and what they may do.

    `actions` are SeaweedFS's own ("Read", "Write:bucket", "Admin"…), where Write includes delete.
    `policy` is an AWS policy document as JSON, for anything finer. SeaweedFS grants what either
    grants.
    """

    name: str
    access_key: str
    secret_key: str = dataclasses.field(repr=False)
    actions: tuple[str, ...] = ()
    policy: str = ""


@dataclasses.dataclass(frozen=True)
class S3Server:
    """Where a server is and how to get in; `bucket` exists and was empty when the server started.

    Session-wide: a test that cares what else is in a bucket takes a prefix of its own or a
    `fresh_bucket`.
    """

    name: str
    endpoint: str
    region: str
    access_key: str
    secret_key: str = dataclasses.field(repr=False)
    bucket: str
    admin: Identity
    public_endpoint: str = ""  # empty where nothing can be read without credentials
    spare_buckets: deque[str] | None = dataclasses.field(default=None, repr=False)

    def environment(self) -> dict[str, str]:
        """The standard AWS chain, closed to the user's own files and to a metadata service.

        The caller removes AWS_PROFILE and AWS_SESSION_TOKEN: no value of theirs means "unset".
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
        """The same server for someone else; `fresh_bucket` goes on being the admin's doing."""
        return dataclasses.replace(
            self, access_key=identity.access_key, secret_key=identity.secret_key
        )

    def fresh_bucket(self) -> str:
        """The name of a new, empty bucket.

        A server without CreateBucket gives the next of those it was started with: a copy of this
        object in another process would give the same ones again.
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
        """Where readers without credentials see the bucket; the `public_url` of the settings."""
        if not self.public_endpoint:
            raise RuntimeError(f"{self.name} has no public reads")
        return f"{self.public_endpoint}/{bucket}"

    def request(self, method: str, path: str, body: bytes = b"") -> int:
        """The status of one request made as the admin, for set-up without a client library."""
        return signed_request(
            method,
            self.endpoint + path,
            body,
            access_key=self.admin.access_key,
            secret_key=self.admin.secret_key,
            region=self.region,
        )
