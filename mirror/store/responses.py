"""One table from refused requests to our errors, shared by both S3 engines and boto3's client."""

from __future__ import annotations

from collections.abc import Sequence

from mirror.errors import (
    AccessDenied,
    BadCredentials,
    BucketMissing,
    ClockSkew,
    Conflict,
    NotFound,
    PreconditionFailed,
    StoreError,
    Throttled,
    Unreachable,
    Untrusted,
    WrongRegion,
)

_BAD_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "InvalidSecurity",
    "TokenRefreshRequired",
    "Unauthorized",
}
_WRONG_REGION = {
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "IllegalLocationConstraintException",
    "TemporaryRedirect",
    "InvalidRegionName",
}
# The bytes were damaged or cut in transit: a retry helps.
_DAMAGED_IN_TRANSIT = {
    "BadDigest",
    "IncompleteBody",
    "InvalidDigest",
    "RequestTimeout",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
# The 5xx that a retry does not change: not implemented, version not supported, no room.
# All others may pass, Cloudflare's 520 to 527 included.
_FINAL = {501, 505, 507}


def untrusted(what: str, why: str) -> Untrusted:
    """The error for a TLS certificate that is not trusted.

    Args:
        what: the request in words.
        why: the TLS library's reason.
    """
    return Untrusted(
        f"{what}: the server's certificate is not trusted ({why}); correct bucket.endpoint, or let "
        "SSL_CERT_FILE name a file with the authority that signed it."
    )


def deletion_of(keys: Sequence[str]) -> str:
    """A DELETE request in words."""
    return f"DELETE {keys[0]}" if len(keys) == 1 else f"DELETE {len(keys):,} objects"


def error_from(
    status: int, code: str, what: str, message: str = "", retry_after: float | None = None
) -> StoreError:
    """The error for a refused request.

    Args:
        status: the HTTP status.
        code: S3's error code; empty where the answer had no body, as to every HEAD.
        what: the request in words, such as `PUT objects/3f/….jpg`.
        message: the server's own words.
        retry_after: seconds to wait, where the server gave them.
    """
    said = f" ({status} {code or message or 'no message'})"
    if code == "NoSuchBucket":
        return BucketMissing(
            f"{what}: the bucket does not exist{said}; create it, or correct bucket.url."
        )
    if code == "NoSuchUpload":
        # A retried CompleteMultipartUpload meets this when the first attempt's answer was lost.
        return Unreachable(f"{what}: the upload no longer exists; it may be complete{said}.")
    if status == 404:
        return NotFound(f"{what}: there is no such object{said}.")
    if status == 412:
        return PreconditionFailed(f"{what}: the object does not match the condition{said}.")
    if status == 409:
        return Conflict(f"{what}: another request changed the same key{said}.")
    if code in ("RequestTimeTooSkewed", "RequestExpired"):
        return ClockSkew(
            f"{what}: this machine's clock is wrong{said}; set it (timedatectl set-ntp true) "
            "and run again."
        )
    if code in _BAD_CREDENTIALS or status == 401:
        return BadCredentials(
            f"{what}: the access key or secret is not accepted{said}; check the AWS_* environment "
            "or AWS_PROFILE."
        )
    if code in _WRONG_REGION or status in (301, 307):
        return WrongRegion(
            f"{what}: the bucket is in another region{said}; set bucket.region to its region."
        )
    if status == 403:
        return AccessDenied(
            f"{what}: this key may not do that{said}; give it that permission on the bucket."
        )
    if code in _DAMAGED_IN_TRANSIT or status == 408:
        return Unreachable(f"{what}: the request did not arrive whole{said}.", retry_after)
    if status == 429 or code == "SlowDown" or (status >= 500 and status not in _FINAL):
        return Throttled(f"{what}: the server asks to slow down{said}.", retry_after)
    hint = "" if code else "; if it is no S3 server, correct bucket.endpoint"
    return StoreError(f"{what}: the server refused{said}{hint}.")
