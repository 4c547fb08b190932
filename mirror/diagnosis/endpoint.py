"""Can this S3 endpoint be trusted? Checks on boto3, by a few small objects of their own.

Probes stand below `doctor/` in the mirror's prefix, under a name that no other run uses; they are
deleted at the end if this key may. Nothing else is written, and nothing is overwritten.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from mirror.diagnosis.finding import Finding, fail, happened, ok, skip, skipped, tried, warn
from mirror.errors import (
    EXIT_CONFIG,
    AccessDenied,
    BadCredentials,
    BucketMissing,
    ClockSkew,
    MirrorError,
    NotFound,
    PreconditionFailed,
    StoreError,
    Transient,
    Unreachable,
    Untrusted,
    WrongRegion,
)
from mirror.layout import PROBES
from mirror.store.retry import RetryPolicy
from mirror.store.s3_access import Credentials, S3Access, explain, translate_botocore
from mirror.system.http_headers import http_date

# AWS refuses a request that is a quarter of an hour off.
_CLOCK_WARNS: Final = 60.0
_CLOCK_FAILS: Final = 900.0
_LATENCY_SAMPLES: Final = 20
_SLOW_SECONDS: Final = 1.0
# R2 takes one write a second for each key: another attempt after a refusal has to wait that long.
PATIENCE: Final = RetryPolicy(attempts=3, base=0.6)

_TYPE: Final = "image/jpeg"
_PRIVATE: Final = "private, max-age=60"

_ENDPOINT_FIX: Final = (
    "Check bucket.endpoint (or AWS_ENDPOINT_URL_S3), the network and any proxy; "
    "AWS wants no endpoint."
)
_WRITE_FIX: Final = "Give this key s3:PutObject on the prefix; on a machine that only reads, mirror doctor --read-only."
_READ_FIX: Final = "Give this key s3:GetObject on the prefix."
_LIST_FIX: Final = "Give this key s3:ListBucket on the bucket."
_CONDITIONS_FIX: Final = (
    "Do not use this endpoint: two runs could overwrite each other's catalog. "
    "AWS S3, Cloudflare R2, SeaweedFS and MinIO honour conditions."
)

# In the order in which they are made.
_BEFORE_WRITING: Final = ("endpoint", "bucket", "region", "clock", "list")
_WRITING: Final = ("write", "read", "if-none-match", "if-match", "checksum", "pages", "delete")


@dataclass(frozen=True)
class Endpoint:
    """An S3 endpoint being looked at.

    Attributes:
        access: where the bucket is and who asks.
        engine: what moves the bytes, and decides by which checksum: `obstore` or `aioboto3`.
        now: seconds since 1970.
        clock: seconds of any origin, for latencies.
        sleep: waits so many seconds.
        run: names this run's probes.
    """

    access: S3Access
    engine: str = "obstore"
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    run: str = field(default_factory=lambda: secrets.token_hex(8))

    def key(self, name: str) -> str:
        return f"{self.folder}{name}"

    @property
    def folder(self) -> str:
        return f"{self.prefix}{PROBES}{self.run}/"

    @property
    def prefix(self) -> str:
        return f"{self.access.url.path}/" if self.access.url.path else ""

    def call(self, client: Any, operation: str, **fields: Any) -> dict[str, Any]:
        """One request on the bucket, tried again when what refused it may pass.

        Raises:
            StoreError: as `mirror.store.responses` has it.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        what = f"{operation} {fields.get('Key', '')}".strip()
        failures = 0
        while True:
            try:
                answer: dict[str, Any] = getattr(client, operation)(
                    Bucket=self.access.url.bucket, **fields
                )
            except (BotoCoreError, ClientError) as error:
                ours = translate_botocore(error, what)
                failures += 1
                if not isinstance(ours, Transient) or failures >= PATIENCE.attempts:
                    raise ours from None
                self.sleep(PATIENCE.pause(failures, ours.retry_after, 1.0))
            else:
                return answer

    def put(self, client: Any, name: str, body: bytes, **conditions: Any) -> str:
        """Write a probe; returns its ETag."""
        fields = {"ContentType": _TYPE, "CacheControl": _PRIVATE, **conditions}
        return str(self.call(client, "put_object", Key=self.key(name), Body=body, **fields)["ETag"])

    def body(self, client: Any, name: str) -> bytes:
        return self.read(client, self.key(name))

    def read(self, client: Any, key: str) -> bytes:
        from botocore.exceptions import BotoCoreError

        answer = self.call(client, "get_object", Key=key)
        try:
            data: bytes = answer["Body"].read()
        except (BotoCoreError, OSError) as error:
            raise Unreachable(f"GET {key}: the answer broke off ({error}).") from None
        return data


