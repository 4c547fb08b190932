"""The wrappers around a store: retries, concurrency, bandwidth, and counts."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror import errors
from mirror.errors import (
    AccessDenied,
    AlreadyExists,
    Conflict,
    NotFound,
    PreconditionFailed,
    StoreError,
    Throttled,
    Transient,
    Unreachable,
)
from mirror.layout import BucketUrl
from mirror.store.base import (
    Create,
    Created,
    Headers,
    NewObject,
    Operation,
    Overwrite,
    Store,
    StoreWrapper,
)
from mirror.store.engines.file import FileStore
from mirror.store.responses import error_from
from mirror.store.retry import Retrying, RetryPolicy
from mirror.store.throttle import (
    AdaptiveLimit,
    BandwidthLimit,
    ConcurrencyGate,
    Counting,
    Throttling,
)

T = TypeVar("T")
PLAIN = Headers()
NO_STORE = FileStore(BucketUrl("file", "", "/nonexistent"))


class Scripted(StoreWrapper):
    """Answers requests from a script: an error to raise, or None for success."""

    def __init__(self, inner: Store, script: Iterable[StoreError | None]) -> None:
        super().__init__(inner)
        self._script = deque(script)
        self.asked = 0

    async def _call(
        self, operation: Operation, nbytes: int, request: Callable[[], Awaitable[T]]
    ) -> T:
        self.asked += 1
        error = self._script.popleft() if self._script else None
        if error is not None:
            raise error
        return await request()


class Time:
    """A clock that advances only by `sleep`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


# --- retry ---

POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 20),
    base=st.floats(0.001, 10),
    cap=st.floats(0.01, 100),
    longest_retry_after=st.floats(0, 1000),
)
JITTERS = st.floats(0, 1, exclude_max=True)


@given(POLICIES, st.integers(1, 100), st.none() | st.floats(0, 1e6), JITTERS)
def test_a_pause_is_between_what_the_server_asked_for_and_the_cap(
    policy: RetryPolicy, failures: int, retry_after: float | None, jitter: float
) -> None:
    pause = policy.pause(failures, retry_after, jitter)
    asked = min(retry_after or 0.0, policy.longest_retry_after)
    assert asked <= pause <= max(policy.cap, asked)


@given(POLICIES, st.integers(1, 30), JITTERS)
def test_a_pause_may_be_longer_after_every_failure(
    policy: RetryPolicy, failures: int, jitter: float
) -> None:
    assert policy.pause(failures + 1, None, jitter) >= policy.pause(failures, None, jitter)
    assert policy.pause(failures, None, 0.0) == 0.0


def retrying(store: Store, time: Time, attempts: int = 4) -> Retrying:
    policy = RetryPolicy(attempts, base=1.0, cap=6.0, longest_retry_after=30.0)
    return Retrying(store, policy, sleep=time.sleep, jitter=lambda: 0.5)


@pytest.mark.parametrize("failures", range(4))
def test_a_transient_failure_is_retried_until_success(failures: int, tmp_path: object) -> None:
    time = Time()
    store = Scripted(FileStore(BucketUrl("file", "", str(tmp_path))), [Unreachable("x")] * failures)
    wrapped = retrying(store, time)
    asyncio.run(wrapped.put("k", b"body", Create(), PLAIN))
    assert asyncio.run(wrapped.get("k")) == b"body"
    assert wrapped.retries == failures
    assert time.slept == [1.0, 2.0, 3.0][:failures]


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_the_last_error_comes_through_after_the_last_attempt(attempts: int) -> None:
    time = Time()
    store = Scripted(NO_STORE, [Throttled(f"refusal {n}") for n in range(1, 9)])
    with pytest.raises(Throttled, match=f"refusal {attempts}"):
        asyncio.run(retrying(store, time, attempts).get("k"))
    assert store.asked == attempts
    assert len(time.slept) == attempts - 1


