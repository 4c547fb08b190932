"""Fixtures of the rewrite tests: a mirror, an empty folder, and a call that rewrites records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import pytest

from mirror.catalog.lookup import UrlLookup
from mirror.dataset.rewrite.rewrite_report import RewriteReport
from mirror.dataset.splits.split import parse_splits
from tests.support.mirrored_dataset import Mirror, plants, put, work

__all__ = ["plants", "work"]

THREE = parse_splits("train=0.6,val=0.2,test=0.2")


class Rewrite(Protocol):
    """Writes records to `raw.jsonl`, and rewrites them to `output` in the same folder."""

    def __call__(
        self,
        records: Iterable[Any],
        lookup: UrlLookup | None = None,
        *,
        output: str = "out.jsonl",
        **options: Any,
    ) -> RewriteReport: ...


@pytest.fixture
def rewrite(plants: Mirror, work: Path) -> Rewrite:
    def call(
        records: Iterable[Any],
        lookup: UrlLookup | None = None,
        *,
        output: str = "out.jsonl",
        **options: Any,
    ) -> RewriteReport:
        return plants.rewrite(put(work / "raw.jsonl", records), work / output, lookup, **options)

    return call
