"""Fixtures of the backfill tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backfill.backfill_setup import Scene, VirtualTime
from tests.backfill.fake_inaturalist import INaturalist


@pytest.fixture
def scene(tmp_path: Path, clean_environment: None) -> Iterator[Scene]:
    time = VirtualTime()
    with INaturalist(time) as server:
        yield Scene(tmp_path, server, time)
