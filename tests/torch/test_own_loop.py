"""Training loops that use `advance` instead of `track` resume with both kinds of datasets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import DataLoader

from mirror import Fetcher
from mirror.torch import MirrorDataset, MirrorIterableDataset, ResumableSampler
from tests.torch.training_setup import Prepared


def raw(data: bytes) -> bytes:
    return data


def kinds(
    made: Prepared, fetch: Fetcher, **options: Any
) -> Iterator[tuple[MirrorIterableDataset | ResumableSampler, DataLoader[Any]]]:
    how: dict[str, Any] = {"decode": raw, "on_missing": "drop"}
    stream = MirrorIterableDataset(made.dataset, fetch, batch_size=10, **how)
    yield stream, DataLoader(stream, 10, **options)
    dataset = MirrorDataset(made.dataset, fetch, **how)
    sampler = ResumableSampler(dataset)
    yield sampler, DataLoader(dataset, 10, sampler=sampler, **options)


def trained(who: MirrorIterableDataset | ResumableSampler, loader: Any, most: int) -> list[bytes]:
    """The images of a number of batches."""
    seen: list[bytes] = []
    for number, batch in enumerate(loader, 1):
        who.advance(len(batch))
        seen += batch
        if number == most:
            break
    return seen


@pytest.mark.parametrize(
    ("workers", "persistent"),
    [(0, False), (2, False), (2, True)],
    ids=["none", "new", "persistent"],
)
def test_an_epoch_that_is_iterated_again_begins_at_its_position(
    made: Prepared, fetch: Fetcher, workers: int, persistent: bool
) -> None:
    found = []
    for who, loader in kinds(made, fetch, num_workers=workers, persistent_workers=persistent):
        epochs = []
        for epoch in range(2):
            who.set_epoch(epoch)
            parts = [trained(who, loader, most) for most in (3, 2, 1, 100)]
            assert [len(part) for part in parts] == [30, 20, 10, 40]
            epochs.append([image for part in parts for image in part])
            assert len(set(epochs[-1])) == 100
            assert len(who) == 0
        found.append(epochs)
    assert found[0] == found[1]
