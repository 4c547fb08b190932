"""Lets other commands run between two steps of a command, at moments that a seed draws.

A step is a request to the store, a read or commit of the catalog, a change of the state's record, or
a write into a cache. `Story.reach` is called before and after each step. It may let another machine
run a whole command there, let hours or days pass, refuse the request, or lose its answer.

Time is virtual: `World` dates objects by a clock that the story advances, on every kind of place. So
objects grow old within a test, and a machine can stand still for days between two requests.

The draw at a step depends on the seed, the command and the step's name only. So a story is the same
again, even if the threads of a command take turns in another order.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from mirror.cache.cache_writer import CacheWriter
from mirror.catalog.delta_table import Catalog
from mirror.catalog.open_mirror import Location
from mirror.errors import Throttled, Unreachable
from mirror.store.base import (
    Created,
    Headers,
    ObjectInfo,
    Overwrite,
    Store,
    create_with_put,
    list_all,
)
from mirror.sync.state import State
from mirror.system.clock import since_boot
from tests.conftest import Place

DAY = 86_400.0

_WRITES = ("put", "put_multipart")
_REQUESTS = (*_WRITES, "get", "get_range", "head", "list_page", "delete")
# Methods that are a step each.
_STEPS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (Catalog, ("append", "append_after", "compact", "data_files", "refresh")),
    (State, ("record", "forget", "mark")),
    (CacheWriter, ("begin", "publish")),
)
# The chance that something comes between, and that a request is disturbed, by the kind of a step.
_CHANCES = {
    "delete": (0.6, 0.3),
    **dict.fromkeys((*_WRITES, "append", "append_after"), (0.25, 0.08)),
}
_CHANCES |= dict.fromkeys(("refresh", "record", "begin", "publish"), (0.25, 0.0))
_CHANCES_OF_A_READ = (0.06, 0.02)
_RANDOM_NAME = re.compile(r"part-[0-9a-f-]+|[0-9a-f]{8}-[0-9a-f-]{27}")


class World:
    """A place for a mirror, and the time by its store's clock.

    Attributes:
        days: how far the clock is ahead of this machine's.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.days = 0.0
        self._written_at: dict[str, float] = {}

    def advance(self, days: float) -> None:
        """Let days pass."""
        for key in self._run(_keys):
            self._written_at.setdefault(key, self.days)
        self.days += days

    def written(self, key: str) -> None:
        """Date an object: it was written at this moment."""
        self._written_at[key] = self.days

    def dated(self, answer: Any) -> Any:
        """A store's answer, with its times by the clock of the world."""
        if isinstance(answer, list):
            return [self.dated(info) for info in answer]
        if not isinstance(answer, ObjectInfo):
            return answer
        days = timedelta(days=self._written_at.get(answer.key, self.days))
        return replace(answer, last_modified=answer.last_modified + days)

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time() + self.days * DAY

    def since_boot(self) -> float:
        return since_boot() + self.days * DAY

    def put(self, key: str, body: bytes) -> None:
        """Write an object behind the back of every command."""
        self._run(lambda store: store.put(key, body, Overwrite(), Headers()))
        self.written(key)

    def delete(self, key: str) -> None:
        self._run(lambda store: store.delete([key]))

    def _run(self, use: Callable[[Store], Any]) -> Any:
        async def run() -> Any:
            store = self.place.open()
            try:
                return await use(store)
            finally:
                await store.aclose()

        return in_a_thread(lambda: asyncio.run(run()))


async def _keys(store: Store) -> list[str]:
    return [info.key async for info in list_all(store, "")]


def in_a_thread(call: Callable[[], Any]) -> Any:
    """Call in a new thread, because the caller's may have a running event loop."""
    result: Future[Any] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            result.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return result.result()


@dataclass
class Frame:
    """A command that is running.

    Attributes:
        path: names the command within its story: its number, below those that it came into.
        holder: the machine that runs it.
        name: of the command.
        outer: the command that stands still meanwhile.
    """

    story: Story
    path: str
    holder: str
    name: str
    outer: Frame | None = None
    seen: Counter[str] = field(default_factory=Counter)
    let_in: int = 0
    faults: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def depth(self) -> int:
        return 0 if self.outer is None else self.outer.depth + 1

    @property
    def holders(self) -> set[str]:
        """The machines that are at work: this one and those that stand still for it."""
        return {self.holder} | (self.outer.holders if self.outer else set())