def examine(endpoint: Endpoint, *, read_only: bool) -> Iterator[Finding]:
    """All checks of an endpoint, each as it is done; those that cannot be made are skipped.

    Args:
        endpoint: what to look at.
        read_only: write no probes.
    """
    try:
        credentials = endpoint.access.credentials()
        client = endpoint.access.client()
    except (BadCredentials, ValueError) as error:
        fix = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        if not isinstance(error, MirrorError):
            fix = "Write bucket.endpoint as https://HOST[:PORT]."
        what = happened(error) if isinstance(error, MirrorError) else str(error)
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
        yield latency(endpoint, client, f"{endpoint.prefix}format.json")
        return
    try:
        written = tried("write", lambda: write(endpoint, client), _WRITE_FIX)
        yield written
        if written.status == "fail":
            yield from skipped((*_WRITING[1:], "latency"), "nothing can be written")
            return
        yield tried("read", lambda: read(endpoint, client), _READ_FIX)
        yield tried("if-none-match", lambda: if_none_match(endpoint, client), _CONDITIONS_FIX)
        yield tried("if-match", lambda: if_match(endpoint, client), _CONDITIONS_FIX)
        yield tried("checksum", lambda: checksum(endpoint, client), _WRITE_FIX)
        yield tried("pages", lambda: pages(endpoint, client), _LIST_FIX)
        yield latency(endpoint, client, endpoint.key("a"))
    finally:
        deleted = tried(
            "delete", lambda: delete(endpoint, client), "Give this key s3:DeleteObject."
        )
    yield deleted


def _first_request(endpoint: Endpoint, client: Any) -> dict[str, Any] | StoreError:
    try:
        return endpoint.call(client, "list_objects_v2", Prefix=endpoint.prefix, MaxKeys=1)
    except StoreError as error:
        return explain(endpoint.access, error)


