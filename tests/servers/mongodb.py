"""SecantusDB: MongoDB's protocol, with users, roles and failpoints, on a free port of loopback.

A tool of the tests, GPL-2.0, in an environment and a process of its own: nothing here imports it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.collection import Collection

from .process import free_ports, installed, running

DATABASE = "biodiversity"


@dataclasses.dataclass(frozen=True)
class MongoUser:
    """Someone the server lets in. `home`: the database that knows the user."""

    name: str
    password: str = dataclasses.field(repr=False)
    roles: tuple[Any, ...]
    home: str = "admin"


ROOT = MongoUser("root", "root-secret", ("root",))
# Its password has all that must be escaped in an address.
MONGO_READER = MongoUser("reader", "r:e/a@d?#%s", ({"role": "read", "db": DATABASE},))
# Known to the database itself and not to admin: what an address means that names no authSource.
MONGO_LOCAL = MongoUser("local", "local-secret", ({"role": "read", "db": DATABASE},), DATABASE)
MONGO_STRANGER = MongoUser("stranger", "strange-secret", ({"role": "read", "db": "other"},))
USERS = (ROOT, MONGO_READER, MONGO_LOCAL, MONGO_STRANGER)


@dataclasses.dataclass(frozen=True)
class MongoServer:
    """Where a server is. Session-wide: a test takes a `fresh_collection` of its own."""

    address: str
    client: MongoClient[dict[str, Any]] = dataclasses.field(repr=False)  # root's

    def fresh_collection(self) -> Collection[dict[str, Any]]:
        """A collection of a new name, which does not exist before something is put into it."""
        return self.client[DATABASE][f"plants-{secrets.token_hex(6)}"]

    def url(self, collection: str, user: MongoUser | None = MONGO_READER, **options: str) -> str:
        """The address of a collection as a command line has it, with user and password inside."""
        who = ""
        if user is not None:
            who = f"{quote(user.name, safe='')}:{quote(user.password, safe='')}@"
            if user.home != DATABASE:
                options = {"authSource": user.home, **options}
        tail = "&".join(f"{name}={value}" for name, value in options.items())
        return f"mongodb://{who}{self.address}/{DATABASE}/{collection}" + (tail and f"?{tail}")

    @contextlib.contextmanager
    def failing(self, *commands: str, mode: Any = "alwaysOn", **how: Any) -> Iterator[None]:
        """Let these commands of `mirror`'s connections fail, and nobody else's.

        Args:
            commands: their names in the protocol, such as `find` and `getMore`.
            mode: `alwaysOn`, `{"times": n}` or `{"skip": n, "times": m}`.
            how: `errorCode=…`, `closeConnection=True`, or `blockConnection=True, blockTimeMS=…`.
        """
        data = {"appName": "mirror", "failCommands": commands, **how}
        point = {"configureFailPoint": "failCommand"}
        self.client.admin.command({**point, "mode": mode, "data": data})
        try:
            yield
        finally:
            self.client.admin.command({**point, "mode": "off"})


@contextlib.contextmanager
def mongodb_server(folder: Path) -> Iterator[MongoServer]:
    """Run a server that asks for a password, and knows `USERS`."""
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    python = installed("mongodb", "bin", "python")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nothing.toml").write_text("")  # else it looks for a file in the user's home
    command = [str(python), "-I", "-m", "secantus", "--config=nothing.toml", "--host=127.0.0.1"]
    command += [f"--port={port}", "--storage-path=data", "--enable-test-commands"]

    def answers() -> bool:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True

    # Users are made while it lets everybody in, and count from its next start on.
    with running("SecantusDB", command, folder, ready=answers):
        open_client: MongoClient[dict[str, Any]]
        with MongoClient(f"mongodb://{address}/") as open_client:
            for user in USERS:
                open_client[user.home].command(
                    "createUser", user.name, pwd=user.password, roles=list(user.roles)
                )
    with running("SecantusDB", [*command, "--auth"], folder, ready=answers):
        client: MongoClient[dict[str, Any]]
        with MongoClient(
            f"mongodb://{address}/", username=ROOT.name, password=ROOT.password
        ) as client:
            yield MongoServer(address, client)
