"""Parses the address of a MongoDB collection."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import parse_qsl, quote, unquote

from mirror.errors import ConfigError, UsageError

# Options that an address may override. A silent network must raise an error; a slow batch must not.
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
# A name, an IPv6 address, or the path of a socket. Any other % comes from a user and password that
# were escaped together with their : and @.
_HOST: Final = re.compile(
    r"(?:[^\s:,\[\]%]+|\[[0-9A-Fa-f:.]+(?:%25\w+)?\])(?::[0-9]{1,5})?|%2[Ff][^\s:,\[\]]+"
)


@dataclass(frozen=True)
class MongoUrl:
    """A parsed `mongodb://[USER:PASSWORD@]HOST[:PORT][,HOST…]/DATABASE/COLLECTION[?OPTIONS]`.

    Its text, also in messages, has no user, password and options. Options may be secrets as well
    (`tlsCertificateKeyFilePassword`, session tokens).

    Attributes:
        uri: the address for pymongo, without user, password and collection.
        shown: the address for people.
    """

    uri: str = field(repr=False)
    shown: str
    database: str
    collection: str
    username: str | None = field(repr=False, default=None)
    password: str | None = field(repr=False, default=None)

    @staticmethod
    def is_address(text: str) -> bool:
        """Whether a text is meant as the address of a collection."""
        return text.startswith(("mongodb://", "mongodb+srv://"))

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str] | None = None) -> Self:
        """Parse an address.

        Args:
            text: the address.
            environ: variables that give a missing user or password (MONGODB_USERNAME,
                MONGODB_PASSWORD); the environment of the process by default.

        Raises:
            UsageError: the address is malformed. The message never quotes it, because the malformed
                part may be the password.
            ConfigError: there is a user without a password.
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
        # Mechanisms without a password are chosen by name.
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
        """Arguments of pymongo's client: user, password, and defaults that the address does not set."""
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
        """A message of the server or of pymongo, with user and password removed."""
        for secret in (self.password, self.username):
            for spelling in {secret, quote(secret, safe="")} if secret else ():
                # Only whole words: "ref…ed" would reveal that the password is "us".
                text = re.sub(rf"(?<!\w){re.escape(spelling)}(?!\w)", "…", text)
        return text
