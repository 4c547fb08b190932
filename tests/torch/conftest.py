"""A mirror in a folder that the training tests share; none of them changes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mirror import Fetcher
from tests.torch.training_setup import Prepared, prepared


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """100 photos and 3 black frames, which are flagged."""
    return prepared(tmp_path_factory.mktemp("training"), 100, flagged=3)


@pytest.fixture(autouse=True, scope="session")
def impatience() -> Iterator[None]:
    """After an exception, a DataLoader waits for each worker to end: five seconds by default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
        yield


@pytest.fixture
def fetch(made: Prepared) -> Iterator[Fetcher]:
    with Fetcher(made.settings) as fetch:
        yield fetch
