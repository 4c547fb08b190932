"""A server that sends scripted bytes, in any pieces, and counts connections."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Self


class Close:
    """End the connection."""


class Never:
    """Send nothing more, and keep the connection open."""


# The server waits for an event.
Piece = bytes | threading.Event | type[Close] | type[Never]
# The pieces to send for a request, given its number (from 0) and its head.
Script = Callable[[int, bytes], Iterable[Piece]]


def answer(
    body: bytes = b"", status: str = "200 OK", *headers: str, length: int | None = None
) -> bytes:
    """An answer with a Content-Length."""
    number = len(body) if length is None else length
    head = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {number}"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class Scripted:
    """The server: on a free loopback port, on its own thread, inside a with block.

    Attributes:
        url: of its root, without a slash behind.
        connections: that were made.
        requests: their heads, in order.
    """

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="scripted")
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.requests: list[bytes] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        async with server:
            port = server.sockets[0].getsockname()[1]
            self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
            self._ready.set()
            await self._stop.wait()
            await _settled()  # accept pending connections, which would otherwise stay open
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            # A task that was cancelled before it began, or at its end, leaves its connection open.
            for writer in self._writers:
                writer.transport.abort()
            await _settled()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._attend(reader, writer))
        self._tasks.add(task)
        self._writers.add(writer)
        task.add_done_callback(self._tasks.discard)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head)
                for piece in self._script(len(self.requests) - 1, head):
                    if piece is Close:
                        return
                    if piece is Never:
                        await self._stop.wait()
                        return
                    if isinstance(piece, threading.Event):
                        while not piece.is_set():  # noqa: ASYNC110 - another thread sets it
                            await asyncio.sleep(0.001)
                        continue
                    assert isinstance(piece, bytes)
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._writers.discard(writer)


async def _settled() -> None:
    """More turns of the loop than asyncio takes to report a new connection."""
    for _ in range(10):
        await asyncio.sleep(0)
