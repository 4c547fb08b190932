"""DeleteObjects requests with a condition for each key, where the server knows such conditions.

AWS deletes an object of a general purpose bucket only while it has the ETag that its key names in the
request ("conditional deletes", 2025). Other servers ignore the ETag, or refuse the request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from mirror.errors import Conflict, StoreError
from mirror.store.responses import deletion_of, error_from

# The status that S3 gives to a single DELETE, by the code for one key of a DeleteObjects.
_DELETE_STATUS: Final = {
    "AccessDenied": 403,
    "ConditionalRequestConflict": 409,
    "NotImplemented": 501,
    "PreconditionFailed": 412,
}


class ConditionalDelete:
    """Builds DeleteObjects requests and reads their answers, for one server.

    A server that refuses the conditions has deleted nothing. The error is then Conflict, so that the
    caller checks the objects again, and later requests have no conditions.
    """

    def __init__(self) -> None:
        self._has_conditions = True

    async def send(
        self,
        send: Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]],
        prefix: str,
        keys: Sequence[str],
        etags: Sequence[str],
    ) -> dict[str, StoreError]:
        """Delete objects once; see `Store.delete`.

        Args:
            send: sends botocore's argument `Delete`, and returns the answer.
            prefix: of the mirror's keys in the bucket.
            keys: of the objects.
            etags: one for each key, or none.
        """
        objects = [{"Key": prefix + key} for key in keys]
        is_conditional = bool(etags) and self._has_conditions
        if is_conditional:
            for item, etag in zip(objects, etags, strict=True):
                item["ETag"] = etag
        try:
            answer = await send({"Objects": objects, "Quiet": True})
        except StoreError as error:
            # 400 MalformedXML and 501 NotImplemented have no class of their own.
            if is_conditional and type(error) is StoreError:
                self._has_conditions = False
                raise Conflict(f"{error} The next attempt sends no conditions.") from None
            raise
        return _failures(answer, prefix)


def _failures(answer: Mapping[str, Any], prefix: str) -> dict[str, StoreError]:
    """The keys that were not deleted, although the answer as a whole was 200."""
    failures: dict[str, StoreError] = {}
    for refusal in answer.get("Errors", ()):
        code, key = str(refusal.get("Code", "")), str(refusal.get("Key", "")).removeprefix(prefix)
        if code != "NoSuchKey":
            status = _DELETE_STATUS.get(code, 500)
            failures[key] = error_from(status, code, deletion_of([key]))
    return failures
