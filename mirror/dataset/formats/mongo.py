"""A MongoDB collection, read from its first document to its last whatever breaks on the way.

A scan goes in the order of `_id`. When its cursor is lost (a connection reset, a new primary, a
cursor timed out or killed) it asks again for what comes after the last `_id` that it has given: each
document that is there throughout comes once, and none is left out.
"""

from __future__ import annotations

import os
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qsl, quote, unquote

from mirror.dataset.chunks import json_line
from mirror.dataset.formats.documents import Rendering, split
from mirror.dataset.formats.mongo_query import LastId, Query, import_pymongo
from mirror.dataset.records import Batches, ReadOptions, Rejected, RowBatch
from mirror.errors import ConfigError, DatasetError, MirrorError, UsageError
from mirror.store.retry import RetryPolicy

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection
    from pymongo.errors import PyMongoError

BATCH_SIZE: Final = 1000
RETRY: Final = RetryPolicy(attempts=8, base=0.5, cap=30.0)

# What the address does not say itself. A silent network must end in an error; a slow batch must not.
_DEFAULTS: Final[dict[str, Any]] = {
    "appname": "mirror",
    "serverSelectionTimeoutMS": 10_000,
    "connectTimeoutMS": 10_000,
    "socketTimeoutMS": 300_000,
}
_COUNT_WITHIN_MS: Final = 5_000

_USERNAME: Final = "MONGODB_USERNAME"
_PASSWORD: Final = "MONGODB_PASSWORD"  # noqa: S105 - a variable's name