_frame: contextvars.ContextVar[Frame | None] = contextvars.ContextVar("frame", default=None)


class Story:
    """Commands of several machines, one inside another. A subclass says what comes between.

    Attributes:
        lines: what happened, one line each.
        let_in: how many commands came between two steps of another.
        faults: how many requests were refused, or lost their answer.
    """

    DEEPEST = 2
    MOST_AT_ONE_COMMAND = 2

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.seed = seed
        self.lines: list[str] = []
        self.let_in = 0
        self.faults = 0

    def come_between(self, frame: Frame, chance: random.Random) -> None:
        """Do something while the command of `frame` stands still."""
        raise NotImplementedError

    def say(self, frame: Frame | None, line: str) -> None:
        self.lines.append("    " * (0 if frame is None else frame.depth) + line)

    def run(self, frame: Frame, command: Callable[[], Any]) -> Any:
        """Run a command, with its steps interrupted."""

        def call() -> Any:
            _frame.set(frame)
            return command()

        return in_a_thread(lambda: contextvars.copy_context().run(call))

    def reach(self, frame: Frame, moment: str, step: str, *, is_request: bool) -> None:
        """A command has reached a moment, before or after one of its steps.

        Raises:
            Throttled: the request is refused, before the step.
            Unreachable: the request's answer is lost, after the step.
        """
        with frame.lock:
            what = _RANDOM_NAME.sub("…", f"{moment} {step}")
            frame.seen[what] += 1
            chance = random.Random(f"{self.seed}/{frame.path}/{what}/{frame.seen[what]}")
            between, disturbed = _CHANCES.get(step.split(maxsplit=1)[0], _CHANCES_OF_A_READ)
            if chance.random() < between and self._may_come_between(frame):
                frame.let_in += 1
                self.say(frame, f"    {what}:")
                self.come_between(frame, chance)
            if is_request and chance.random() < disturbed and frame.faults < 3:
                frame.faults += 1
                self.faults += 1
                self.say(frame, f"    {what}: " + ("503" if moment == "before" else "answer lost"))
                if moment == "before":
                    raise Throttled(f"{step}: 503.")
                raise Unreachable(f"{step}: the answer is lost.")

    def _may_come_between(self, frame: Frame) -> bool:
        return frame.depth < self.DEEPEST and frame.let_in < self.MOST_AT_ONE_COMMAND


class SteppedStore:
    """A store whose requests are steps of a command. Its times are those of the world."""

    def __init__(self, inner: Store, frame: Frame) -> None:
        self._inner = inner
        self._frame = frame

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        return functools.partial(self._request, name, method) if name in _REQUESTS else method

    async def now(self) -> Any:
        return await self._inner.now() + timedelta(days=self._frame.story.world.days)

    async def create_in_turn(self, objects: Any, stopped: Callable[[], bool]) -> Created:
        return await create_with_put(self, objects, stopped)

    async def _request(self, name: str, send: Callable[..., Any], *arguments: Any) -> Any:
        story, key = self._frame.story, arguments[0]
        step = f"{name} {key if isinstance(key, str) else ' '.join(key)}"
        story.reach(self._frame, "before", step, is_request=True)
        answer = await send(*arguments)
        if name in _WRITES:
            story.world.written(key)
        answer = story.world.dated(answer)
        story.reach(self._frame, "after", step, is_request=True)
        return answer


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every step of a command that a story runs call `Story.reach`."""
    opened = Location.store

    def store(location: Location) -> Any:
        frame, inner = _frame.get(), opened(location)
        return inner if frame is None else SteppedStore(inner, frame)

    monkeypatch.setattr(Location, "store", store)
    for owner, names in _STEPS:
        for name in names:
            monkeypatch.setattr(owner, name, _stepped(getattr(owner, name), name))


def _stepped(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    def reach(moment: str) -> None:
        if (frame := _frame.get()) is not None:
            frame.story.reach(frame, moment, name, is_request=False)

    @functools.wraps(method)
    async def awaited(*arguments: Any, **options: Any) -> Any:
        reach("before")
        result = await method(*arguments, **options)
        reach("after")
        return result

    @functools.wraps(method)
    def called(*arguments: Any, **options: Any) -> Any:
        reach("before")
        result = method(*arguments, **options)
        reach("after")
        return result

    return awaited if inspect.iscoroutinefunction(method) else called
