"""The lease in `gc.json`, and how gc and writers keep out of each other's way over old objects.

A condition of DELETE does not help: on S3 an object and the same bytes written again have one ETag.
Between gc's check of an old, unreferenced object and its DELETE, a writer may find the same bytes
there and commit a row that names the object. Two rules prevent that:

- gc writes `deleting` into `gc.json` first. Then it checks each object's age again, and deletes only
  while its lease is fresh: `keep_alive`, check, `require_alive`, delete, in this order. A DELETE
  that failed is repeated in the same order, and never blindly.
- A writer that adopts or repairs an object which is not young rewrites it, which makes it young. It reads
  `gc.json` before and after. If nothing was being deleted at either time, and the lease did not
  change between them, any later deletion checks the object's age after the rewrite.

A young object needs neither: it outlives every row that is on its way. docs/format.md specifies
these rules for every writer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from mirror.errors import (
    AccessDenied,
    AlreadyExists,
    Busy,
    FormatError,
    NotFound,
    PreconditionFailed,
    StoreError,
)
from mirror.layout import GC_LEASE_KEY
from mirror.store.base import Create, Headers, IfMatch, ObjectInfo, Store
from mirror.system.clock import since_boot

# How long a writer may rely on what it knows of an object before it commits a row that names it.
KNOWN_FOR: Final = timedelta(days=1)
# gc deletes nothing younger. Twice KNOWN_FOR, because a writer may adopt an object of that age
# without rewriting it, and commit its row that much later.
SHORTEST_GRACE: Final = 2 * KNOWN_FOR
# A lease that was not renewed for this long has lapsed: its holder is taken for dead.
LEASE_DURATION: Final = timedelta(hours=1)
# A holder renews its lease this often.
RENEW_EVERY: Final = timedelta(minutes=10)
# S3 accepts clocks of client and server that differ by this much.
_SKEW: Final = timedelta(minutes=15)

_HEADERS: Final = Headers(content_type="application/json", cache_control="no-cache")

State = Literal["planning", "deleting", "idle"]


class GcLease(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of gc.json.

    Attributes:
        run: an id that differs for every run of gc.
        state: `planning` deletes nothing yet; `deleting` may delete objects now; `idle` is over.
        holder: an id of the machine and its state folder.
    """

    run: str
    state: State
    holder: str = ""


async def read_lease(store: Store) -> GcLease | None:
    """Read the latest lease of a mirror; None where gc has never run.

    Raises:
        FormatError: this version does not understand gc.json.
        StoreError: it could not be read.
    """
    try:
        body = await store.get(GC_LEASE_KEY)
    except NotFound:
        return None
    try:
        return msgspec.json.decode(body, type=GcLease)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise FormatError(
            f"{store.url}/{GC_LEASE_KEY} is not understood; upgrade dataset-mirror, or delete it "
            "while no mirror gc is running."
        ) from None


def is_young(written: datetime, now: datetime) -> bool:
    """Whether a writer may adopt an object without rewriting it.

    An object from the future has an unknown age, so it is not young.
    """
    return -_SKEW <= now - written < KNOWN_FOR


async def overwrite(store: Store, info: ObjectInfo, write: Callable[[], Awaitable[object]]) -> None:
    """Overwrite an object, so that no deletion can take it for the old one.

    Every overwrite of an existing object goes through here: an adoption, a repair of damaged bytes,
    whole and in parts. Only a young object needs no look at gc.json.

    Args:
        store: the mirror's.
        info: the object, as it was found.
        write: writes the right bytes.

    Raises:
        StoreError: gc may be about to delete it, or this key may not overwrite it; this run must not
            name it in a row.
        PreconditionFailed: the object has changed meanwhile.
    """
    key = info.key
    if is_young(info.last_modified, await store.now()):
        await _write(key, write)
        return
    before = await read_lease(store)
    await _write(key, write)
    after = await read_lease(store)
    if after == before and (after is None or after.state != "deleting"):
        return
    if after is not None and after == before:
        rewritten_at = (await store.head(key)).last_modified
        lease_at = (await store.head(GC_LEASE_KEY)).last_modified
        if rewritten_at - lease_at > LEASE_DURATION:
            return  # that gc died long before: every DELETE that it had sent has arrived
    raise StoreError("mirror gc is removing old objects at this moment; left for the next run")