def _described(access: S3Access, credentials: Credentials) -> str:
    """Which link of the chain they come from, and whose they are as far as that is no secret."""
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
    """The lines that one listing of one key tells.

    | it ends with           | fails       | holds                                    |
    |------------------------|-------------|------------------------------------------|
    | an answer              | –           | all; the clock by its Date               |
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
        "clock": skip("clock", "no answer has told the server's time"),
        "list": ok("list", "this key may"),
    }
    if not isinstance(first, StoreError):
        lines["clock"] = clock(first, endpoint.now())
        yield from lines.values()
        return
    # Which region it is, only the error knows.
    sentence = str(first) if isinstance(first, WrongRegion) else happened(first)
    config = first.exit_status
    fixes: dict[type[StoreError], tuple[str, str, tuple[str, ...]]] = {
        BadCredentials: (
            "credentials",
            "Check the AWS_* environment, AWS_PROFILE, and that the key is of this endpoint.",
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
            "Correct bucket.endpoint, or name the authority that signed it in SSL_CERT_FILE.",
            ("credentials",),
        ),
        AccessDenied: ("list", _LIST_FIX, ("credentials", "endpoint", "bucket", "region")),
    }
    name, fix, hold = fixes.get(type(first), ("endpoint", _ENDPOINT_FIX, ("credentials",)))
    for line, finding in lines.items():
        if line == name:
            yield fail(line, sentence, fix, config)
        elif line in hold:
            yield finding
        else:
            yield skip(line, f"because of the {name}")


def clock(answer: dict[str, Any], now: float) -> Finding:
    """This machine's time against the answer's Date, which is whole seconds."""
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    server_time = http_date(date)
    if server_time is None:
        return skip("clock", "the server does not tell its time")
    off = now - server_time
    direction = "ahead of" if off > 0 else "behind"
    what = f"{abs(off):.0f} s {direction} the server's"
    fix = "Set the clock: timedatectl set-ntp true."
    if abs(off) >= _CLOCK_FAILS:
        return fail("clock", f"{what}; it will refuse requests", fix)
    if abs(off) > _CLOCK_WARNS:
        return warn("clock", what, fix)
    return ok("clock", "right to the second" if abs(off) < 2 else what)


def write(endpoint: Endpoint, client: Any) -> Finding:
    endpoint.put(client, "a", b"a" * 64)
    return ok("write", f"a probe below {endpoint.prefix}{PROBES}")


def read(endpoint: Endpoint, client: Any) -> Finding:
    answer = endpoint.call(client, "get_object", Key=endpoint.key("a"))
    if answer["Body"].read() != b"a" * 64:
        return fail("read", "other bytes came back than were written", "Do not use this endpoint.")
    kept = (answer.get("ContentType"), answer.get("CacheControl"))
    if kept != (_TYPE, _PRIVATE):
        return fail(
            "read",
            f"Content-Type and Cache-Control came back as {kept[0]} and {kept[1]}",
            "Readers would see the wrong type: use an endpoint that keeps an object's headers.",
        )
    return ok("read", "the same bytes and headers")


def if_none_match(endpoint: Endpoint, client: Any) -> Finding:
    """`If-None-Match: *` must create what is not there, and refuse what is."""
    endpoint.put(client, "b", b"first", IfNoneMatch="*")
    try:
        endpoint.put(client, "b", b"second", IfNoneMatch="*")
    except PreconditionFailed:
        if endpoint.body(client, "b") == b"first":
            return ok("if-none-match", "a key that is taken is refused")
        what = "it was refused, and overwritten all the same"
    else:
        what = "a key that is taken was overwritten"
    return fail("if-none-match", what, _CONDITIONS_FIX)


def if_match(endpoint: Endpoint, client: Any) -> Finding:
    """`If-Match` must refuse another ETag than the object's, and accept that one."""
    etag = endpoint.put(client, "c", b"first")
    try:
        endpoint.put(client, "c", b"second", IfMatch='"00000000000000000000000000000000"')
    except PreconditionFailed:
        pass
    else:
        return fail("if-match", "an object of another ETag was overwritten", _CONDITIONS_FIX)
    try:
        endpoint.put(client, "c", b"third", IfMatch=etag)
    except PreconditionFailed:
        return fail("if-match", "the object's own ETag was refused", _CONDITIONS_FIX)
    return ok("if-match", "another ETag is refused")


