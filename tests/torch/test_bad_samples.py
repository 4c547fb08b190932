"""Bad samples: an error or, by choice, another sample. Never a black image."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mirror import Fetcher
from mirror.content.digest import digest_of
from mirror.errors import CorruptObject, StoreUnavailable, TooManyBadSamples, Undecodable
from mirror.layout import object_key
from mirror.torch import (
    BadSample,
    MirrorDataset,
    MirrorIterableDataset,
    ResumableSampler,
    rgb,
)
from mirror.torch.bad_samples import BadSamples, OnBad, budget_of_rank
from tests.support.fetch_setup import HURRY
from tests.support.photos import blank, photo, url_of
from tests.torch.training_setup import SIDE, Prepared, expected_pixels, number_of, pixels, prepared

COUNT = 40
BAD = (3, 17, 30)


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[tuple[Prepared, Fetcher]]:
    """A mirror in which a byte of photo 3 is flipped, 17 is gone and 30 is cut."""
    made = prepared(tmp_path, COUNT)
    damages: list[Callable[[Path], None]] = [flip, Path.unlink, cut]
    for number, damage in zip(BAD, damages, strict=True):
        key = object_key(digest_of(photo(number, SIDE)).content_hash, "jpeg")
        damage(tmp_path / "mirror" / key)
    with Fetcher(made.settings) as fetch:
        yield made, fetch


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def numbers_in(batch: Any, dataset: MirrorDataset | MirrorIterableDataset) -> list[int]:
    """The numbers of these photos, found by their pixels; all must be of the dataset."""
    known = {expected_pixels(n).numpy().tobytes(): n for n in range(COUNT)}
    return [known[image.numpy().tobytes()] for image in batch]


def epoch_of(dataset: MirrorDataset, batch_size: int = 8, **options: Any) -> list[list[int]]:
    sampler = ResumableSampler(dataset, seed=4)
    loader = DataLoader(dataset, batch_size=batch_size, sampler=sampler, **options)
    return [numbers_in(batch, dataset) for batch in sampler.track(loader)]


def dataset_of(made: Prepared, fetch: Fetcher, **options: Any) -> MirrorDataset:
    merged: dict[str, Any] = {"transform": pixels, "budget": 3} | options
    return MirrorDataset(made.dataset, fetch, **merged)


def flat(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


@pytest.mark.parametrize("workers", [0, 2])
def test_by_default_a_bad_sample_ends_the_training(
    damaged: tuple[Prepared, Fetcher], workers: int
) -> None:
    """Workers raise the same kind of exception as this process."""
    dataset = dataset_of(*damaged)
    with pytest.raises(CorruptObject, match="mirror repair"):
        epoch_of(dataset, num_workers=workers)
    assert not dataset.bad_samples


@pytest.mark.parametrize("workers", [0, 2])
def test_a_replaced_sample_is_chosen_by_seed_epoch_and_index(
    damaged: tuple[Prepared, Fetcher], workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = dataset_of(*damaged, on_bad="resample", seed=1)
    order = [int(n) for n in ResumableSampler(dataset, seed=4)]
    first = flat(epoch_of(dataset, num_workers=workers))
    assert [(a, b) for a, b in zip(order, first, strict=True) if a != b and a not in BAD] == []
    assert not set(first) & set(BAD)
    again = flat(epoch_of(dataset_of(*damaged, on_bad="resample", seed=1)))
    other = flat(epoch_of(dataset_of(*damaged, on_bad="resample", seed=2)))
    assert first == again
    assert first != other
    assert sorted(bad.index for bad in dataset.bad_samples) == list(BAD)
    assert {bad.epoch for bad in dataset.bad_samples} == {0}
    if not workers:
        told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert len({re.match(r"Sample \d+", line)[0] for line in told}) == 3  # type: ignore[index]


def test_another_epoch_has_other_replacements(damaged: tuple[Prepared, Fetcher]) -> None:
    dataset = dataset_of(*damaged, on_bad="resample")
    dataset.replace_from(range(COUNT))
    instead = []
    for epoch in range(6):
        dataset.set_epoch(epoch)
        instead.append(tuple(numbers_in(dataset.__getitems__(list(BAD)), dataset)))
    assert len(set(instead)) > 3
    assert len(dataset.bad_samples) == 18


def test_a_skipped_sample_makes_its_batch_shorter(damaged: tuple[Prepared, Fetcher]) -> None:
    dataset = dataset_of(*damaged, on_bad="skip")
    batches = epoch_of(dataset, num_workers=2)
    assert len(batches) == COUNT // 8
    assert sorted(flat(batches)) == [n for n in range(COUNT) if n not in BAD]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_rank_has_equally_many_batches_with_skipped_samples(
    damaged: tuple[Prepared, Fetcher], world_size: int, batch_size: int
) -> None:
    counts = []
    for rank in range(world_size):
        dataset = dataset_of(*damaged, on_bad="skip", budget=1.0)
        sampler = ResumableSampler(dataset, rank=rank, world_size=world_size)
        loader = DataLoader(dataset, batch_size=batch_size, sampler=sampler)
        counts.append(sum(1 for batch in sampler.track(loader) if len(batch)))
    assert set(counts) == {ceil(ceil(COUNT / world_size) / batch_size)}


def test_skipped_samples_count_as_consumed(damaged: tuple[Prepared, Fetcher]) -> None:
    """Otherwise, a resumed run would take consumed samples again."""
    dataset = dataset_of(*damaged, on_bad="skip")
    sampler = ResumableSampler(dataset, shuffle=False)
    loader = DataLoader(dataset, batch_size=8, sampler=sampler)
    tracked = sampler.track(loader)
    assert len(next(tracked)) == 7
    assert sampler.state_dict()["consumed"] == 8


@pytest.mark.parametrize("on_bad", ["skip", "resample"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_replaces_a_bad_sample(
    damaged: tuple[Prepared, Fetcher], on_bad: Any, workers: int
) -> None:
    """Its batches are those of a sampler of the same seed."""
    made, fetch = damaged
    stream = MirrorIterableDataset(
        made.dataset, fetch, batch_size=8, seed=4, transform=pixels, on_bad=on_bad, budget=3
    )
    loader = DataLoader(stream, batch_size=8, num_workers=workers)
    batches = [numbers_in(batch, stream) for batch in stream.track(loader)]
    assert batches == epoch_of(dataset_of(made, fetch, on_bad="resample", seed=4))


@pytest.mark.parametrize("workers", [0, 2])
def test_past_the_budget_training_stops_and_lists_the_samples(
    damaged: tuple[Prepared, Fetcher], workers: int
) -> None:
    dataset = dataset_of(*damaged, on_bad="skip", budget=2)
    with pytest.raises(TooManyBadSamples, match="3 bad samples, and 2 are allowed") as told:
        epoch_of(dataset, num_workers=workers)
    for number in BAD:
        key = object_key(digest_of(photo(number, SIDE)).content_hash, "jpeg")
        assert key in str(told.value)
    assert sorted(number_of(bad.url) for bad in dataset.bad_samples) == list(BAD)


def test_the_budget_is_per_epoch(damaged: tuple[Prepared, Fetcher]) -> None:
    dataset = dataset_of(*damaged, on_bad="resample", budget=3)
    sampler = ResumableSampler(dataset)
    loader = DataLoader(dataset, batch_size=8, sampler=sampler)
    for _ in range(3):
        list(sampler.track(loader))
    assert len(dataset.bad_samples) == 9


def test_a_dataset_with_no_good_sample_ends_the_search_for_one(tmp_path: Path) -> None:
    made = prepared(tmp_path, 6)
    for path in (tmp_path / "mirror" / "objects").rglob("*.jpg"):
        path.unlink()
    with Fetcher(made.settings) as fetch:
        for budget, sentence in ((1.0, "No good sample"), (1, "2 bad samples, and 1 are allowed")):
            dataset = dataset_of(made, fetch, on_bad="resample", budget=budget)
            dataset.replace_from(range(6))
            with pytest.raises(TooManyBadSamples, match=sentence):
                _ = dataset[0]


@pytest.mark.parametrize("on_bad", ["raise", "skip", "resample"])
def test_a_black_image_never_appears(damaged: tuple[Prepared, Fetcher], on_bad: Any) -> None:
    """Not even if one was written to the bucket under the key of a photograph."""
    made, fetch = damaged
    for path in (Path(made.settings.bucket_url.path) / "objects").rglob("*.jpg"):
        path.write_bytes(blank())
    dataset = dataset_of(made, fetch, on_bad=on_bad, budget=1.0)
    with pytest.raises((CorruptObject, TooManyBadSamples)):
        _ = dataset[5]


def refuses(data: bytes) -> Any:
    image = rgb(data)
    if data == photo(3, SIDE):
        raise ValueError("a colour space of its own")
    return image


def test_an_undecodable_image_is_a_bad_sample(made: Prepared, fetch: Fetcher) -> None:
    options: dict[str, Any] = {"decode": refuses, "on_missing": "drop"}
    with pytest.raises(Undecodable, match=r"3/medium.jpg does not decode: ValueError: a colour"):
        _ = dataset_of(made, fetch, **options)[3]
    assert len(dataset_of(made, fetch, on_bad="skip", **options).__getitems__([2, 3, 4])) == 2


def encoded(image: Any, form: str) -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def test_an_image_of_16_bits_keeps_its_greys() -> None:
    """Pillow clips values above 255, which leaves a white image."""
    ramp = (np.arange(256) * 256 + 255).astype(np.uint16).reshape(16, 16)
    for form in ("png", "tiff"):
        grey = np.asarray(rgb(encoded(Image.fromarray(ramp), form)))
        assert grey.shape == (16, 16, 3)
        assert (grey == np.arange(256).reshape(16, 16, 1)).all()
    big = Image.frombytes("I;16B", (16, 16), ramp.astype(">u2").tobytes())
    assert np.array_equal(np.asarray(rgb(encoded(big, "tiff"))), grey)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_greys_of_unknown_range_are_refused(kind: type[np.generic]) -> None:
    with pytest.raises(ValueError, match="decode="):
        rgb(encoded(Image.fromarray(np.ones((4, 4), kind)), "tiff"))


def test_an_error_of_the_transform_is_raised(made: Prepared, fetch: Fetcher) -> None:
    def broken(image: Any) -> Any:
        raise ZeroDivisionError

    dataset = dataset_of(made, fetch, transform=broken, on_bad="skip", on_missing="drop")
    with pytest.raises(ZeroDivisionError):
        _ = dataset[3]


@pytest.mark.parametrize("on_bad", ["skip", "resample"])
def test_a_mirror_that_goes_away_is_no_bad_sample(tmp_path: Path, on_bad: OnBad) -> None:
    made = prepared(tmp_path, COUNT)
    with Fetcher(made.settings, policy=HURRY) as fetch:
        dataset = dataset_of(made, fetch, on_bad=on_bad, budget=COUNT)
        (tmp_path / "mirror").rename(tmp_path / "unmounted")
        with pytest.raises(StoreUnavailable, match="mount"):
            dataset.__getitems__([1, 2])
        assert dataset.bad_samples == []


def test_indices_count_from_either_end(made: Prepared, fetch: Fetcher) -> None:
    dataset = dataset_of(made, fetch, on_missing="drop")
    assert torch.equal(dataset[-1], expected_pixels(99))
    for index in (100, -101):
        with pytest.raises(IndexError):
            _ = dataset[index]


@pytest.mark.parametrize(
    ("samples", "allowed", "world_size", "expected"),
    [
        (900_000, 0.001, 1, 900),
        (900_000, 0.001, 8, 112),
        (500, 0.001, 1, 1),
        (500, 0.001, 8, 1),
        (500, 0.0, 1, 0),
        (500, 70, 8, 8),
        (500, 7, 8, 1),
        (500, 7, 1, 7),
        (500, 0, 1, 0),
        (500, 1.0, 1, 500),
    ],
)
def test_the_budget_in_samples(
    samples: int, allowed: float, world_size: int, expected: int
) -> None:
    assert budget_of_rank(samples, allowed, world_size) == expected


def test_a_sample_counts_once_for_all_workers() -> None:
    import pickle

    one = BadSamples(2)
    other = BadSamples.__new__(BadSamples)
    other.__dict__ |= vars(one) | {"_list": [], "_known": set()}  # as a forked worker has it

    def met(who: BadSamples, indices: Sequence[int], epoch: int = 0) -> None:
        for index in indices:
            who.record(BadSample(epoch, index, url_of(index), f"{index} is bad"))

    met(one, [1, 2, 1])
    met(other, [2, 1])
    met(other, [1, 2], epoch=1)
    with pytest.raises(TooManyBadSamples, match="3 is bad"):
        met(other, [3])
    assert [bad.index for bad in one.all()] == [1, 2, 1, 2, 3]
    assert pickle.loads(pickle.dumps(one)).all() == one.all()


def test_half_a_record_of_a_killed_worker_hides_no_other() -> None:
    """A kill ends a write between two pages of the file."""
    bad = BadSamples(9)
    bad.record(BadSample(0, 1, url_of(1), "1 is bad"))
    whole = bad._file.read(0, bad._file.size)
    bad._file.append(whole[: len(whole) // 2])
    assert [known.index for known in bad.all()] == [1]
    bad.record(BadSample(0, 2, url_of(2), "2 is bad"))
    bad.record(BadSample(0, 3, url_of(3), "3 is bad"))
    assert [known.index for known in bad.all()] == [1, 2, 3]
