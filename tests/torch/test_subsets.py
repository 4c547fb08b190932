"""A bad sample's replacement comes from the training subset, never from the validation images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Subset, SubsetRandomSampler, random_split

from mirror import Fetcher
from mirror.content.digest import digest_of
from mirror.errors import TooManyBadSamples, UsageError
from mirror.layout import object_key
from mirror.torch import MirrorDataset, ResumableSampler
from tests.support.photos import photo
from tests.torch.training_setup import SIDE, expected_pixels, pixels, prepared

COUNT = 32
NUMBERS: Any = range(COUNT)
TRAIN, VALIDATION = random_split(NUMBERS, [16, 16], torch.Generator().manual_seed(1))
BAD = TRAIN.indices[:4]


@pytest.fixture
def dataset(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MirrorDataset]:
    """A dataset in which a quarter of the training half is missing from the mirror."""
    made = prepared(tmp_path, COUNT)
    for number in BAD:
        key = object_key(digest_of(photo(number, SIDE)).content_hash, "jpeg")
        (tmp_path / "mirror" / key).unlink()
    with Fetcher(made.settings) as fetch:
        yield MirrorDataset(
            made.dataset, fetch, transform=pixels, on_bad=request.param, budget=COUNT
        )


def numbers_of(batches: Any) -> list[list[int]]:
    known = {expected_pixels(n).numpy().tobytes(): n for n in range(COUNT)}
    return [[known[image.numpy().tobytes()] for image in batch] for batch in batches]


def flat(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


resampled = pytest.mark.parametrize("dataset", ["resample"], indirect=True)
either = pytest.mark.parametrize("dataset", ["skip", "resample"], indirect=True)


@resampled
@pytest.mark.parametrize("workers", [0, 2])
def test_a_replacement_is_of_the_same_batch(dataset: MirrorDataset, workers: int) -> None:
    """With any sampler: torch's own samplers tell the dataset nothing."""
    train = Subset(dataset, TRAIN.indices)
    batches = numbers_of(DataLoader(train, batch_size=8, num_workers=workers))
    assert [len(batch) for batch in batches] == [8, 8]
    for batch, asked in zip(batches, (TRAIN.indices[:8], TRAIN.indices[8:]), strict=True):
        assert set(batch) == set(asked).difference(BAD)
    drawn = SubsetRandomSampler(TRAIN.indices)
    assert not set(flat(numbers_of(DataLoader(dataset, 8, sampler=drawn)))) & set(
        VALIDATION.indices
    )


@resampled
@pytest.mark.parametrize("nested", [False, True])
def test_a_subset_has_epochs_like_the_whole_dataset(dataset: MirrorDataset, nested: bool) -> None:
    """Each epoch has its own replacements and its own budget."""
    train = Subset(dataset, TRAIN.indices)
    if nested:
        train = Subset(Subset(dataset, range(COUNT)), TRAIN.indices)
    sampler = ResumableSampler(train, shuffle=False)
    loader = DataLoader(train, batch_size=8, sampler=sampler)
    epochs = [tuple(flat(numbers_of(sampler.track(loader)))[:4]) for _ in range(4)]
    assert len(set(epochs)) == 4
    assert {bad.epoch for bad in dataset.bad_samples} == {0, 1, 2, 3}
    assert len(dataset.bad_samples) == 4 * len(BAD)


@either
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_without_a_good_sample_takes_one_of_the_samplers_subset(
    dataset: MirrorDataset, workers: int
) -> None:
    """The number of batches stays the same, and no rank gets a validation image."""
    train = Subset(dataset, TRAIN.indices)
    samplers = [ResumableSampler(train, rank=rank, world_size=2) for rank in range(2)]
    ResumableSampler(Subset(dataset, VALIDATION.indices))
    ResumableSampler(dataset)
    for batch_size in (1, 3):
        for sampler in samplers:
            loader = DataLoader(train, batch_size, sampler=sampler, num_workers=workers)
            batches = numbers_of(sampler.track(loader))
            assert len(batches) == -(-8 // batch_size)
            assert set(flat(batches)) <= set(TRAIN.indices).difference(BAD)


@either
def test_without_replace_from_a_batch_of_bad_samples_is_an_error(dataset: MirrorDataset) -> None:
    for batch_size in (2, 1, None):
        with pytest.raises(TooManyBadSamples, match="replace_from"):
            next(iter(DataLoader(Subset(dataset, BAD), batch_size)))
    dataset.replace_from(TRAIN.indices)
    for index in (*BAD, BAD[0] - COUNT):
        ((number,),) = numbers_of([[dataset[index]]])
        assert number in set(TRAIN.indices).difference(BAD)
    with pytest.raises(UsageError, match="0 to 31"):
        dataset.replace_from([COUNT])


class Turned(torch.utils.data.Dataset[Any]):
    """A wrapper that reorders its samples."""

    def __init__(self, dataset: MirrorDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return COUNT // 2

    def __getitem__(self, index: int) -> Any:
        return self.dataset[TRAIN.indices[index]]


@resampled
def test_indices_of_an_unknown_wrapper_are_not_guessed(dataset: MirrorDataset) -> None:
    sampler = ResumableSampler(Turned(dataset), shuffle=False)
    loader = DataLoader(Turned(dataset), batch_size=8, sampler=sampler)
    sampler.set_epoch(3)
    with pytest.raises(TooManyBadSamples, match="replace_from"):
        list(sampler.track(loader))
    dataset.replace_from(TRAIN.indices)
    assert set(flat(numbers_of(sampler.track(loader)))) <= set(TRAIN.indices).difference(BAD)
    assert {bad.epoch for bad in dataset.bad_samples} == {3}
