"""The address of a MongoDB collection, taken apart."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import parse_qsl, quote, unquote

from mirror.errors import ConfigError, UsageError

# What the address does not say itself. A silent network must end in an error; a slow batch must not.
_DEFAULTS: Final[dict[str, Any]] = {
    "appname": "mirror",
    "serverSelectionTimeoutMS": 10_000,
    "connectTimeoutMS": 10_000,
    "socketTimeoutMS": 300_000,
}
USERNAME: Final = "MONGODB_USERNAME"
PASSWORD: Final = "MONGODB_PASSWORD"  # noqa: S105 - a variable's name
_URL: Final = re.compile(
    r"(?P<scheme>mongodb(?:\+srv)?)://"
    r"(?:(?P<username>[^:/?#@]+)(?::(?P<password>[^:/?#@]*))?@)?"
    r"(?P<hosts>[^/?#@]+)/(?P<database>[^/?#@]+)/(?P<collection>[^/?#@]+)"
    r"(?:\?(?P<options>[^#]*))?"
)
# A name, an address of IPv6, or a socket's path. Any other % comes of a user and password that were
# escaped together with their : and @.
_HOST: Final = re.compile(
    r"(?:[^\s:,\[\]%]+|\[[0-9A-Fa-f:.]+(?:%25\w+)?\])(?::[0-9]{1,5})?|%2[Ff][^\s:,\[\]]+"
)


@dataclass(frozen=True)
class MongoUrl:
    """`mongodb://[USER:PASSWORD@]HOST[:PORT][,HOST…]/DATABASE/COLLECTION[?OPTIONS]`, taken apart.

    As text, and in every message, it is without user, password and options: options hold secrets
    too (`tlsCertificateKeyFilePassword`, session tokens).

    Attributes:
        uri: what pymongo takes: without user, password and collection.
        shown: the address as people may see it.
    """

    uri: str = field(repr=False)
    shown: str
    database: str
    collection: str
    username: str | None = field(repr=False, default=None)
    password: str | None = field(repr=False, default=None)

    @staticmethod
    def is_address(text: str) -> bool:
        return text.startswith(("mongodb://", "mongodb+srv://"))

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str] | None = None) -> Self:
        """The parts of an address.

        Args:
            text: the address.
            environ: where a user, or the password alone, that the address does not have is looked
                up (MONGODB_USERNAME, MONGODB_PASSWORD); the process's environment by default.

        Raises:
            UsageError: it is no such address. The sentence never quotes it: what is written wrongly
                may be the password.
            ConfigError: there is a user and no password.
        """
        match = _URL.fullmatch(text)
        if match is None or not all(map(_HOST.fullmatch, match["hosts"].split(","))):
            raise UsageError(
                "The address of the MongoDB collection is not understood; write "
                "mongodb://[USER:PASSWORD@]HOST[:PORT]/DATABASE/COLLECTION, with @ : / ? # and % "
                "of a password written as %40 %3A %2F %3F %23 %25, or give user and password in "
                f"{USERNAME} and {PASSWORD}."
            )
        environ = os.environ if environ is None else environ
        username = unquote(match["username"] or "") or environ.get(USERNAME)
        password = unquote(match["password"] or "") or environ.get(PASSWORD)
        # Other mechanisms than passwords are chosen by name.
        if username and not password and "authmechanism=" not in (match["options"] or "").lower():
            raise ConfigError(
                "The user of the MongoDB collection has no password; give it in "
                f"{PASSWORD}, or in the address."
            )
        database, collection = unquote(match["database"]), unquote(match["collection"])
        place = f"{match['scheme']}://{match['hosts']}/{quote(database, safe='')}"
        options = f"?{match['options']}" if match["options"] else ""
        return cls(
            uri=place + options,
            shown=f"{place}/{quote(collection, safe='')}",
            database=database,
            collection=collection,
            username=username or None,
            password=password or None,
        )

    def __str__(self) -> str:
        return self.shown

    def client_options(self) -> dict[str, Any]:
        """What pymongo is told beside the address: who asks, and `_DEFAULTS` unless it says better."""
        _, _, query = self.uri.partition("?")
        given = {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)}
        options = {name: value for name, value in _DEFAULTS.items() if name.lower() not in given}
        if "timeoutms" in given:
            options.pop("socketTimeoutMS", None)
        if self.username is not None:
            options["username"] = self.username
        if self.password is not None:
            options["password"] = self.password
        return options

    def without_secrets(self, text: str) -> str:
        """A foreign message, safe to show."""
        for secret in (self.password, self.username):
            for spelling in {secret, quote(secret, safe="")} if secret else ():
                # Not inside of a word: "ref…ed" would tell that the password is "us".
                text = re.sub(rf"(?<!\w){re.escape(spelling)}(?!\w)", "…", text)
        return text
