"""Bulk deletes with a condition for each key: requests, partial failures, and servers without them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from mirror.errors import AccessDenied, Conflict, PreconditionFailed, StoreError, Throttled
from mirror.store.conditional_delete import ConditionalDelete
from mirror.store.responses import error_from


class Server:
    """Answers DeleteObjects requests with these answers in turn; keeps the requests."""

    def __init__(self, *answers: Mapping[str, Any] | StoreError) -> None:
        self.requests: list[dict[str, Any]] = []
        self._answers = list(answers)

    async def __call__(self, request: dict[str, Any]) -> Mapping[str, Any]:
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, StoreError):
            raise answer
        return answer


def send(deletion: ConditionalDelete, server: Server) -> dict[str, StoreError]:
    return asyncio.run(deletion.send(server, "p/", ["a", "b"], ['"1"', '"2"']))


def test_each_key_that_failed_is_reported_with_its_error() -> None:
    codes = {"a": "PreconditionFailed", "b": "AccessDenied", "c": "InternalError", "d": "NoSuchKey"}
    server = Server({"Errors": [{"Key": f"p/{key}", "Code": code} for key, code in codes.items()]})
    failures = send(ConditionalDelete(), server)
    assert server.requests[0]["Objects"] == [
        {"Key": "p/a", "ETag": '"1"'},
        {"Key": "p/b", "ETag": '"2"'},
    ]
    assert {key: type(error) for key, error in failures.items()} == {
        "a": PreconditionFailed,
        "b": AccessDenied,
        "c": Throttled,
    }


@pytest.mark.parametrize(("status", "code"), [(400, "MalformedXML"), (501, "NotImplemented")])
def test_a_server_that_refuses_conditions_gets_none_at_the_next_attempt(
    status: int, code: str
) -> None:
    deletion, server = ConditionalDelete(), Server(error_from(status, code, "DELETE"), {}, {})
    with pytest.raises(Conflict):
        send(deletion, server)
    for _ in range(2):
        assert send(deletion, server) == {}
    assert [len(request["Objects"][0]) for request in server.requests] == [2, 1, 1]


def test_another_refusal_keeps_the_conditions() -> None:
    deletion, server = ConditionalDelete(), Server(error_from(503, "SlowDown", "DELETE"), {})
    with pytest.raises(Throttled):
        send(deletion, server)
    assert send(deletion, server) == {}
    assert [len(request["Objects"][0]) for request in server.requests] == [2, 2]
