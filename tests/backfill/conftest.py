"""Fixtures of the backfill tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backfill.backfill_setup import BackfillSetup, VirtualTime
from tests.backfill.fake_inaturalist import INaturalist


@pytest.fixture
def backfill_setup(tmp_path: Path, clean_environment: None) -> Iterator[BackfillSetup]:
    time = VirtualTime()
    with INaturalist(time) as server:
        yield BackfillSetup(tmp_path, server, time)
