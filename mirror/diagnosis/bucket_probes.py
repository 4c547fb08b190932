"""Probes of an S3 bucket: each writes, reads or lists small objects and judges the answers."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Final

from mirror.diagnosis.endpoint import CACHE_CONTROL, CONTENT_TYPE, SUMMED, Endpoint
from mirror.diagnosis.finding import Finding, fail, ok, warn, what_happened
from mirror.errors import AccessDenied, NotFound, PreconditionFailed, StoreError
from mirror.layout import PROBES
from mirror.store.s3_access import translate_botocore

_LATENCY_SAMPLES: Final = 20
_SLOW_SECONDS: Final = 1.0

WRITE_FIX: Final = "Give this key s3:PutObject on the prefix; on a machine that only reads, mirror doctor --read-only."
READ_FIX: Final = "Give this key s3:GetObject on the prefix."
LIST_FIX: Final = "Give this key s3:ListBucket on the bucket."
CONDITIONS_FIX: Final = (
    "Do not use this endpoint: two runs could overwrite each other's catalog. "
    "AWS S3, Cloudflare R2, SeaweedFS and MinIO honour conditions."
)


def write(endpoint: Endpoint, client: Any) -> Finding:
    """Write a probe."""
    endpoint.put(client, "a", b"a" * 64)
    return ok("write", f"a probe below {endpoint.access.prefix}{PROBES}")


def read(endpoint: Endpoint, client: Any) -> Finding:
    """The probe's bytes and headers must come back."""
    answer = endpoint.call(client, "get_object", Key=endpoint.key("a"))
    if answer["Body"].read() != b"a" * 64:
        return fail("read", "other bytes came back than were written", "Do not use this endpoint.")
    kept = (answer.get("ContentType"), answer.get("CacheControl"))
    if kept != (CONTENT_TYPE, CACHE_CONTROL):
        return fail(
            "read",
            f"Content-Type and Cache-Control came back as {kept[0]} and {kept[1]}",
            "Readers would see the wrong type: use an endpoint that keeps an object's headers.",
        )
    return ok("read", "the same bytes and headers")


def if_none_match(endpoint: Endpoint, client: Any) -> Finding:
    """`If-None-Match: *` must create a missing key, and refuse one that is taken."""
    endpoint.put(client, "b", b"first", IfNoneMatch="*")
    try:
        endpoint.put(client, "b", b"second", IfNoneMatch="*")
    except PreconditionFailed:
        if endpoint.read(client, endpoint.key("b")) == b"first":
            return ok("if-none-match", "a key that is taken is refused")
        what = "the write was refused, yet the object was overwritten"
    else:
        what = "a key that is taken was overwritten"
    return fail("if-none-match", what, CONDITIONS_FIX)


def if_match(endpoint: Endpoint, client: Any) -> Finding:
    """`If-Match` must refuse any ETag but the object's own."""
    etag = endpoint.put(client, "c", b"first")
    try:
        endpoint.put(client, "c", b"second", IfMatch='"00000000000000000000000000000000"')
    except PreconditionFailed:
        pass
    else:
        return fail("if-match", "an object with another ETag was overwritten", CONDITIONS_FIX)
    try:
        endpoint.put(client, "c", b"third", IfMatch=etag)
    except PreconditionFailed:
        return fail("if-match", "the object's own ETag was refused", CONDITIONS_FIX)
    return ok("if-match", "another ETag is refused")


