"""How removing old objects and adopting them keep out of each other's way: `gc.json`, and ages.

DELETE has no condition. Between gc's look at an old object that no row names and its DELETE, a
writer may meet that object, find its own bytes there, and name it in a row. So:

- Who removes says so in `gc.json` first, then looks at each object's age once more, and removes it
  only while that word is fresh: `keep_alive`, look, `require_alive`, remove, in this order.
- Who adopts an object that is not young writes it anew, which makes it young, and reads `gc.json`
  before and after: if nothing was being removed at either time, and it is the same sweep or none
  both times, then any removal looks at the object's age after it was renewed.

A young object needs none of this: it outlives every row that is on its way. The rules are
docs/format.md's; they hold for every writer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
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
from mirror.layout import SWEEP_KEY
from mirror.store.base import Create, Headers, IfMatch, Store
from mirror.system.clock import since_boot

# How long a writer may rely on what it knows of an object until it commits a row that names it.
KNOWN_FOR: Final = timedelta(days=1)
# Nothing is removed that is younger; twice that, for the age counts from either end.
SHORTEST_GRACE: Final = 2 * KNOWN_FOR
# A sweep that has said nothing for so long is dead,
LEASE: Final = timedelta(hours=1)
# and one that is alive says that it is this often.
RENEW: Final = timedelta(minutes=10)
# Clocks of a client and of a server that S3 lets pass.
_SKEW: Final = timedelta(minutes=15)

_HEADERS: Final = Headers(content_type="application/json", cache_control="no-cache")


class GcLease(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of gc.json.

    Attributes:
        run: another one for each sweep.
        state: `planning` removes nothing yet; `deleting` may remove objects now; `idle` is over.
        holder: who.
    """

    run: str
    state: Literal["planning", "deleting", "idle"]
    holder: str = ""


async def read_sweep(store: Store) -> GcLease | None:
    """The last sweep of a mirror; None where there was none.

    Raises:
        FormatError: gc.json is not what this version knows.
        StoreError: it could not be read.
    """
    try:
        body = await store.get(SWEEP_KEY)
    except NotFound:
        return None
    try:
        return msgspec.json.decode(body, type=GcLease)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise FormatError(
            f"{store.url}/{SWEEP_KEY} is not understood; upgrade dataset-mirror, or delete it when "
            "no mirror gc is at work."
        ) from None


def is_young(written: datetime, now: datetime) -> bool:
    """Whether an object may be adopted as it is. What is from the future is of an unknown age."""
    return -_SKEW <= now - written < KNOWN_FOR


async def renew(store: Store, key: str, write: Callable[[], Awaitable[object]]) -> None:
    """Write an object anew, so that no removal can meet it as the old one that it was.

    Args:
        store: the mirror's.
        key: of the object.
        write: writes the same bytes again.

    Raises:
        StoreError: a removal may have met it; it is not to be named in a row by this run.
        PreconditionFailed: it has changed meanwhile.
    """
    before = await read_sweep(store)
    # What a lock of the bucket keeps from being overwritten, it keeps from being removed as well.
    with suppress(AccessDenied):
        await write()
    after = await read_sweep(store)
    if after == before and (after is None or after.state != "deleting"):
        return
    if after is not None and after == before:
        object_at = (await store.head(key)).last_modified
        sweep_at = (await store.head(SWEEP_KEY)).last_modified
        if object_at - sweep_at > LEASE:
            return  # it died long before: what it had begun to send has arrived
    raise StoreError("mirror gc is removing old objects at this moment; left for the next run")


@dataclass
class HeldLease:
    """A sweep of ours.

    Attributes:
        now: the server's clock when it was last written down.
        clock: this machine's, which must go on while it sleeps.
        said_at: by `clock`, when that writing was begun; the server may have done it at once.
    """

    store: Store
    sweep: GcLease
    etag: str
    now: datetime
    clock: Callable[[], float]
    said_at: float

    @classmethod
    async def begin(
        cls,
        store: Store,
        run: str,
        holder: str,
        now: datetime,
        clock: Callable[[], float] = since_boot,
    ) -> HeldLease:
        """Take the sweep.

        Args:
            store: the mirror's.
            run: an id of this sweep.
            holder: an id of who asks, who knows that no other process of the same is at work.
            now: this machine's clock, to tell a sweep that died.
            clock: another one, that only goes forward: see the class.

        Raises:
            Busy: another one is at work.
        """
        sweep, said_at = GcLease(run=run, state="planning", holder=holder), clock()
        body = msgspec.json.encode(sweep)
        try:
            found = await read_sweep(store)
            if found is None:
                await store.put(SWEEP_KEY, body, Create(), _HEADERS)
            else:
                info = await store.head(SWEEP_KEY)
                alive = now - info.last_modified < LEASE
                if found.state != "idle" and found.holder != holder and alive:
                    raise Busy(
                        f"Another mirror gc is at work on {store.url} (gc.json says so since "
                        f"{info.last_modified:%H:%M} UTC); if it was killed, wait an hour."
                    )
                await store.put(SWEEP_KEY, body, IfMatch(info.etag), _HEADERS)
        except (AlreadyExists, PreconditionFailed, NotFound):
            if await read_sweep(store) != sweep:  # else: it was written, the answer was lost
                raise Busy(
                    f"Another mirror gc has just begun on {store.url}; wait for it."
                ) from None
        info = await store.head(SWEEP_KEY)
        return cls(store, sweep, info.etag, info.last_modified, clock, said_at)

    async def say(self, state: Literal["planning", "deleting", "idle"]) -> None:
        """Write down what is going on; also that this is still alive.

        Raises:
            Busy: somebody else has taken over.
        """
        sweep, said_at = msgspec.structs.replace(self.sweep, state=state), self.clock()
        try:
            await self.store.put(
                SWEEP_KEY, msgspec.json.encode(sweep), IfMatch(self.etag), _HEADERS
            )
        except PreconditionFailed:
            if await read_sweep(self.store) != sweep:  # else: it was written, the answer was lost
                raise Busy(
                    "Another mirror gc has taken over; this one was silent too long."
                ) from None
        info = await self.store.head(SWEEP_KEY)
        self.sweep, self.etag = sweep, info.etag
        self.now, self.said_at = info.last_modified, said_at

    async def keep_alive(self) -> None:
        """Say the same again, if it was said a while ago. What was seen before is nothing worth then.

        Raises:
            Busy: somebody else has taken over.
        """
        if self._silent_for > RENEW.total_seconds():
            await self.say(self.sweep.state)

    def require_alive(self) -> None:
        """Raises: StoreError: others may take this sweep for dead by now, and adopt what it has seen."""
        if self._silent_for > LEASE.total_seconds() / 2:
            raise StoreError(
                "This run stood still for too long between two steps (was the machine asleep?); "
                "run mirror gc again."
            )

    @property
    def _silent_for(self) -> float:
        return self.clock() - self.said_at
