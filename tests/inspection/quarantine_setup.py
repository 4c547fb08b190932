"""A cache with flagged files, a quarantine folder, and calls that move files there and back.

Tests import the fixtures that they use.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirror.config.settings import IMAGE_EXTENSIONS
from mirror.inspection import quarantine_manifest
from mirror.inspection.quarantine import QuarantineReport, quarantine, restore
from tests.support.damaged_caches import make
from tests.support.photos import name_of, url_of

FLAGGED = 15
NAME = name_of(url_of(1))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    make(tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "flagged"


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder) / "flagged"


def out(cache: Path, to: Path, *, dry_run: bool = False, **options: Any) -> QuarantineReport:
    arguments = {"extensions": IMAGE_EXTENSIONS} | options
    return quarantine(os.fsencode(cache), to, dry_run=dry_run, **arguments)


def back(cache: Path, to: Path, *, dry_run: bool = False) -> QuarantineReport:
    return restore(os.fsencode(cache), to, dry_run=dry_run)


def lines_of(to: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (to / quarantine_manifest.NAME).read_text().splitlines()]