def checksum(endpoint: Endpoint, client: Any) -> Finding:
    """Bytes that are not what their checksum says must be refused: that of the engine in use at least.

    obstore sends SHA-256, aioboto3 Content-MD5.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    meant, body = b"what was meant", b"what came"
    sha256 = base64.b64encode(hashlib.sha256(meant).digest()).decode()
    md5 = base64.b64encode(hashlib.md5(meant, usedforsecurity=False).digest()).decode()
    verified = []
    for name, fields in {
        "SHA-256": {"ChecksumSHA256": sha256},
        "MD5": {"ContentMD5": md5},
    }.items():
        try:
            client.put_object(
                Bucket=endpoint.access.url.bucket,
                Key=endpoint.key(f"d-{name.lower()}"),
                Body=body,
                **fields,
            )
        except ClientError as error:
            # Whatever the refusal is called. As a request that failed it would be tried again.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (400, 422):
                raise translate_botocore(error, "PUT of damaged bytes") from None
            verified.append(name)
        except BotoCoreError as error:
            raise translate_botocore(error, "PUT of damaged bytes") from None
    if len(verified) == 2:
        return ok("checksum", "damaged bytes are refused")
    sent, other = ("MD5", "obstore") if endpoint.engine == "aioboto3" else ("SHA-256", "aioboto3")
    if sent in verified:
        return ok(
            "checksum", f"damaged bytes are refused by their {sent}, which {endpoint.engine} sends"
        )
    if verified:
        fix = f'Set bucket.engine = "{other}", which sends it.'
        return warn("checksum", f"only a wrong {verified[0]} is refused", fix)
    fix = "Run mirror verify --full now and then: damage on the way is not noticed at once."
    return fail("checksum", "bytes with a wrong checksum are accepted", fix)


def pages(endpoint: Endpoint, client: Any) -> Finding:
    """Three keys and more, two a page: by token and by `StartAfter`, each exactly once."""
    wanted = sorted(endpoint.key(name) for name in ("a", "b", "c"))
    for key in wanted[1:]:  # conditional writes may have failed, which is told already
        endpoint.call(client, "put_object", Key=key, Body=b"listed")
    bad = "Listings cannot be trusted here, so neither can verify nor gc: use another endpoint."
    by_token: list[str] = []
    token: dict[str, str] = {}
    for _ in range(10):
        page = endpoint.call(client, "list_objects_v2", Prefix=endpoint.folder, MaxKeys=2, **token)
        by_token += [item["Key"] for item in page.get("Contents", ())]
        if len(page.get("Contents", ())) > 2:
            return fail("pages", "a page was longer than asked for", bad)
        if not page.get("IsTruncated"):
            break
        token = {"ContinuationToken": page["NextContinuationToken"]}
    if [key for key in by_token if key in wanted] != wanted:
        return fail("pages", f"{len(by_token)} of {len(wanted)} keys came, two a page", bad)
    page = endpoint.call(
        client, "list_objects_v2", Prefix=endpoint.folder, StartAfter=wanted[0], MaxKeys=2
    )
    if [item["Key"] for item in page.get("Contents", ())] != wanted[1:]:
        return fail("pages", "StartAfter does not begin behind its key", bad)
    return ok("pages", "every key once, in order")


def delete(endpoint: Endpoint, client: Any) -> Finding:
    """Takes the probes away; that a writer's key may not is no fault."""
    try:
        for name in ("a", "b", "c", "d-sha-256", "d-md5"):
            endpoint.call(client, "delete_object", Key=endpoint.key(name))
    except AccessDenied:
        return ok(
            "delete",
            f"this key may not, and a writer's need not: probes stay in {endpoint.folder}",
        )
    try:
        endpoint.call(client, "head_object", Key=endpoint.key("a"))
    except NotFound:
        return ok("delete", "the probes are gone")
    return fail("delete", "a deleted object is still there", "gc would free nothing here.")


def latency(endpoint: Endpoint, client: Any, key: str) -> Finding:
    """The middle and the slow end of GETs of one small object, one after the other."""
    taken = []
    for _ in range(_LATENCY_SAMPLES):
        begin = endpoint.clock()
        try:
            endpoint.read(client, key)
        except NotFound:
            pass  # an answer too
        except StoreError as error:
            return fail("latency", happened(error), _READ_FIX)
        taken.append(endpoint.clock() - begin)
    taken.sort()
    median, slow = taken[len(taken) // 2], taken[int(len(taken) * 0.95)]
    what = f"p50 {median * 1000:.0f} ms, p95 {slow * 1000:.0f} ms"
    if median > _SLOW_SECONDS:
        fix = "Put the bucket nearer (its region), or raise sync.concurrency to hide it."
        return warn("latency", what, fix)
    return ok("latency", what)
