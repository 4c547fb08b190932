"""Scans a MongoDB collection, and resumes when the connection breaks.

A scan follows the order of `_id`. When its cursor is lost (a connection reset, a new primary, a
cursor timed out or killed), it continues after the last `_id` that it gave. Each document that
exists during the whole scan is given exactly once.
"""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from mirror.dataset.chunks import json_line
from mirror.dataset.formats.documents import Rendering, split
from mirror.dataset.formats.mongo_errors import (
    UNAUTHORIZED,
    may_pass,
    reason_of,
    translated,
    unusable,
)
from mirror.dataset.formats.mongo_query import LastId, Query, import_pymongo
from mirror.dataset.formats.mongo_url import MongoUrl
from mirror.dataset.records import Batches, ReadOptions, Rejected, RowBatch
from mirror.errors import DatasetError
from mirror.store.retry import RetryPolicy

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection
    from pymongo.errors import PyMongoError

BATCH_SIZE: Final = 1000
RETRY: Final = RetryPolicy(attempts=8, base=0.5, cap=30.0)
_COUNT_WITHIN_MS: Final = 5_000


@dataclass(frozen=True)
class Break:
    """A scan lost its cursor after `documents` documents, and resumes in `pause` seconds."""

    documents: int
    reason: str
    pause: float

    def __str__(self) -> str:
        return (
            f"the scan broke after {self.documents:,} documents ({self.reason}); "
            f"it resumes in {self.pause:.1f} s"
        )


@dataclass
class MongoCollection:
    """An existing collection on an open connection.

    Attributes:
        url: its address.
        collection: pymongo's object.
        kind: `collection`; or `view` or `timeseries`, whose scans cannot resume because their
            `_id` may not be unique.
    """

    url: MongoUrl
    collection: Collection[dict[str, Any]]
    kind: str

    def count(self, query: Query) -> int | None:
        """The number of documents to read, an estimate without a filter; None if counting is slow."""
        from pymongo.errors import PyMongoError

        try:
            if query.filter:
                return self.collection.count_documents(query.filter, maxTimeMS=_COUNT_WITHIN_MS)
            return self.collection.estimated_document_count(maxTimeMS=_COUNT_WITHIN_MS)
        except PyMongoError:
            return None  # only progress needs it; the scan will raise a real error

    def batches(
        self,
        query: Query,
        *,
        batch_size: int = BATCH_SIZE,
        retry: RetryPolicy = RETRY,
        on_break: Callable[[Break], object] = lambda _: None,
        sleep: Callable[[float], object] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> Iterator[bytes]:
        """Scan the documents in the order of their `_id`, as batches of BSON end to end.

        Args:
            query: which documents and fields; `_id` is always included.
            batch_size: documents requested at a time.
            retry: how often in a row the scan may break without giving a document.
            on_break: called with each break, before the pause.
            sleep: called with seconds.
            jitter: random numbers, uniform in [0, 1).

        Raises:
            UsageError: the server rejects the filter or the projection.
            DatasetError: the server cannot be read, or the scan broke too often.
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
                on_break(Break(documents, self.url.without_secrets(reason_of(error)), pause))
            sleep(pause)

    def _give_up(
        self, error: PyMongoError, query: Query, documents: int, failures: int, retry: RetryPolicy
    ) -> None:
        """Raise the error for the user, unless the scan may try again."""
        if not may_pass(error):
            raise translated(error, self.url, None if documents else query) from None
        reason = self.url.without_secrets(reason_of(error))
        if documents and self.kind != "collection":
            raise DatasetError(
                f"The scan of {self.url} broke after {documents:,} documents ({reason}), and a "
                f"{self.kind} has no unique _id to resume from; run the command again."
            ) from None
        if failures >= retry.attempts:
            raise DatasetError(
                f"The scan of {self.url} broke {failures} times in a row after {documents:,} "
                f"documents ({reason}); run the command again when the server is healthy."
            ) from None


@contextmanager
def connected(url: MongoUrl) -> Iterator[MongoCollection]:
    """Connect to a collection, and check that it exists and may be read.

    Raises:
        UsageError: pymongo is missing or rejects the address.
        ConfigError: the server rejects the user and password, or requires them.
        DatasetError: the server cannot be reached, or has no such collection.
    """
    import_pymongo()
    from pymongo.errors import PyMongoError

    with client_of(url) as client:
        try:
            collection = client[url.database][url.collection]
            kind = _kind(url, collection)
        except PyMongoError as error:
            raise translated(error, url, None) from None
        yield MongoCollection(url, collection, kind)


def client_of(url: MongoUrl) -> MongoClient[dict[str, Any]]:
    """A client, which connects in the background.

    Raises:
        UsageError: pymongo rejects the address.
    """
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    try:
        with warnings.catch_warnings():
            # pymongo only warns about an unknown option, and ignores it.
            warnings.simplefilter("error", UserWarning)
            # It also warns about compatible servers and missing compression, which are harmless.
            warnings.filterwarnings(
                "ignore", "You appear to be connected|Wire protocol compression"
            )
            return MongoClient(url.uri, **url.client_options())
    except (PyMongoError, UserWarning, ValueError, TypeError, OSError) as error:
        raise unusable(url, str(error)) from None


def _kind(url: MongoUrl, collection: Collection[dict[str, Any]]) -> str:
    from pymongo.errors import OperationFailure

    def kinds(**only: str) -> dict[str, str]:
        found = collection.database.list_collections(
            filter=only, nameOnly=True, authorizedCollections=True
        )
        return {entry["name"]: str(entry.get("type", "collection")) for entry in found}

    try:
        kind = kinds(name=url.collection).get(url.collection)
        others = kinds() if kind is None else {}
    except OperationFailure as error:
        if error.code != UNAUTHORIZED or url.username is None:
            raise
        return "collection"  # a user may read a collection without the right to list them
    if kind is None:
        close = get_close_matches(url.collection, others, n=3, cutoff=0.5)
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
    return kind


def read_batches(url: MongoUrl, reading: ReadOptions) -> Batches:
    """Read all documents of a collection as plain records.

    Args:
        url: of the collection.
        reading: the fields to read of each record.
    """
    import_pymongo()
    rendering = Rendering("plain")
    number = 1
    with connected(url) as source:
        for raw in source.batches(Query()):
            chunk, undecodable = rendering.chunk(raw)
            bad = {document.number for document in undecodable}
            numbers = (n for n in range(number, rendering.documents + 1) if n not in bad)
            batch = RowBatch.of(list(zip(numbers, chunk.rows(), strict=True)), reading, json_line)
            batch.rejected += [
                Rejected(document.number, document.reason, document.shown_id.encode())
                for document in undecodable
            ]
            number = rendering.documents + 1
            yield batch