async def _write(key: str, write: Callable[[], Awaitable[object]]) -> None:
    try:
        await write()
    except AccessDenied:
        # The upload's first PUT was not refused, so this key may write.
        raise StoreError(
            f"{key} is in the bucket without a row and may not be overwritten; give this key "
            "s3:PutObject without a condition on s3:if-none-match, or wait until the bucket's lock "
            "ends; left for the next run"
        ) from None


@dataclass
class HeldLease:
    """A lease that this process holds.

    Attributes:
        store: the mirror's.
        lease: what gc.json says.
        etag: of gc.json.
        server_time: the server's clock when the lease was last written.
        clock: this machine's, in seconds; it must go on while the machine sleeps.
        sent_at: by `clock`, when that write began; the server may have done it at once.
    """

    store: Store
    lease: GcLease
    etag: str
    server_time: datetime
    clock: Callable[[], float]
    sent_at: float

    @classmethod
    async def acquire(
        cls,
        store: Store,
        run: str,
        holder: str,
        clock: Callable[[], float] = since_boot,
    ) -> HeldLease:
        """Take the lease.

        Args:
            store: the mirror's.
            run: an id of this run.
            holder: an id of the caller, which guarantees that no other process uses the same one now.
            clock: seconds that only go forward: see the class.

        Raises:
            Busy: another gc holds the lease.
        """
        lease, sent_at = GcLease(run=run, state="planning", holder=holder), clock()
        body = msgspec.json.encode(lease)
        try:
            found = await read_lease(store)
            if found is None:
                await store.put(GC_LEASE_KEY, body, Create(), _HEADERS)
            else:
                info = await store.head(GC_LEASE_KEY)
                is_valid = await store.now() - info.last_modified < LEASE_DURATION
                if found.state != "idle" and found.holder != holder and is_valid:
                    raise Busy(
                        f"Another mirror gc is at work on {store.url} (gc.json says so since "
                        f"{info.last_modified:%H:%M} UTC); if it was killed, wait an hour."
                    )
                await store.put(GC_LEASE_KEY, body, IfMatch(info.etag), _HEADERS)
        except (AlreadyExists, PreconditionFailed, NotFound):
            if await read_lease(store) != lease:  # else our write arrived and its answer was lost
                raise Busy(
                    f"Another mirror gc has just begun on {store.url}; wait for it."
                ) from None
        info = await store.head(GC_LEASE_KEY)
        return cls(store, lease, info.etag, info.last_modified, clock, sent_at)

    async def write(self, state: State) -> None:
        """Write a state into gc.json, which also renews the lease.

        Raises:
            Busy: another gc has taken over.
        """
        lease, sent_at = msgspec.structs.replace(self.lease, state=state), self.clock()
        body = msgspec.json.encode(lease)
        try:
            await self.store.put(GC_LEASE_KEY, body, IfMatch(self.etag), _HEADERS)
        except PreconditionFailed:
            if await read_lease(self.store) != lease:  # else our write arrived, its answer was lost
                raise Busy(
                    "Another mirror gc has taken over, because this one did not renew its lease in "
                    "time; run mirror gc again when the other one is done."
                ) from None
        info = await self.store.head(GC_LEASE_KEY)
        self.lease, self.etag = lease, info.etag
        self.server_time, self.sent_at = info.last_modified, sent_at

    async def keep_alive(self) -> None:
        """Renew the lease when it is due. Whatever was checked before must be checked again.

        Raises:
            Busy: another gc has taken over.
        """
        if self._age > RENEW_EVERY.total_seconds():
            await self.write(self.lease.state)

    def require_alive(self) -> None:
        """Refuse to go on with a lease that others may soon take for lapsed.

        Raises:
            StoreError: it is older than half its duration, so that a writer may adopt what this run
                has checked.
        """
        if self._age > LEASE_DURATION.total_seconds() / 2:
            raise StoreError(
                "This run stood still for too long between two steps (was the machine asleep?); "
                "run mirror gc again."
            )

    @property
    def _age(self) -> float:
        return self.clock() - self.sent_at
