"""Access to an S3 bucket by boto3: credentials, region, and explanations of failures.

Bulk bytes take the engines instead.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from mirror.config.settings import BucketSettings
from mirror.errors import (
    BadCredentials,
    BucketMissing,
    StoreError,
    WrongRegion,
)
from mirror.layout import BucketUrl
from mirror.store.responses import error_from, untrusted
from mirror.store.unreachable import unreachable
from mirror.system.http_headers import retry_after_seconds
from mirror.system.lazy import lazy
from mirror.system.proxies import proxy_for

CONNECT_SECONDS = 10
READ_SECONDS = 60
# For a whole request with its body and its answer.
REQUEST_SECONDS = 300
_REFUSED = re.compile(r"certificate verify failed: ([^(\]]+?) *\(")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials at one moment. `repr` hides the secret parts."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)


# With one of these set, botocore must find the credentials.
_NEED_BOTOCORE: Final = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CREDENTIAL_EXPIRATION")


class S3Access:
    """A bucket's address, region and credentials. Credentials are found once and refresh themselves.

    Args:
        url: an `s3://` bucket url.
        settings: endpoint and region. An absent region comes from the AWS configuration.
    """

    def __init__(self, url: BucketUrl, settings: BucketSettings) -> None:
        self.url = url
        self.endpoint = settings.endpoint.rstrip("/") if settings.endpoint else None
        self._region = settings.region

    @lazy
    def session(self) -> Any:
        import boto3
        from botocore.exceptions import ProfileNotFound

        try:
            return boto3.session.Session()
        except ProfileNotFound as error:
            raise BadCredentials(f"{error}; correct AWS_PROFILE or ~/.aws/config.") from None

    @property
    def prefix(self) -> str:
        """The prefix of the mirror's keys in the bucket: empty, or ending with `/`."""
        return f"{self.url.path}/" if self.url.path else ""

    @property
    def region(self) -> str:
        default = "auto" if self.endpoint else "us-east-1"
        return str(self._region or self.session.region_name or default)

    @property
    def address(self) -> str:
        """The server's address: `endpoint`, or AWS in the region.

        obstore and deltalake always get it, under the name that is the strongest for them.
        """
        return self.endpoint or f"https://s3.{self.region}.amazonaws.com"

    @property
    def allow_http(self) -> bool:
        return bool(self.endpoint and self.endpoint.startswith("http://"))

    @property
    def proxy(self) -> str | None:
        """The proxy for requests to the server. Raises: ConfigError if it does not speak HTTP."""
        return proxy_for(self.address, os.environ)

    def credentials(self) -> Credentials:
        """The credentials at this moment. Those of a role are renewed before they expire.

        Raises:
            BadCredentials: the AWS chain has none, or its provider fails.
        """
        if (found_in_environment := _environment_credentials()) is not None:
            return found_in_environment
        with _chain():
            found = self._provider and self._provider.get_frozen_credentials()
        if not found or not found.access_key:
            raise BadCredentials(
                "No credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or AWS_PROFILE, or run where a role gives them."
            )
        return Credentials(found.access_key, found.secret_key, found.token)

    @lazy
    def _provider(self) -> Any:
        with _chain():
            return self.session.get_credentials()

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments of a botocore S3 client that works on AWS, R2 and the others."""
        from botocore.config import Config

        return {
            "endpoint_url": self.endpoint,
            "region_name": self.region,
            "verify": _authorities(),
            "config": Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"total_max_attempts": 1},
                # botocore may choose an older version, which R2 and newer AWS regions refuse.
                signature_version="s3v4",
                s3={"addressing_style": "path" if self.endpoint else "auto"},
                # R2 refuses the CRC32 trailers that boto3 adds by default.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                # The settings include the environment's endpoint; no other engine reads one from
                # ~/.aws/config.
                ignore_configured_endpoint_urls=True,
                proxies={urlsplit(self.address).scheme: self.proxy} if self.proxy else {},
            ),
        }

    def client(self) -> Any:
        """Make a boto3 S3 client.

        Raises:
            BadCredentials: the AWS chain has none, or its provider fails.
        """
        self.credentials()
        client = self.session.client("s3", **self.client_options())
        client.meta.events.register("before-call.s3", drop_expect_header)
        return client


@contextlib.contextmanager
def _chain() -> Iterator[None]:
    """Translate errors of the AWS chain: a refused role, a bad token file, a bad date."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, RuntimeError, ValueError, OSError) as error:
        raise chain_failed(error) from None