@pytest.mark.parametrize(("retry_after", "pause"), [(0.1, 1.0), (10.0, 10.0), (3600.0, 30.0)])
def test_the_server_says_when_to_come_back(retry_after: float, pause: float) -> None:
    time = Time()
    store = Scripted(NO_STORE, [Throttled("slow down", retry_after), NotFound("k")])
    with pytest.raises(NotFound):
        asyncio.run(retrying(store, time).get("k"))
    assert time.slept == [pause]


PERMANENT = [
    error
    for error in vars(errors).values()
    if isinstance(error, type)
    and issubclass(error, StoreError)
    and not issubclass(error, Transient)
]


@pytest.mark.parametrize("error", PERMANENT)
def test_a_final_error_is_not_retried(error: type[StoreError]) -> None:
    time = Time()
    store = Scripted(NO_STORE, [error("no"), None])
    with pytest.raises(error):
        asyncio.run(retrying(store, time).head("k"))
    assert store.asked == 1
    assert time.slept == []


def test_every_operation_but_delete_is_repeated(tmp_path: object) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"part"

    async def story(wrapped: Retrying) -> None:
        await wrapped.put("k", b"body", Create(), PLAIN)
        await wrapped.put_multipart("large", chunks, 4, PLAIN)
        assert await wrapped.get("large") == b"part"
        assert await wrapped.get_range("k", 1, 2) == b"od"
        assert (await wrapped.head("k")).size == 4
        assert [info.key for info in await wrapped.list_page("", "")] == ["k", "large"]
        with pytest.raises(Conflict):  # another machine may have written the object since
            await wrapped.delete(["k"])
        assert await wrapped.get("k") == b"body"

    script = [Conflict("again"), None] * 6 + [Conflict("again")]
    wrapped = retrying(
        Scripted(FileStore(BucketUrl("file", "", str(tmp_path))), script), Time(), attempts=2
    )
    asyncio.run(story(wrapped))
    assert wrapped.retries == 6


@pytest.mark.parametrize(
    ("error", "pauses"),
    [(Throttled("x", 10.0), [10.0]), (Conflict("x"), [1.0]), (NotFound("x"), [])],
)
def test_create_in_turn_pauses_after_a_transient_error_and_stops(
    error: StoreError, pauses: list[float], tmp_path: object
) -> None:
    time = Time()
    inner = Scripted(FileStore(BucketUrl("file", "", str(tmp_path))), [None, error])
    wrapped = retrying(inner, time)
    created = asyncio.run(wrapped.create_in_turn(turn_of(3), lambda: False))
    assert created == Created(1, error)
    assert inner.asked == 2
    assert time.slept == pauses
    assert wrapped.retries == len(pauses)


def turn_of(count: int) -> list[NewObject]:
    return [NewObject(f"{number}", bytes(100), PLAIN) for number in range(count)]


# --- concurrency ---


def test_refusals_that_come_together_count_once() -> None:
    limit = AdaptiveLimit(64, settle=1.0)
    for now in (0.0, 0.3, 0.99):
        limit.refused(now)
        assert limit.limit == 32
    limit.refused(1.0)
    assert limit.limit == 16
    limit.refused(1.5)
    assert limit.limit == 16


def test_as_many_successes_as_the_limit_raise_it_by_about_one() -> None:
    limit = AdaptiveLimit(64)
    limit.refused(0.0)
    for _ in range(32):
        limit.succeeded(1.0)
    assert 32.9 < limit.limit <= 33


STEPS = st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=200)


@given(st.integers(1, 100), STEPS)
def test_the_limit_stays_between_one_and_the_most(
    most: int, steps: list[tuple[bool, float]]
) -> None:
    limit = AdaptiveLimit(most, settle=1.0)
    now, halved_at = 0.0, None
    for good, seconds in steps:
        now += seconds
        before = limit.limit
        if good:
            limit.succeeded(1.0)
            assert before <= limit.limit <= before + 1 / before
        else:
            limit.refused(now)
            if halved_at is None or now - halved_at >= 1.0:
                assert limit.limit == max(1.0, before / 2)
                halved_at = now
            else:
                assert limit.limit == before
        assert 1 <= limit.limit <= most


