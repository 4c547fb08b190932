"""An S3 endpoint under examination: plain requests by boto3, with retries and names for probes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from mirror.errors import Transient, Unreachable
from mirror.layout import PROBES
from mirror.store.retry import RetryPolicy
from mirror.store.s3_access import S3Access, translate_botocore
from mirror.store.unreachable import etag_in

# R2 takes one write a second for each key, so a retry after a refusal must wait that long.
PATIENCE: Final = RetryPolicy(attempts=3, base=0.6)
# Headers of a probe.
CONTENT_TYPE: Final = "image/jpeg"
CACHE_CONTROL: Final = "private, max-age=60"
# Buckets with Object Lock require a checksum of every PUT, which both engines send.
SUMMED: Final = {"ChecksumAlgorithm": "SHA256"}


@dataclass(frozen=True)
class Endpoint:
    """An S3 endpoint under examination.

    Attributes:
        access: where the bucket is, and its credentials.
        engine: the engine in use, `obstore` or `aioboto3`. It decides which checksum matters.
        now: seconds since 1970.
        clock: seconds of any origin, for latencies.
        sleep: waits for a number of seconds.
        run: a name for this run's probes that no other run uses.
    """

    access: S3Access
    engine: str = "obstore"
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    run: str = field(default_factory=lambda: secrets.token_hex(8))

    def key(self, name: str) -> str:
        """The key in the bucket of a probe."""
        return f"{self.folder}{name}"

    @property
    def folder(self) -> str:
        """The prefix in the bucket of this run's probes."""
        return f"{self.access.prefix}{PROBES}{self.run}/"

    def call(self, client: Any, operation: str, **fields: Any) -> dict[str, Any]:
        """Send one request to the bucket, and retry transient failures.

        Args:
            client: boto3's.
            operation: the name of its method.
            fields: arguments of the method, without `Bucket`.

        Raises:
            StoreError: the last refusal, translated by `mirror.store.responses`.
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
        """Write a probe, and return its ETag."""
        fields = {
            "ContentType": CONTENT_TYPE,
            "CacheControl": CACHE_CONTROL,
            **SUMMED,
            **conditions,
        }
        answer = self.call(client, "put_object", Key=self.key(name), Body=body, **fields)
        return etag_in(answer, f"PUT {self.key(name)}")

    def read(self, client: Any, key: str) -> bytes:
        """Read an object whole.

        Raises:
            StoreError: the server refused, or the answer broke off.
        """
        from botocore.exceptions import BotoCoreError

        answer = self.call(client, "get_object", Key=key)
        try:
            data: bytes = answer["Body"].read()
        except (BotoCoreError, OSError) as error:
            raise Unreachable(f"GET {key}: the answer broke off ({error}).") from None
        return data
