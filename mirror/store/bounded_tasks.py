"""Tasks under way at once, held to a number and to the bytes that they may have in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Self, TypeVarTuple

Arguments = TypeVarTuple("Arguments")

# Bytes of objects that one run reads or writes at once.
WINDOW_BYTES: Final = 128 << 20


class BoundedTasks:
    """A context whose tasks are done when it ends; the first error of one ends all and is raised.

    Args:
        tasks: so many at once.
        nbytes: so many bytes at once, though one task is always let through.
    """

    def __init__(self, tasks: int, nbytes: int = WINDOW_BYTES) -> None:
        self._most_tasks = tasks
        self._most_bytes = nbytes
        self._tasks = self._bytes = 0
        self._room = asyncio.Condition()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        try:
            await self._group.__aexit__(kind, error, None)
        except BaseExceptionGroup as group:
            raise _first(group) from None

    async def start(
        self,
        nbytes: int,
        work: Callable[[*Arguments], Awaitable[None]],
        *arguments: *Arguments,
    ) -> None:
        """Begin a task once there is room for it and its bytes."""
        async with self._room:
            await self._room.wait_for(
                lambda: (
                    self._tasks == 0
                    or (self._tasks < self._most_tasks and self._bytes + nbytes <= self._most_bytes)
                )
            )
            self._tasks += 1
            self._bytes += nbytes
        self._group.create_task(self._run(nbytes, work, *arguments))

    async def _run(
        self,
        nbytes: int,
        work: Callable[[*Arguments], Awaitable[None]],
        *arguments: *Arguments,
    ) -> None:
        try:
            await work(*arguments)
        finally:
            async with self._room:
                self._tasks -= 1
                self._bytes -= nbytes
                self._room.notify_all()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
