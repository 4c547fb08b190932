"""Concurrent tasks, limited by their number and by the bytes that they hold in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Self, TypeVarTuple

Arguments = TypeVarTuple("Arguments")

# Bytes of objects that one run reads or writes at once.
WINDOW_BYTES: Final = 128 << 20


class BoundedTasks:
    """An async context that runs tasks within limits, and waits for all of them at its end.

    The first error of a task cancels the others and is raised.

    Args:
        tasks: the most tasks at once.
        nbytes: the most bytes at once. A single larger task still runs, alone.
    """

    def __init__(self, tasks: int, nbytes: int = WINDOW_BYTES) -> None:
        self._max_tasks = tasks
        self._max_bytes = nbytes
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
        """Wait until there is room for a task and its bytes, then start it.

        Args:
            nbytes: how many bytes the task will hold in memory.
            work: the task.
            arguments: of `work`.
        """
        async with self._room:
            await self._room.wait_for(
                lambda: (
                    self._tasks == 0
                    or (self._tasks < self._max_tasks and self._bytes + nbytes <= self._max_bytes)
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
