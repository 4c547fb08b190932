"""Blocking calls from an event loop: each gets its own answer, whatever the others do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from mirror.store.blocking import BlockingCalls


@pytest.fixture
def calls() -> Iterator[BlockingCalls]:
    made = BlockingCalls()
    yield made
    made.close()


def call_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "call"]


def test_each_call_gets_its_own_answer(calls: BlockingCalls) -> None:
    async def one(number: int) -> int:
        return await calls.result_of(lambda: number * number)

    async def many() -> list[int]:
        return await asyncio.gather(*map(one, range(2000)))

    for _ in range(2):  # each in a loop of its own
        assert asyncio.run(many()) == [number * number for number in range(2000)]


def test_calls_wait_at_the_same_time_and_one_that_fails_fails_alone(calls: BlockingCalls) -> None:
    together = threading.Barrier(8)

    def wait(number: int) -> int:
        together.wait(30)
        if number == 3:
            raise LookupError(f"{number}")
        return number

    async def many() -> list[int | BaseException]:
        waiting = [calls.result_of(lambda n=n: wait(n)) for n in range(8)]  # type: ignore[misc]
        return await asyncio.gather(*waiting, return_exceptions=True)

    answers = asyncio.run(many())
    assert isinstance(answers.pop(3), LookupError)
    assert answers == [0, 1, 2, 4, 5, 6, 7]


def test_a_call_that_is_given_up_goes_on_and_harms_no_other(calls: BlockingCalls) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert go_on.wait(30)
        done.set()

    async def give_up() -> str:
        task = asyncio.ensure_future(calls.result_of(slow))
        await calls.result_of(lambda: begun.wait(30))
        task.cancel()
        go_on.set()
        await calls.result_of(lambda: done.wait(30))
        with pytest.raises(asyncio.CancelledError):
            await task
        return await calls.result_of(lambda: "next")

    assert asyncio.run(give_up()) == "next"


def test_threads_are_used_again_and_end(calls: BlockingCalls) -> None:
    before = call_threads()

    async def one_by_one() -> None:
        for _ in range(100):
            await calls.result_of(lambda: None)

    asyncio.run(one_by_one())
    made = [thread for thread in call_threads() if thread not in before]
    assert len(made) == 1
    calls.close()
    made[0].join(30)
    assert not made[0].is_alive()


def test_a_call_that_outlives_its_loop_is_forgotten(calls: BlockingCalls) -> None:
    go_on = threading.Event()

    async def leave() -> None:
        asyncio.ensure_future(calls.result_of(lambda: go_on.wait(30)))  # noqa: RUF006
        await asyncio.sleep(0)

    async def next_one() -> int:
        return await calls.result_of(lambda: 1)

    asyncio.run(leave())
    go_on.set()
    assert asyncio.run(next_one()) == 1
