"""A setup for any place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MakePlace
from tests.diagnosis.doctor_setup import DoctorSetup, MakeSetup


@pytest.fixture
def make_setup(make_place: MakePlace, tmp_path: Path) -> MakeSetup:
    return lambda name: DoctorSetup(make_place(name), tmp_path)
