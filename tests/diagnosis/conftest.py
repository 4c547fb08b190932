"""A clinic at any place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MakePlace
from tests.diagnosis.doctor_setup import Clinic, MakeClinic


@pytest.fixture
def clinic(make_place: MakePlace, tmp_path: Path) -> MakeClinic:
    return lambda name: Clinic(make_place(name), tmp_path)
