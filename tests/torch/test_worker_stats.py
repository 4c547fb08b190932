"""A dataset's statistics count its own images, even if others use the same fetcher."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from mirror import Fetcher
from mirror.torch import MirrorDataset, MirrorIterableDataset, ResumableSampler
from tests.support.photos import url_of
from tests.torch.training_setup import Prepared, pixels, write_dataset


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A training set of 80 and a validation set of 20."""
    for name, numbers in (("train", range(80)), ("val", range(80, 100))):
        write_dataset(tmp_path / name, [url_of(number) for number in numbers])
    return tmp_path / "train", tmp_path / "val"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("closing", [False, True])
def test_datasets_that_share_a_fetcher_count_their_own_images(
    made: Prepared, pair: tuple[Path, Path], workers: int, closing: bool
) -> None:
    with Fetcher(made.settings) as fetch:
        train, val = (MirrorDataset(path, fetch, transform=pixels) for path in pair)
        samplers = [ResumableSampler(one) for one in (train, val)]
        loaders = [
            DataLoader(one, 16, sampler=sampler, num_workers=workers)
            for one, sampler in zip((train, val), samplers, strict=True)
        ]
        for epoch in (1, 2):
            for sampler, loader in zip(samplers, loaders, strict=True):
                assert list(sampler.track(loader))
            fetch(url_of(0))  # belongs to no dataset
            assert [train.stats().images, val.stats().images] == [80 * epoch, 20 * epoch]
            reads = [sum(one.stats().latencies) for one in (train, val)]
            assert reads == [80 * epoch, 20 * epoch]
            if closing:
                fetch.close()


def test_interleaved_streams_count_their_own_images(
    made: Prepared, pair: tuple[Path, Path]
) -> None:
    with Fetcher(made.settings) as fetch:
        train, val = (MirrorIterableDataset(path, fetch, batch_size=4) for path in pair)
        assert len(list(zip(train, val, strict=False))) == 20
        list(train)
        list(val)
        assert val.stats().images == 40
        assert 100 <= train.stats().images < 180
        both = train.stats() + val.stats()
        assert both.bytes == fetch.stats().bytes
        assert sum(both.latencies) <= sum(fetch.stats().latencies)  # each read counts once
