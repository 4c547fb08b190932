"""Can this S3 bucket hold a mirror? All checks of a bucket, in order, by boto3.

Probes are small objects below `doctor/` in the mirror's prefix, under a name that no other run uses.
They are deleted at the end if this key may do so. Nothing else is written or overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from mirror.diagnosis import bucket_probes as probes
from mirror.diagnosis.endpoint import Endpoint
from mirror.diagnosis.finding import (
    Finding,
    fail,
    ok,
    run_check,
    skip,
    skipped,
    warn,
    what_happened,
)
from mirror.errors import (
    EXIT_CONFIG,
    AccessDenied,
    BadCredentials,
    BucketMissing,
    ClockSkew,
    ConfigError,
    MirrorError,
    StoreError,
    Untrusted,
    WrongRegion,
)
from mirror.layout import FORMAT_KEY
from mirror.store.object_store_options import require_no_foreign_variables
from mirror.store.s3_access import Credentials, S3Access, explain
from mirror.store.unreachable import not_an_s3_server
from mirror.system.http_headers import http_date

# Seconds. AWS refuses a request whose time is a quarter of an hour off.
_CLOCK_WARNS: Final = 60.0
_CLOCK_FAILS: Final = 900.0

_ENDPOINT_FIX: Final = (
    "Check bucket.endpoint (or AWS_ENDPOINT_URL_S3), the network and any proxy; "
    "AWS wants no endpoint."
)

# Both in the order in which they are reported.
_BEFORE_WRITING: Final = ("endpoint", "bucket", "region", "clock", "list")
_WRITING: Final = ("write", "read", "if-none-match", "if-match", "checksum", "pages", "delete")


def examine(endpoint: Endpoint, *, read_only: bool) -> Iterator[Finding]:
    """Run all checks of a bucket, and yield each finding at once.

    A check that depends on a failed one is skipped.

    Args:
        endpoint: the bucket's.
        read_only: write no probes.
    """
    try:
        credentials = endpoint.access.credentials()
        require_no_foreign_variables(credentials)
        client = endpoint.access.client()
    except (BadCredentials, ConfigError, ValueError) as error:
        fix = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        if isinstance(error, ConfigError):
            fix = "Run without this variable."
        if not isinstance(error, MirrorError):
            fix = "Write bucket.endpoint as https://HOST[:PORT]."
        what = what_happened(error) if isinstance(error, MirrorError) else str(error)
        yield fail("credentials", what, fix, EXIT_CONFIG)
        yield from skipped((*_BEFORE_WRITING, *_WRITING, "latency"), "there are no credentials")
        return
    first = _first_request(endpoint, client)
    yield from _before_writing(endpoint, first, _described(endpoint.access, credentials))
    if isinstance(first, StoreError):
        yield from skipped((*_WRITING, "latency"), "the bucket cannot be used")
        return
    if read_only:
        yield from skipped(_WRITING, "--read-only")
        yield probes.latency(endpoint, client, f"{endpoint.access.prefix}{FORMAT_KEY}")
        return
    try:
        written = run_check("write", lambda: probes.write(endpoint, client), probes.WRITE_FIX)
        yield written
        if written.status == "fail":
            yield from skipped((*_WRITING[1:], "latency"), "nothing can be written")
            return
        yield run_check("read", lambda: probes.read(endpoint, client), probes.READ_FIX)
        yield run_check(
            "if-none-match", lambda: probes.if_none_match(endpoint, client), probes.CONDITIONS_FIX
        )
        yield run_check(
            "if-match", lambda: probes.if_match(endpoint, client), probes.CONDITIONS_FIX
        )
        yield run_check("checksum", lambda: probes.checksum(endpoint, client), probes.WRITE_FIX)
        yield run_check("pages", lambda: probes.pages(endpoint, client), probes.LIST_FIX)
        yield probes.latency(endpoint, client, endpoint.key("a"))
    finally:
        deleted = run_check(
            "delete", lambda: probes.delete(endpoint, client), "Give this key s3:DeleteObject."
        )
    yield deleted


def _first_request(endpoint: Endpoint, client: Any) -> dict[str, Any] | StoreError:
    """List one key; returns the answer, or the error that explains why there is none."""
    try:
        found = endpoint.call(client, "list_objects_v2", Prefix=endpoint.access.prefix, MaxKeys=1)
    except StoreError as error:
        return explain(endpoint.access, error)
    if "IsTruncated" not in found and "Contents" not in found and "Name" not in found:
        return not_an_s3_server("LIST", 200, endpoint.access.address)
    return found


def _described(access: S3Access, credentials: Credentials) -> str:
    """Where the credentials come from, and the part of the access key that is no secret."""
    chain = {
        "env": "the environment (AWS_ACCESS_KEY_ID)",
        "shared-credentials-file": "the profile in ~/.aws/credentials",
        "config-file": "the profile in ~/.aws/config",
        "iam-role": "the instance's role",
        "container-role": "the container's role",
        "assume-role": "an assumed role",
        "assume-role-with-web-identity": "a web identity's role",
        "sso": "single sign-on",
    }
    method = str(getattr(access.session.get_credentials(), "method", "") or "")
    key = credentials.access_key
    shown = f"{key[:4]}…{key[-4:]}" if len(key) >= 16 else f"{key[:2]}…"
    temporary = ", temporary" if credentials.token else ""
    return f"from {chain.get(method, method)}, key {shown}{temporary}"


def _before_writing(
    endpoint: Endpoint, first: dict[str, Any] | StoreError, described: str
) -> Iterator[Finding]:
    """The findings that follow from one listing of one key.

    | the listing ends with  | fails       | is known to be right                     |
    |------------------------|-------------|------------------------------------------|
    | an answer              | –           | all; the clock by the Date header        |
    | BadCredentials         | credentials | endpoint                                 |
    | BucketMissing          | bucket      | endpoint, credentials                    |
    | WrongRegion            | region      | endpoint, bucket                         |
    | ClockSkew              | clock       | endpoint                                 |
    | AccessDenied           | list        | endpoint, credentials, bucket, region    |
    | Untrusted              | endpoint    | credentials                              |
    | Unreachable, any other | endpoint    | credentials                              |
    """
    access = endpoint.access
    where = access.endpoint or "AWS"
    lines = {
        "credentials": ok("credentials", described),
        "endpoint": ok("endpoint", f"{where} answers"),
        "bucket": ok("bucket", f"{access.url.bucket} is there"),
        "region": ok("region", access.region),
        "clock": skip("clock", "no answer with the server's time"),
        "list": ok("list", "this key may"),
    }
    if not isinstance(first, StoreError):
        lines["clock"] = clock(first, endpoint.now())
        yield from lines.values()
        return
    # Only the error's advice names the right region, so that error is shown whole.
    sentence = str(first) if isinstance(first, WrongRegion) else what_happened(first)
    fixes: dict[type[StoreError], tuple[str, str, tuple[str, ...]]] = {
        BadCredentials: (
            "credentials",
            "Check the AWS_* environment and AWS_PROFILE, and that the key belongs to this endpoint.",
            ("endpoint",),
        ),
        BucketMissing: (
            "bucket",
            "Create the bucket (terraform/), or correct bucket.url and bucket.endpoint.",
            ("credentials", "endpoint"),
        ),
        WrongRegion: (
            "region",
            "Set bucket.region to the bucket's; it is auto on Cloudflare R2.",
            ("credentials", "endpoint", "bucket"),
        ),
        ClockSkew: ("clock", "Set the clock: timedatectl set-ntp true.", ("endpoint",)),
        Untrusted: (
            "endpoint",
            "Correct bucket.endpoint, or let SSL_CERT_FILE name the authority that signed it.",
            ("credentials",),
        ),
        AccessDenied: ("list", probes.LIST_FIX, ("credentials", "endpoint", "bucket", "region")),
    }
    failed, fix, right = fixes.get(type(first), ("endpoint", _ENDPOINT_FIX, ("credentials",)))
    for line, finding in lines.items():
        if line == failed:
            yield fail(line, sentence, fix, first.exit_status)
        elif line in right:
            yield finding
        else:
            yield skip(line, f"because of the {failed}")


def clock(answer: dict[str, Any], now: float) -> Finding:
    """Compare this machine's time with the answer's Date header, which has whole seconds."""
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    server_time = http_date(date)
    if server_time is None:
        return skip("clock", "the server's answers have no Date")
    off = now - server_time
    direction = "ahead of" if off > 0 else "behind"
    what = f"{abs(off):.0f} s {direction} the server's"
    fix = "Set the clock: timedatectl set-ntp true."
    if abs(off) >= _CLOCK_FAILS:
        return fail("clock", f"{what}; the server will refuse requests", fix)
    if abs(off) > _CLOCK_WARNS:
        return warn("clock", what, fix)
    return ok("clock", "right to the second" if abs(off) < 2 else what)
