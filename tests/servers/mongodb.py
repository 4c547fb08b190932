"""SecantusDB: MongoDB's protocol, with users, roles and failpoints, on a free port of loopback.

It is a tool of the tests under GPL-2.0. It has its own environment and process, and no code imports it.
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
    """A user of the server. `home` is the database that knows the user."""

    name: str
    password: str = dataclasses.field(repr=False)
    roles: tuple[Any, ...]
    home: str = "admin"


ROOT = MongoUser("root", "root-secret", ("root",))
# Its password has every character that an address must escape.
MONGO_READER = MongoUser("reader", "r:e/a@d?#%s", ({"role": "read", "db": DATABASE},))
# The database itself knows this user, and admin does not, as in an address without authSource.
MONGO_LOCAL = MongoUser("local", "local-secret", ({"role": "read", "db": DATABASE},), DATABASE)
MONGO_STRANGER = MongoUser("stranger", "strange-secret", ({"role": "read", "db": "other"},))
USERS = (ROOT, MONGO_READER, MONGO_LOCAL, MONGO_STRANGER)


@dataclasses.dataclass(frozen=True)
class MongoServer:
    """A running server. It serves the whole session, so each test uses its own `fresh_collection`."""

    address: str
    client: MongoClient[dict[str, Any]] = dataclasses.field(repr=False)  # root's

    def fresh_collection(self) -> Collection[dict[str, Any]]:
        """A collection with a new name, which does not exist until a test writes to it."""
        return self.client[DATABASE][f"plants-{secrets.token_hex(6)}"]

    def url(self, collection: str, user: MongoUser | None = MONGO_READER, **options: str) -> str:
        """The address of a collection for a command line, with user and password."""
        who = ""
        if user is not None:
            who = f"{quote(user.name, safe='')}:{quote(user.password, safe='')}@"
            if user.home != DATABASE:
                options = {"authSource": user.home, **options}
        tail = "&".join(f"{name}={value}" for name, value in options.items())
        return f"mongodb://{who}{self.address}/{DATABASE}/{collection}" + (tail and f"?{tail}")

    @contextlib.contextmanager
    def failing(self, *commands: str, mode: Any = "alwaysOn", **how: Any) -> Iterator[None]:
        """Let these commands fail on `mirror`'s connections only.

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
    """Run a server that needs a password and knows `USERS`."""
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    python = installed("mongodb", "bin", "python")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nothing.toml").write_text("")  # otherwise it reads a file in the user's home
    command = [str(python), "-I", "-m", "secantus", "--config=nothing.toml", "--host=127.0.0.1"]
    command += [f"--port={port}", "--storage-path=data", "--enable-test-commands"]

    def answers() -> bool:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True

    # Users are created while it needs no password, and take effect at its next start.
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