@pytest.mark.parametrize(
    ("milliseconds", "limit"), [(0.4, 8), (1.0, 8), (2.0, 16), (5.5, 44), (8.0, 64), (300.0, 64)]
)
def test_the_limit_follows_littles_law(milliseconds: float, limit: float) -> None:
    near = AdaptiveLimit(64, rate=8000.0)
    assert near.limit == 8
    near.succeeded(16 * milliseconds / 1000, 16)
    assert near.limit == pytest.approx(limit)
    near.succeeded(5.0)  # a slow request says nothing about the distance
    assert near.limit == pytest.approx(limit)


def test_a_near_server_that_refuses_has_fewer_in_flight_still() -> None:
    near = AdaptiveLimit(64, rate=8000.0)
    near.succeeded(0.001)
    near.refused(0.0)
    assert near.limit == 4
    assert AdaptiveLimit(3, rate=8000.0).limit == 3


def run(story: Awaitable[T]) -> T:
    async def guarded() -> T:
        async with asyncio.timeout(30):  # a lost slot would make it wait forever
            return await story

    return asyncio.run(guarded())


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_callers_come_through_in_the_order_in_which_they_came() -> None:
    async def story() -> list[int]:
        gate = ConcurrencyGate(AdaptiveLimit(2))
        order: list[int] = []

        async def caller(number: int) -> None:
            async with gate:
                order.append(number)
                await steps(number % 3)

        await asyncio.gather(*(caller(number) for number in range(20)))
        return order

    assert run(story()) == list(range(20))


def test_a_new_caller_does_not_overtake_waiting_ones_when_the_limit_rises() -> None:
    async def story() -> list[str]:
        limit = AdaptiveLimit(2, settle=0.0)
        limit.refused(0.0)
        gate = ConcurrencyGate(limit)
        order: list[str] = []

        async def caller(name: str) -> None:
            async with gate:
                order.append(name)

        async with gate:
            waiting = asyncio.create_task(caller("waited"))
            await steps(1)
            limit.succeeded(1.0)
            newcomer = asyncio.create_task(caller("newcomer"))
            await steps(3)
        await asyncio.gather(waiting, newcomer)
        return order

    assert run(story()) == ["waited", "newcomer"]


@pytest.mark.parametrize("seed", range(40))
def test_the_gate_holds_its_limit_and_loses_no_slot_however_callers_are_cancelled(
    seed: int,
) -> None:
    chance = random.Random(seed)

    async def story() -> None:
        most = chance.randint(1, 6)
        limit = AdaptiveLimit(most, settle=0.0)
        gate = ConcurrencyGate(limit)
        inside = 0

        async def caller() -> None:
            nonlocal inside
            async with gate:
                inside += 1
                # The limit may have fallen in this step, after the admission.
                assert inside <= most
                try:
                    await steps(chance.randrange(4))
                    if chance.random() < 0.3:
                        limit.refused(0.0)
                    else:
                        limit.succeeded(1.0)
                finally:
                    inside -= 1

        tasks: list[asyncio.Task[None]] = []
        for _ in range(120):
            tasks.append(asyncio.create_task(caller()))
            if chance.random() < 0.4:
                chance.choice(tasks).cancel()
            await steps(chance.randrange(3))
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(one) for one in done} <= {type(None), asyncio.CancelledError}
        assert inside == 0
        while limit.limit < most:
            limit.succeeded(1.0)
        held = [gate.__aenter__() for _ in range(most)]
        await asyncio.gather(*held)  # no slot is lost

    run(story())


def test_a_lowered_limit_holds_for_later_callers() -> None:
    async def story() -> None:
        limit = AdaptiveLimit(4, settle=0.0)
        gate = ConcurrencyGate(limit)
        for _ in range(4):
            await gate.__aenter__()
        limit.refused(0.0)
        waiting = asyncio.create_task(gate.__aenter__())
        for leaving in range(4):
            await steps(3)
            assert waiting.done() == (leaving > 2)
            await gate.__aexit__()

    run(story())


