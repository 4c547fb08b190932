"""Reads and rewrites JSON lines for tests. Tests that take `way` read them in every way bytes may arrive."""

from __future__ import annotations

import pytest

from mirror.dataset.formats import jsonl
from mirror.dataset.formats.jsonl import read_jsonl
from mirror.dataset.records import ReadOptions
from tests.dataset.formats.read_all_ways import READING, New, Result, renamed, result_of, stream

U = renamed(b"u")
V = renamed(b"v")


def read(
    data: bytes,
    reading: ReadOptions = READING,
    new: New = renamed,
    size: int = 1 << 30,
    error: Exception | None = None,
) -> Result:
    return result_of(read_jsonl(stream(data, size, error), reading), new)


def rewritten(line: bytes, reading: ReadOptions = READING, new: New = renamed) -> bytes:
    result = read(line + b"\n", reading, new)
    assert result.rejected == []
    (found,) = result.lines
    return found


# How much comes at a time, and how much is asked for.
WAYS = {"whole": (1 << 30, 1 << 20), "byte by byte": (1, 1), "in blocks": (5, 7)}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    size, block = WAYS[request.param]
    monkeypatch.setattr(jsonl, "_BLOCK", block)
    return size
