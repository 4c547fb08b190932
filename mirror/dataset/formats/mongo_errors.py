"""Translates errors of MongoDB, pymongo and the network into errors for the user."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mirror.dataset.formats.mongo_query import Query
from mirror.dataset.formats.mongo_url import PASSWORD, USERNAME, MongoUrl
from mirror.errors import ConfigError, DatasetError, MirrorError, UsageError

if TYPE_CHECKING:
    from pymongo.errors import PyMongoError

_AUTHENTICATION_FAILED: Final = frozenset({11, 18, 8000})
UNAUTHORIZED: Final = 13
# Codes of a server that is restarting, changes its primary, or has lost the cursor.
_PASSING: Final = frozenset(
    {6, 7, 43, 63, 89, 91, 133, 134, 136, 150, 175, 189, 234, 237, 262, 317}
    | {9001, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
)
_NO_ROOM_TO_SORT: Final = frozenset({96, 292})
_TAIL: Final = re.compile(r" \(configured timeouts:|, Timeout:|, full error:")


def may_pass(error: PyMongoError) -> bool:
    """Whether a retry may succeed."""
    from pymongo.errors import ConnectionFailure, OperationFailure

    if isinstance(error, OperationFailure):
        return error.code in _PASSING
    return isinstance(error, ConnectionFailure)


def reason_of(error: Exception) -> str:
    """The message of an error, without the state of the whole cluster that pymongo appends."""
    details = getattr(error, "details", None)
    message = details.get("errmsg") if isinstance(details, Mapping) else None
    return _TAIL.split(str(message or error), maxsplit=1)[0].strip().rstrip(".")


def translated(error: PyMongoError, url: MongoUrl, query: Query | None) -> MirrorError:
    """The error to raise.

    Args:
        error: what pymongo raised.
        url: of the collection.
        query: of a scan that has given no document yet, so that the query may be the cause.
    """
    from pymongo.errors import ConnectionFailure, OperationFailure

    reason = url.without_secrets(reason_of(error))
    if isinstance(error, ConnectionFailure):
        return DatasetError(
            f"{url} cannot be reached ({reason}); check the address and whether the server "
            "requires TLS (?tls=true)."
        )
    if not isinstance(error, OperationFailure):
        return unusable(url, str(error))
    if error.code in _AUTHENTICATION_FAILED:
        return ConfigError(
            f"{url} rejected the user or the password; a user of another database than "
            f"{url.database!r} needs that database in the address, usually ?authSource=admin."
        )
    if error.code == UNAUTHORIZED:
        if url.username is None:
            return ConfigError(
                f"{url} requires a user and a password; give them in {USERNAME} and {PASSWORD}, "
                "or in the address."
            )
        return DatasetError(
            f"{url} may not be read by this user ({reason}); the role read on the database "
            f"{url.database!r} is enough."
        )
    if error.code in _NO_ROOM_TO_SORT:
        return DatasetError(
            f"{url} could not sort the filtered documents by _id ({reason}); use a narrower filter."
        )
    if query is not None and (query.filter or query.projection):
        return UsageError(f"The server rejects the filter or the projection: {reason}.")
    return DatasetError(f"{url} cannot be read: the server says {reason!r} (code {error.code}).")


def unusable(url: MongoUrl, reason: str) -> UsageError:
    """The error for an address or a collection that pymongo does not accept."""
    return UsageError(f"{url} cannot be used: {url.without_secrets(reason).rstrip('.')}.")