def test_a_cancelled_waiter_leaves_the_gate_to_the_others() -> None:
    async def story() -> None:
        gate = ConcurrencyGate(AdaptiveLimit(1))
        await gate.__aenter__()
        first, second = (asyncio.create_task(gate.__aenter__()) for _ in range(2))
        await steps(2)
        await gate.__aexit__()  # the slot now belongs to the first waiter, which has not run yet
        first.cancel()
        await second

    run(story())


# --- bandwidth ---


@given(st.floats(1, 1e6), st.lists(st.integers(1, 10**7), min_size=1, max_size=50))
def test_at_most_one_request_runs_ahead_of_the_rate(rate: float, sizes: list[int]) -> None:
    time = Time()
    bandwidth = BandwidthLimit(rate, clock=time.clock, sleep=time.sleep)
    before = 0
    for size in sizes:
        asyncio.run(bandwidth.take(size))
        # Earlier bytes have had their time, and no request waits for longer than that.
        assert time.now == pytest.approx(before / rate)
        before += size


def test_takers_at_once_are_spread_over_the_time_they_need() -> None:
    begun: list[float] = []

    async def story() -> None:
        async def sleep(seconds: float) -> None:
            begun.append(seconds)

        bandwidth = BandwidthLimit(100.0, clock=lambda: 0.0, sleep=sleep)
        await asyncio.gather(*(bandwidth.take(50) for _ in range(5)))

    asyncio.run(story())
    assert begun == [0.5, 1.0, 1.5, 2.0]


def test_a_pause_saves_up_no_burst() -> None:
    time = Time()
    bandwidth = BandwidthLimit(100.0, clock=time.clock, sleep=time.sleep)
    time.now = 1000.0
    for _ in range(3):
        asyncio.run(bandwidth.take(200))
    assert time.slept == [2.0, 2.0]


def test_uploads_are_paced_whole_or_in_parts_and_reads_are_not(tmp_path: object) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield bytes(100)

    time = Time()

    async def story() -> None:
        bandwidth = BandwidthLimit(100.0, clock=time.clock, sleep=time.sleep)
        inner = FileStore(BucketUrl("file", "", str(tmp_path)))
        store = Throttling(inner, ConcurrencyGate(AdaptiveLimit(4)), bandwidth, clock=time.clock)
        await store.put("k", bytes(100), Create(), PLAIN)
        await store.get("k")
        assert time.now == 0.0
        await store.put_multipart("large", chunks, 100, PLAIN)
        assert time.now == 3.0

    asyncio.run(story())


def test_create_in_turn_is_paced_object_by_object(tmp_path: object) -> None:
    time = Time()

    async def story() -> None:
        bandwidth = BandwidthLimit(100.0, clock=time.clock, sleep=time.sleep)
        inner = FileStore(BucketUrl("file", "", str(tmp_path)))
        store = Throttling(inner, ConcurrencyGate(AdaptiveLimit(4)), bandwidth, clock=time.clock)
        assert await store.create_in_turn(turn_of(4), lambda: False) == Created(4, None)

    asyncio.run(story())
    assert time.slept == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("error", "limit"), [(Throttled("x"), 4), (Unreachable("x"), 4), (AlreadyExists("x"), 8)]
)
def test_create_in_turn_adapts_the_limit(error: StoreError, limit: float, tmp_path: object) -> None:
    gate = ConcurrencyGate(AdaptiveLimit(8))
    inner = Scripted(FileStore(BucketUrl("file", "", str(tmp_path))), [None, error])
    created = asyncio.run(Throttling(inner, gate).create_in_turn(turn_of(3), lambda: False))
    assert created == Created(1, error)
    assert gate.limit.limit == limit


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (Throttled("x"), 4),
        (Unreachable("x"), 4),
        (Conflict("x"), 8),
        (NotFound("x"), 8),
        (AlreadyExists("x"), 8),
    ],
)
def test_only_a_server_in_distress_lowers_the_limit(error: StoreError, limit: float) -> None:
    gate = ConcurrencyGate(AdaptiveLimit(8))
    store = Throttling(Scripted(NO_STORE, [error]), gate)
    with pytest.raises(type(error)):
        asyncio.run(store.get("k"))
    assert gate.limit.limit == limit