# --- where a collection is ---

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
    def is_one(text: str) -> bool:
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
                f"{_USERNAME} and {_PASSWORD}."
            )
        environ = os.environ if environ is None else environ
        username = unquote(match["username"] or "") or environ.get(_USERNAME)
        password = unquote(match["password"] or "") or environ.get(_PASSWORD)
        # Other mechanisms than passwords are chosen by name.
        if username and not password and "authmechanism=" not in (match["options"] or "").lower():
            raise ConfigError(
                "The user of the MongoDB collection has no password; give it in "
                f"{_PASSWORD}, or in the address."
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


# --- reading it ---


@dataclass(frozen=True)
class Break:
    """A scan has lost its cursor and goes on in `pause` seconds. `documents`: given up to here."""

    documents: int
    reason: str
    pause: float

    def __str__(self) -> str:
        return (
            f"the scan broke after {self.documents:,} documents ({self.reason}); "
            f"it goes on from there in {self.pause:.1f} s"
        )


@dataclass
class MongoCollection:
    """A collection that is there, on a connection that is open.

    Attributes:
        kind: `collection`, or what has no unique `_id` to go on from: `view`, `timeseries`.
    """

    url: MongoUrl
    collection: Collection[dict[str, Any]]
    kind: str

    def count(self, query: Query) -> int | None:
        """How many documents there are to read: an estimate without a filter; None if it takes long."""
        from pymongo.errors import PyMongoError

        try:
            if query.filter:
                return self.collection.count_documents(query.filter, maxTimeMS=_COUNT_WITHIN_MS)
            return self.collection.estimated_document_count(maxTimeMS=_COUNT_WITHIN_MS)
        except PyMongoError:
            return None  # it serves a progress bar only; what is really wrong, the scan will say

    def batches(
        self,
        query: Query,
        *,
        batch_size: int = BATCH_SIZE,
        retry: RetryPolicy = RETRY,
        told: Callable[[Break], object] = lambda _: None,
        sleep: Callable[[float], object] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> Iterator[bytes]:
        """The documents, each once, in the order of their `_id`: BSON end to end, a batch at a time.

        Args:
            query: which documents, and what of them; their `_id` comes always.
            batch_size: documents that are asked for at a time.
            retry: how often in a row, without a document between, the scan may break.
            told: is told of each break before the pause.
            sleep: called with seconds.
            jitter: random numbers, uniform in [0, 1).

        Raises:
            UsageError: the server refuses the filter or the projection.
            DatasetError: the server can not be read, or not any more.
        """
        from pymongo.errors import PyMongoError

        last: bytes | None = None
        documents = failures = 0
        while (wanted := query.after(LastId.of(last) if last else None)) is not None:
            try:
                found: Any = self.collection.find_raw_batches(
                    wanted, query.sent_projection, sort=[("_id", 1)], batch_size=batch_size
                )
                with found as cursor:
                    for batch in filter(None, cursor):
                        failures = 0
                        raw = split(batch)
                        documents += len(raw)
                        last = raw[-1]
                        yield batch
                    return
            except PyMongoError as error:
                failures += 1
                self._give_up(error, query, documents, failures, retry)
                pause = retry.pause(failures, None, jitter())
                told(Break(documents, self.url.without_secrets(_reason(error)), pause))
            sleep(pause)

    def _give_up(
        self, error: PyMongoError, query: Query, documents: int, failures: int, retry: RetryPolicy
    ) -> None:
        """Raises what to tell the user, unless another attempt is allowed."""
        if not _may_pass(error):
            raise _translated(error, self.url, None if documents else query) from None
        reason = self.url.without_secrets(_reason(error))
        if documents and self.kind != "collection":
            raise DatasetError(
                f"The scan of {self.url} broke after {documents:,} documents ({reason}), and a "
                f"{self.kind} has no unique _id to go on from; run the command again."
            ) from None
        if failures >= retry.attempts:
            raise DatasetError(
                f"The scan of {self.url} broke {failures} times in a row after {documents:,} "
                f"documents ({reason}); when the server is well again, run the command again."
            ) from None


@contextmanager
def connected(url: MongoUrl) -> Iterator[MongoCollection]:
    """The collection, once it is known to be there and to let us in.

    Raises:
        UsageError: pymongo is missing, or it does not take the address.
        ConfigError: user and password are refused, or wanted and not given.
        DatasetError: the server is out of reach, or has no such collection.
    """
    import_pymongo()
    from pymongo.errors import PyMongoError

    with client_of(url) as client:
        try:
            collection = client[url.database][url.collection]
            kind = _kind(url, collection)
        except PyMongoError as error:
            raise _translated(error, url, None) from None
        yield MongoCollection(url, collection, kind)


def client_of(url: MongoUrl) -> MongoClient[dict[str, Any]]:
    """A client that connects by and by.

    Raises:
        UsageError: pymongo does not take the address.
    """
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    try:
        with warnings.catch_warnings():
            # pymongo only warns of an option that it does not know, and goes on without it.
            warnings.simplefilter("error", UserWarning)
            # It also warns of other makers' servers, and of compressions that it has to do without.
            warnings.filterwarnings(
                "ignore", "You appear to be connected|Wire protocol compression"
            )
            return MongoClient(url.uri, **url.client_options())
    except (PyMongoError, UserWarning, ValueError, TypeError, OSError) as error:
        raise _unfit(url, str(error)) from None


def _kind(url: MongoUrl, collection: Collection[dict[str, Any]]) -> str:
    from pymongo.errors import OperationFailure

    try:
        found = collection.database.list_collections(nameOnly=True, authorizedCollections=True)
        kinds = {one["name"]: str(one.get("type", "collection")) for one in found}
    except OperationFailure as error:
        if error.code != _UNAUTHORIZED or url.username is None:
            raise
        return "collection"  # who may read one collection need not be allowed to list them
    if url.collection not in kinds:
        close = get_close_matches(url.collection, kinds, n=3, cutoff=0.5)
        raise DatasetError(
            f"{url} does not exist: "
            + (
                f"the database {url.database!r} has no collection {url.collection!r}, but "
                f"{', '.join(map(repr, close))}."
                if close
                else f"there is no collection {url.collection!r} in the database {url.database!r}; "
                "check both names."
            )
        )
    return kinds[url.collection]


def read_batches(url: MongoUrl, reading: ReadOptions) -> Batches:
    """All documents of a collection as plain records, for `mirror.dataset.inputs`.

    Args:
        url: where it is.
        reading: what is wanted of each record.
    """
    rendering = Rendering("plain")
    number = 1
    with connected(url) as source:
        for raw in source.batches(Query()):
            chunk, undecodable = rendering.chunk(raw)
            bad = {one.number for one in undecodable}
            numbers = (n for n in range(number, rendering.documents + 1) if n not in bad)
            batch = RowBatch.of(list(zip(numbers, chunk.rows(), strict=True)), reading, json_line)
            batch.rejected += [
                Rejected(one.number, one.reason, one.shown_id.encode()) for one in undecodable
            ]
            number = rendering.documents + 1
            yield batch


# --- what a server, a network or pymongo says ---

_AUTHENTICATION_FAILED: Final = frozenset({11, 18, 8000})
_UNAUTHORIZED: Final = 13
# Codes of a server that is restarting, changing its primary, or has dropped the cursor.
_PASSING: Final = frozenset(
    {6, 7, 43, 63, 89, 91, 133, 134, 136, 150, 175, 189, 234, 237, 262, 317}
    | {9001, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
)
_NO_ROOM_TO_SORT: Final = frozenset({96, 292})
_TAIL: Final = re.compile(r" \(configured timeouts:|, Timeout:|, full error:")


def _may_pass(error: PyMongoError) -> bool:
    from pymongo.errors import ConnectionFailure, OperationFailure

    if isinstance(error, OperationFailure):
        return error.code in _PASSING
    return isinstance(error, ConnectionFailure)


def _reason(error: Exception) -> str:
    """What a server or pymongo says, without the state of the whole cluster behind it."""
    details = getattr(error, "details", None)
    said = details.get("errmsg") if isinstance(details, Mapping) else None
    return _TAIL.split(str(said or error), maxsplit=1)[0].strip().rstrip(".")


def _translated(error: PyMongoError, url: MongoUrl, query: Query | None) -> MirrorError:
    """The error to tell the user. `query`: of a scan that has not given a document yet."""
    from pymongo.errors import ConnectionFailure, OperationFailure

    reason = url.without_secrets(_reason(error))
    if isinstance(error, ConnectionFailure):
        return DatasetError(
            f"{url} cannot be reached ({reason}); check the address, and whether the server "
            "wants TLS (?tls=true)."
        )
    if not isinstance(error, OperationFailure):
        return _unfit(url, str(error))
    if error.code in _AUTHENTICATION_FAILED:
        return ConfigError(
            f"{url} refused the user or the password; a user of another database than "
            f"{url.database!r} needs its name in the address, most often ?authSource=admin."
        )
    if error.code == _UNAUTHORIZED:
        if url.username is None:
            return ConfigError(
                f"{url} wants a user and a password; give them in {_USERNAME} and {_PASSWORD}, "
                "or in the address."
            )
        return DatasetError(
            f"{url} may not be read by this user ({reason}); the role read on the database "
            f"{url.database!r} is enough."
        )
    if error.code in _NO_ROOM_TO_SORT:
        return DatasetError(
            f"{url} could not sort what the filter finds by _id ({reason}); use a narrower filter."
        )
    if query is not None and (query.filter or query.projection):
        return UsageError(f"The server does not take the filter or the projection: {reason}.")
    return DatasetError(f"{url} cannot be read: the server says {reason!r} (code {error.code}).")


def _unfit(url: MongoUrl, reason: str) -> UsageError:
    return UsageError(f"{url} cannot be used: {url.without_secrets(reason).rstrip('.')}.")