def chain_failed(error: Exception) -> BadCredentials:
    """The error for an AWS chain that fails to provide credentials."""
    return BadCredentials(
        f"The AWS credential chain failed: {str(error).rstrip('.')}; renew the credentials (aws sso "
        "login, where they come from it), or correct AWS_PROFILE or the AWS_* environment."
    )


def _environment_credentials() -> Credentials | None:
    """Read plain keys from the environment, where botocore's chain would look first.

    This avoids the import of botocore, which costs as much as a run that finds nothing changed.
    Profiles, keys that expire and incomplete pairs are left to botocore: the result is then None.
    """
    get = os.environ.get
    key, secret = get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")
    if not key or not secret or any(map(get, _NEED_BOTOCORE)):
        return None
    return Credentials(key, secret, get("AWS_SECURITY_TOKEN") or get("AWS_SESSION_TOKEN") or None)


def _authorities() -> str | None:
    """The file of trusted certificate authorities; None leaves the choice to botocore.

    obstore, deltalake and the fetch layer read SSL_CERT_FILE, so one variable serves all.
    """
    return None if os.environ.get("AWS_CA_BUNDLE") else os.environ.get("SSL_CERT_FILE") or None


def drop_expect_header(params: dict[str, Any], **_: object) -> None:
    """Remove `Expect: 100-continue`: a server that ignores it costs a second per PUT."""
    params["headers"].pop("Expect", None)


def translate_botocore(error: Exception, what: str) -> StoreError:
    """Translate an error of botocore into one of ours.

    Args:
        error: a ClientError or any other BotoCoreError.
        what: the request in words.
    """
    from botocore import exceptions as theirs

    if isinstance(error, theirs.ClientError):
        response = error.response
        detail = response.get("Error", {})
        meta = response.get("ResponseMetadata", {})
        status = int(meta.get("HTTPStatusCode", 0))
        code = str(detail.get("Code", ""))
        return error_from(
            status,
            "" if code == str(status) else code,
            what,
            str(detail.get("Message", "")),
            retry_after_seconds(meta.get("HTTPHeaders", {}).get("retry-after")),
        )
    if isinstance(
        error,
        (
            theirs.CredentialRetrievalError,
            theirs.NoAuthTokenError,
            theirs.NoCredentialsError,
            theirs.PartialCredentialsError,
            theirs.RefreshWithMFAUnsupportedError,
            theirs.SSOError,
            theirs.TokenRetrievalError,
            theirs.UnknownCredentialError,
        ),
    ):
        return chain_failed(error)
    if isinstance(error, theirs.ParamValidationError):
        return StoreError(
            f"{what}: botocore refuses to send this request ({' '.join(str(error).split())})."
        )
    if isinstance(error, theirs.SSLError) and (why := _REFUSED.search(str(error))):
        return untrusted(what, why[1])
    # All other errors that botocore raises on the way to a server come from the network.
    proxy = error.kwargs["proxy_url"] if isinstance(error, theirs.ProxyConnectionError) else None
    cause = f"{error} {getattr(error, 'kwargs', {}).get('error', '')}"
    address = "" if proxy is None else str(proxy)
    return unreachable(what, cause.replace(address, "") if address else cause, "", proxy)


def explain(access: S3Access, error: StoreError) -> StoreError:
    """Find a clearer error for a failed first request, by one HeadBucket.

    HEAD answers and redirects carry no message, and engines differ in what they pass on. HeadBucket
    tells a missing bucket, a wrong region and a wrong key apart.

    Returns:
        The clearer error, or `error` itself where HeadBucket says no more.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    bucket = access.url.bucket
    try:
        access.client().head_bucket(Bucket=bucket)
    except ClientError as refusal:
        meta = refusal.response.get("ResponseMetadata", {})
        status = int(meta.get("HTTPStatusCode", 0))
        region = meta.get("HTTPHeaders", {}).get("x-amz-bucket-region")
        if region and region != access.region:
            return WrongRegion(
                f"Bucket {bucket} is in region {region}, not {access.region}; "
                f'set bucket.region = "{region}".'
            )
        if status == 404:
            return BucketMissing(
                f"Bucket {bucket} does not exist at {access.endpoint or 'AWS'}; "
                "create it, or correct bucket.url and bucket.endpoint."
            )
        return error
    except (BotoCoreError, StoreError, ValueError):
        return error
    return error