def test_requests_are_counted_as_they_are_billed(tmp_path: object) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"part"

    async def story() -> dict[str, int]:
        inner = FileStore(BucketUrl("file", "", str(tmp_path)))
        counting = Counting(Scripted(inner, [Throttled("x")]))
        store = retrying(counting, Time())
        await store.put("k", b"x", Overwrite(), PLAIN)  # two attempts
        await store.get("k")
        await store.get_range("k", 0, 1)
        await store.head("k")
        await store.list_page("", "")
        await store.delete(["k", "j"])
        with pytest.raises(NotFound):
            await store.get("k")
        before = counting.requests["put"]
        await store.put_multipart("large", chunks, 4, PLAIN)
        assert counting.requests["put"] - before == 5  # begun, three parts, completed
        new = [NewObject("new", b"x", PLAIN), NewObject("large", b"taken", PLAIN)]
        assert (await store.create_in_turn([*new, *turn_of(2)], lambda: False)).written == 1
        return counting.requests

    assert asyncio.run(story()) == {"put": 9, "get": 3, "head": 1, "list": 1, "delete": 1}


# --- refusals ---

REFUSALS = [
    (404, "NoSuchKey", NotFound),
    (404, "", NotFound),
    (404, "NoSuchBucket", errors.BucketMissing),
    (412, "PreconditionFailed", PreconditionFailed),
    (412, "", PreconditionFailed),
    (409, "ConditionalRequestConflict", Conflict),
    (409, "OperationAborted", Conflict),
    (403, "AccessDenied", AccessDenied),
    (403, "", AccessDenied),
    (403, "InvalidAccessKeyId", errors.BadCredentials),
    (403, "SignatureDoesNotMatch", errors.BadCredentials),
    (400, "ExpiredToken", errors.BadCredentials),
    (400, "InvalidToken", errors.BadCredentials),
    (401, "Unauthorized", errors.BadCredentials),
    (401, "", errors.BadCredentials),
    (403, "RequestTimeTooSkewed", errors.ClockSkew),
    (301, "PermanentRedirect", errors.WrongRegion),
    (307, "TemporaryRedirect", errors.WrongRegion),
    (400, "AuthorizationHeaderMalformed", errors.WrongRegion),
    (400, "BadDigest", Unreachable),
    (400, "IncompleteBody", Unreachable),
    (400, "RequestTimeout", Unreachable),
    (400, "XAmzContentSHA256Mismatch", Unreachable),
    (408, "", Unreachable),
    (429, "TooManyRequests", Throttled),
    (429, "", Throttled),
    (500, "InternalError", Throttled),
    (502, "", Throttled),
    (503, "SlowDown", Throttled),
    (503, "ServiceUnavailable", Throttled),
    (504, "", Throttled),
    (200, "SlowDown", Throttled),
    # Cloudflare's own statuses, for R2 or a custom domain: the origin did not answer.
    (520, "", Throttled),
    (522, "", Throttled),
    (524, "", Throttled),
    (400, "InvalidPart", StoreError),
    (400, "EntityTooLarge", StoreError),
    (501, "NotImplemented", StoreError),
]


@pytest.mark.parametrize(("status", "code", "means"), REFUSALS)
def test_a_refusal_means(status: int, code: str, means: type[StoreError]) -> None:
    error = error_from(status, code, "PUT objects/k", "the server's words")
    assert type(error) is means
    assert str(error).startswith("PUT objects/k: ")
    assert f"({status} {code or 'the server' + chr(39) + 's words'})" in str(error)


@pytest.mark.parametrize(("status", "code"), [(429, ""), (503, "SlowDown"), (400, "BadDigest")])
def test_a_refusal_keeps_when_to_come_back(status: int, code: str) -> None:
    error = error_from(status, code, "GET k", retry_after=7.0)
    assert isinstance(error, Transient)
    assert error.retry_after == 7.0