def checksum(endpoint: Endpoint, client: Any) -> Finding:
    """Bytes that contradict their checksum must be refused: at least the checksum that the engine sends.

    obstore sends SHA-256, aioboto3 sends Content-MD5.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    intended, damaged = b"intended", b"damaged"
    sha256 = base64.b64encode(hashlib.sha256(intended).digest()).decode()
    md5 = base64.b64encode(hashlib.md5(intended, usedforsecurity=False).digest()).decode()
    verified = []
    for name, fields in {
        "SHA-256": {"ChecksumSHA256": sha256},
        "MD5": {"ContentMD5": md5},
    }.items():
        try:
            client.put_object(
                Bucket=endpoint.access.url.bucket,
                Key=endpoint.key(f"d-{name.lower()}"),
                Body=damaged,
                **fields,
            )
        except ClientError as error:
            # Codes of refusals differ. `Endpoint.call` is not used because it would retry some of them.
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
    fix = "Run mirror verify --full from time to time: damage in transit is not noticed at once."
    return fail("checksum", "bytes with a wrong checksum are accepted", fix)


def pages(endpoint: Endpoint, client: Any) -> Finding:
    """Listings of two keys a page, by token and by `StartAfter`, must name each key exactly once."""
    wanted = sorted(endpoint.key(name) for name in ("a", "b", "c"))
    for key in wanted[1:]:  # the conditional writes may have failed, and other findings say so
        endpoint.call(client, "put_object", Key=key, Body=b"listed", **SUMMED)
    fix = "Use another endpoint: verify and gc rely on complete listings."
    by_token: list[str] = []
    token: dict[str, str] = {}
    for _ in range(10):
        page = endpoint.call(client, "list_objects_v2", Prefix=endpoint.folder, MaxKeys=2, **token)
        by_token += [item["Key"] for item in page.get("Contents", ())]
        if len(page.get("Contents", ())) > 2:
            return fail("pages", "a page was longer than requested", fix)
        if not page.get("IsTruncated"):
            break
        token = {"ContinuationToken": page["NextContinuationToken"]}
    if [key for key in by_token if key in wanted] != wanted:
        return fail("pages", f"{len(by_token)} of {len(wanted)} keys came, two a page", fix)
    page = endpoint.call(
        client, "list_objects_v2", Prefix=endpoint.folder, StartAfter=wanted[0], MaxKeys=2
    )
    if [item["Key"] for item in page.get("Contents", ())] != wanted[1:]:
        return fail("pages", "StartAfter does not begin after its key", fix)
    return ok("pages", "every key once, in order")


def delete(endpoint: Endpoint, client: Any) -> Finding:
    """Delete the probes. A writer's key that may not delete is no fault, nor is a server without
    conditional deletes: gc checks each object itself before it deletes it.
    """
    try:
        is_conditional = _refuses_another_etag(endpoint, client)
        for name in ("a", "b", "c", "d-sha-256", "d-md5"):
            endpoint.call(client, "delete_object", Key=endpoint.key(name))
    except AccessDenied:
        return ok(
            "delete",
            f"this key may not, and a writer need not: the probes stay in {endpoint.folder}",
        )
    try:
        endpoint.call(client, "head_object", Key=endpoint.key("a"))
    except NotFound:
        condition = "refused" if is_conditional else "not looked at"
        return ok("delete", f"the probes are gone; another ETag is {condition}")
    return fail(
        "delete",
        "a deleted object is still there",
        "Use another endpoint: gc would free nothing here.",
    )


def _refuses_another_etag(endpoint: Endpoint, client: Any) -> bool:
    """Whether a DeleteObjects with another ETag leaves the object, as gc would have it."""
    probe = {"Key": endpoint.key("a"), "ETag": '"00000000000000000000000000000000"'}
    try:
        endpoint.call(client, "delete_objects", Delete={"Objects": [probe], "Quiet": True})
        endpoint.call(client, "head_object", Key=probe["Key"])
    except AccessDenied:
        raise
    except StoreError:
        return False
    return True


def latency(endpoint: Endpoint, client: Any, key: str) -> Finding:
    """Median and 95th percentile of successive GETs of one small object."""
    taken = []
    for _ in range(_LATENCY_SAMPLES):
        started = endpoint.clock()
        try:
            endpoint.read(client, key)
        except NotFound:
            pass  # this is an answer too
        except StoreError as error:
            return fail("latency", what_happened(error), READ_FIX)
        taken.append(endpoint.clock() - started)
    taken.sort()
    median, slow = taken[len(taken) // 2], taken[int(len(taken) * 0.95)]
    what = f"p50 {median * 1000:.0f} ms, p95 {slow * 1000:.0f} ms"
    if median > _SLOW_SECONDS:
        fix = "Move the bucket to a nearer region, or raise sync.concurrency to hide the latency."
        return warn("latency", what, fix)
    return ok("latency", what)
