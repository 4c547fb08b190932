"""A relay in front of a MongoDB server that changes its answers.

A server that checks what is stored lets nobody store what is not UTF-8; old ones and damaged disks
have it all the same.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BufferedIOBase

from tests.servers import MongoServer

# Options of an address that keep pymongo from going past the relay, and from asking twice at a time.
THROUGH_IT = {"directConnection": "true", "serverMonitoringMode": "poll"}


@contextmanager
def altering(server: MongoServer, old: bytes, new: bytes) -> Iterator[MongoServer]:
    """A relay that replaces `old` by `new` in answers; both have the same length."""
    assert len(old) == len(new)
    host, port = server.address.split(":")

    class Relay(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), socket.create_connection((host, int(port))) as upstream:
                answers = upstream.makefile("rb")
                while question := _message(self.rfile):
                    upstream.sendall(question)
                    self.wfile.write(_message(answers).replace(old, new))

    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as relay:
        thread = threading.Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield replace(server, address=f"127.0.0.1:{relay.server_address[1]}")
        finally:
            relay.shutdown()
            thread.join()


def _message(stream: BufferedIOBase) -> bytes:
    """One message of MongoDB's protocol, which begins with its length; empty at the end."""
    length = stream.read(4)
    return length + stream.read(int.from_bytes(length, "little") - 4) if length else b""
