"""The control plane, on boto3: which credentials, which region, and what is wrong when nothing works.

Bulk bytes never pass here.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from mirror.config.settings import BucketSettings
from mirror.errors import BadCredentials, BucketMissing, StoreError, Unreachable, WrongRegion
from mirror.layout import BucketUrl
from mirror.store.responses import error_from, untrusted
from mirror.system.http_headers import retry_after_seconds
from mirror.system.lazy import lazy

CONNECT_SECONDS = 10
READ_SECONDS = 60
# Of a whole request, its body and its answer.
REQUEST_SECONDS = 300
# What was asked is said in our words; a query may hold a signature.
_QUERY = re.compile(r"(?<=[^\s\"'])\?[^\s\"']*")
_REFUSED = re.compile(r"certificate verify failed: ([^(\]]+?) *\(")


@dataclass(frozen=True, slots=True)
class Credentials:
    """One moment's credentials; the secret parts stay out of `repr`."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)


_NOT_SIMPLE: Final = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CREDENTIAL_EXPIRATION")


class S3Access:
    """Where a bucket is and who is asking. Credentials are looked up once, and refresh themselves.

    Args:
        url: an `s3://` bucket url.
        settings: endpoint and region; a region that is absent comes from the AWS configuration.
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
    def region(self) -> str:
        default = "auto" if self.endpoint else "us-east-1"
        return str(self._region or self.session.region_name or default)

    @property
    def address(self) -> str:
        """What is asked: `endpoint`, or AWS in the region.

        Always told to obstore and deltalake: what they are not told, or told by another name than
        AWS_ENDPOINT_URL_S3, they take from the environment, however plainly the settings say
        otherwise.
        """
        return self.endpoint or f"https://s3.{self.region}.amazonaws.com"

    @property
    def allow_http(self) -> bool:
        return bool(self.endpoint and self.endpoint.startswith("http://"))

    def credentials(self) -> Credentials:
        """The credentials of this moment (a role's are fetched anew before they expire).

        Raises:
            BadCredentials: the AWS chain has none, or its provider fails.
        """
        if (given := _given()) is not None:
            return given
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
                # R2 and newer regions of AWS know no older one, which botocore may yet choose.
                signature_version="s3v4",
                s3={"addressing_style": "path" if self.endpoint else "auto"},
                # R2 refuses the CRC32 trailers that boto3 adds by default.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                # The environment's has been asked for; one of ~/.aws/config no other engine knows.
                ignore_configured_endpoint_urls=True,
            ),
        }

    def client(self) -> Any:
        """A boto3 S3 client."""
        self.credentials()
        client = self.session.client("s3", **self.client_options())
        client.meta.events.register("before-call.s3", drop_expect_header)
        return client

    def delta_options(self) -> dict[str, str]:
        """`storage_options` for the catalog's Delta table, with the credentials of this moment."""
        credentials = self.credentials()
        options = {
            "aws_access_key_id": credentials.access_key,
            "aws_secret_access_key": credentials.secret_key,
            "aws_region": self.region,
            "aws_endpoint_url_s3": self.address,
            "aws_conditional_put": "etag",
            "aws_virtual_hosted_style_request": "false",
            "timeout": "120s",
            "connect_timeout": f"{CONNECT_SECONDS}s",
        }
        if credentials.token:
            options["aws_session_token"] = credentials.token
        if self.endpoint:
            # By this name delta-rs knows that it need not ask AWS about the instance.
            options["aws_endpoint"] = self.endpoint
        if self.allow_http:
            options["aws_allow_http"] = "true"
        return options


@contextlib.contextmanager
def _chain() -> Iterator[None]:
    """What the AWS chain raises, in our words: a refused role, a token file or date that is wrong."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, RuntimeError, ValueError, OSError) as error:
        raise chain_failed(error) from None


def chain_failed(error: Exception) -> BadCredentials:
    """The error of the AWS chain when it has no good credentials to give."""
    return BadCredentials(
        f"The AWS credential chain failed: {str(error).rstrip('.')}; renew the credentials (aws sso "
        "login, where they come from it), or correct AWS_PROFILE or the AWS_* environment."
    )


def _given() -> Credentials | None:
    """Keys in the environment, which botocore's chain would find first.

    They are read without it: importing botocore costs as much as a run that finds nothing changed.
    What needs more than reading (a profile, keys that expire, half of a pair) is left to it.
    """
    get = os.environ.get
    key, secret = get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")
    if not key or not secret or any(map(get, _NOT_SIMPLE)):
        return None
    return Credentials(key, secret, get("AWS_SECURITY_TOKEN") or get("AWS_SESSION_TOKEN") or None)


def _authorities() -> str | None:
    """A file with the authorities to trust; None leaves the choice to botocore.

    obstore, deltalake and the fetch layer go by SSL_CERT_FILE, so that one variable is enough.
    """
    return None if os.environ.get("AWS_CA_BUNDLE") else os.environ.get("SSL_CERT_FILE") or None


def drop_expect_header(params: dict[str, Any], **_: object) -> None:
    """A server that does not answer `Expect: 100-continue` costs a second a PUT."""
    params["headers"].pop("Expect", None)


def translate_botocore(error: Exception, what: str) -> StoreError:
    """Our error for one of botocore's.

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
            f"{what}: botocore sends no such request ({' '.join(str(error).split())})."
        )
    if isinstance(error, theirs.SSLError) and (why := _REFUSED.search(str(error))):
        return untrusted(what, why[1])
    # Everything else botocore raises on its way to a server is the network's doing.
    return Unreachable(f"{what}: the server cannot be reached ({_QUERY.sub('', str(error))}).")


def explain(access: S3Access, error: StoreError) -> StoreError:
    """A clearer error for a first request that failed, by asking the bucket who it is.

    HEAD answers and redirects carry no words, and engines differ in what they let through; one
    HeadBucket tells a missing bucket, a wrong region and a wrong key apart.

    Returns:
        The clearer error, or `error` itself where nothing better is known.
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
