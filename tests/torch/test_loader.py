"""The real DataLoader: every start method, kills within an epoch, a bad network."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from mirror import Fetcher
from mirror.config.loading import Layer, merge
from mirror.config.settings import Settings
from mirror.errors import UsageError
from mirror.torch import MirrorDataset, MirrorIterableDataset, ResumableSampler
from tests.conftest import MakePlace
from tests.support.fault_proxy import (
    SLOW_DOWN,
    TOO_MANY_REQUESTS,
    Fault,
    FaultProxy,
    Reset,
    Stall,
    Truncate,
    seeded,
)
from tests.support.photos import url_of
from tests.torch.training_setup import (
    CLASSES,
    Prepared,
    class_of,
    expected_pixels,
    number_of,
    pixels,
    prepared,
)

Batches = list[tuple[torch.Tensor, torch.Tensor]]
WAYS = [None, "fork", "spawn", "forkserver"]


def loaders(
    made: Prepared, fetch: Fetcher, batch_size: int = 16, **options: Any
) -> dict[str, tuple[Any, DataLoader[Any]]]:
    """For a kind of dataset: the object that counts, and the loader."""
    how: dict[str, Any] = {"label_field": "species", "transform": pixels, "on_missing": "drop"}
    dataset = MirrorDataset(made.dataset, fetch, **how)
    sampler = ResumableSampler(dataset, seed=3)
    stream = MirrorIterableDataset(made.dataset, fetch, batch_size=batch_size, seed=3, **how)
    return {
        "map": (sampler, DataLoader(dataset, batch_size, sampler=sampler, **options)),
        "stream": (stream, DataLoader(stream, batch_size, **options)),
    }


def same(one: Batches, other: Batches) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for mine, its in zip(one, other, strict=True)
        for a, b in zip(mine, its, strict=True)
    )


def started(way: str | None) -> dict[str, Any]:
    """DataLoader options for two workers with this start method; None for no workers."""
    if way is None:
        return {"num_workers": 0}
    context = multiprocessing.get_context(way)
    if way == "forkserver":
        context.set_forkserver_preload(["mirror.torch", "tests.torch.training_setup"])
    return {"num_workers": 2, "multiprocessing_context": context, "persistent_workers": True}


@pytest.mark.parametrize("way", WAYS)
def test_workers_of_every_kind_give_the_same_batches(
    made: Prepared, fetch: Fetcher, way: str | None
) -> None:
    assert fetch(url_of(0))  # the fetcher is in use before the workers start
    here = loaders(made, fetch)
    expected = [list(here["map"][0].track(here["map"][1])) for _ in range(2)]
    there = loaders(made, fetch, **started(way))
    if way == "spawn":  # slow, as each worker imports torch; forkserver pickles the same
        del there["stream"]
    for counted, loader in there.values():
        for epoch in range(2):
            assert counted.epoch == epoch
            assert same(list(counted.track(loader)), expected[epoch])
    assert not same(*expected)


def test_images_and_labels_are_those_of_their_records(made: Prepared, fetch: Fetcher) -> None:
    dataset = MirrorDataset(
        made.dataset, fetch, label_field="species", transform=pixels, on_missing="drop"
    )
    assert dataset.classes == CLASSES
    sampler = ResumableSampler(dataset)
    order = [number_of(dataset.url(index)) for index in sampler]
    got = [
        (image, dataset.classes[label])
        for images, labels in sampler.track(DataLoader(dataset, 16, sampler=sampler))
        for image, label in zip(images, labels, strict=True)
    ]
    assert sorted(order) == list(range(100))
    for number, (image, name) in zip(order, got, strict=True):
        assert torch.equal(image, expected_pixels(number))
        assert name == class_of(url_of(number))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("workers", "drop_last"), [(0, True), (1, False), (3, True), (5, False)])
def test_a_stream_resumes_with_another_number_of_workers(
    made: Prepared, fetch: Fetcher, workers: int, drop_last: bool
) -> None:
    """100 samples in batches of 16: with 5 workers most have one batch, and the last is short."""

    def labels(state: dict[str, Any] | None, steps: int | None, workers: int) -> Any:
        counted, loader = loaders(made, fetch, num_workers=workers, drop_last=drop_last)["stream"]
        if state is not None:
            counted.load_state_dict(state)
        tracked = counted.track(loader)
        got = [images for images, _ in (tracked if steps is None else zip_first(tracked, steps))]
        return got, counted.state_dict()

    whole, _ = labels(None, None, 0)
    first, state = labels(None, 3, workers)
    rest, after = labels(state, None, 2)
    assert state["consumed"] == 48
    assert after["epoch"] == 1
    assert len(whole) == (6 if drop_last else 7)
    assert all(map(torch.equal, [*first, *rest], whole))
    assert len(first) + len(rest) == len(whole)


def test_a_second_loader_of_the_same_seed_begins_where_the_stream_is(
    made: Prepared, fetch: Fetcher
) -> None:
    """Both have persistent workers; the seed alone does not tell their iterations apart."""

    def loader(workers: int) -> DataLoader[Any]:
        seed = torch.Generator().manual_seed(0)
        persist = workers > 0
        return DataLoader(
            stream, 16, num_workers=workers, persistent_workers=persist, generator=seed
        )

    def epochs(loader: DataLoader[Any]) -> list[torch.Tensor]:
        return [image for _ in range(3) for batch in stream.track(loader) for image in batch]

    how: dict[str, Any] = {"transform": pixels, "on_missing": "drop", "batch_size": 16}
    stream = MirrorIterableDataset(made.dataset, fetch, **how)
    first = loader(2)
    zip_first(stream.track(first), 2)
    rest = [image for batch in stream.track(first) for image in batch]
    assert len(rest) == 100 - 32
    got = epochs(loader(2))
    stream.set_epoch(1)
    assert len(got) == 300
    assert all(map(torch.equal, got, epochs(loader(0))))


def zip_first(batches: Any, count: int) -> list[Any]:
    return [next(batches) for _ in range(count)]


@pytest.mark.parametrize("kind", ["map", "stream"])
def test_ranks_share_an_epoch_when_their_number_changes(
    made: Prepared, fetch: Fetcher, kind: str
) -> None:
    """One rank, then four, then two, with the real loader and workers."""
    seen: list[bytes] = []
    state: dict[str, Any] | None = None
    how: dict[str, Any] = {"transform": pixels, "on_missing": "drop"}
    for world_size, steps in ((1, 3), (4, 2), (2, None)):
        states = []
        for rank in range(world_size):
            where: dict[str, Any] = {"rank": rank, "world_size": world_size}
            counted: Any
            if kind == "map":
                dataset = MirrorDataset(made.dataset, fetch, **how)
                counted = ResumableSampler(dataset, **where)
                loader = DataLoader(dataset, 5, sampler=counted, num_workers=1)
            else:
                counted = MirrorIterableDataset(made.dataset, fetch, batch_size=5, **how, **where)
                loader = DataLoader(counted, 5, num_workers=1)
            if state is not None:
                counted.load_state_dict(state)
            tracked = counted.track(loader)
            batches = list(tracked) if steps is None else zip_first(tracked, steps)
            seen += [image.numpy().tobytes() for batch in batches for image in batch]
            states.append(counted.state_dict())
        assert all(one == states[0] for one in states)
        state = states[0]
    all_of_them = [expected_pixels(number).numpy().tobytes() for number in range(100)]
    # 15, then 40, then 45: two ranks take 23 each, so one sample is repeated.
    assert len(seen) == 101
    assert set(seen) == set(all_of_them)


@pytest.mark.parametrize(
    ("kind", "runs"),
    [("map", [(3, 2), (11, 0), (-1, 2)]), ("stream", [(11, 2), (-1, 0)])],
)
def test_a_killed_training_resumes_with_exactly_the_remaining_samples(
    tmp_path: Path, kind: str, runs: list[tuple[int, int]]
) -> None:
    """SIGKILL before a step of the first epoch, or of the second, when workers have read ahead.

    Each run: the step before which it is killed (-1: it is not), and its number of workers.
    """
    made = prepared(tmp_path, 30)
    lines = [{"image_url": url_of(n), "id": f"{n:03}"} for n in range(30)]
    made.dataset.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    for stop, workers in runs:
        command = [sys.executable, "-m", "tests.torch.killable_training", str(tmp_path), kind]
        process = subprocess.Popen(
            [*command, str(workers), str(stop)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout is not None
            if stop >= 0:
                assert process.stdout.readline() == b"waiting\n"
                process.kill()
            process.wait(120)
            assert process.returncode == (-9 if stop >= 0 else 0)

    seen = json.loads((tmp_path / "checkpoint.json").read_text())["seen"]
    assert [len(batch) for batch in seen] == [4, 4, 4, 4, 4, 4, 4, 2] * 2
    unbroken = ResumableSampler(range(30), seed=9)
    for epoch in range(2):
        unbroken.set_epoch(epoch)
        batches = seen[8 * epoch : 8 * epoch + 8]
        assert [n for batch in batches for n in batch] == list(unbroken)


def test_network_faults_cost_only_time(tmp_path: Path, make_place: MakePlace) -> None:
    place = make_place("moto-obstore")
    made = prepared(tmp_path, 120, bucket=place.layer)
    faults: list[Fault] = [SLOW_DOWN, TOO_MANY_REQUESTS, Reset(), Stall(0.2), Truncate(100)]

    def epochs(settings: Settings) -> Batches:
        with Fetcher(settings) as fetch:
            counted, loader = loaders(
                made._replace(settings=settings), fetch, num_workers=2, batch_size=20
            )["map"]
            return [batch for _ in range(2) for batch in counted.track(loader)]

    expected = epochs(made.settings)
    assert place.server is not None
    with FaultProxy(place.server.endpoint) as proxy:
        faulty = merge(
            [
                Layer("proxy", {"bucket": place.layer | {"endpoint": proxy.endpoint}}),
                Layer("test", {"state": {"dir": str(tmp_path / "state-2")}}),
            ]
        )
        proxy.rule = seeded(0.05, faults, seed=11)
        assert same(epochs(faulty), expected)
        assert proxy.counts["get"] > 245


def test_a_loader_with_another_batch_size_is_refused(made: Prepared, fetch: Fetcher) -> None:
    stream = MirrorIterableDataset(made.dataset, fetch, batch_size=8, on_missing="drop")
    other = MirrorIterableDataset(made.dataset, fetch, batch_size=8, on_missing="drop")
    with pytest.raises(UsageError, match="batches of 4"):
        stream.track(DataLoader(stream, batch_size=4))
    with pytest.raises(UsageError, match="another dataset"):
        stream.track(DataLoader(other, batch_size=8))
    with pytest.raises(UsageError, match="at least 1"):
        MirrorIterableDataset(made.dataset, fetch, batch_size=0)


@pytest.mark.parametrize("kind", ["map", "stream"])
def test_a_loader_without_in_order_is_refused(made: Prepared, fetch: Fetcher, kind: str) -> None:
    """The number of batches does not say which ones they were."""
    counted, loader = loaders(made, fetch, num_workers=2, in_order=False)[kind]
    with pytest.raises(UsageError, match="in_order"):
        counted.track(loader)


@pytest.mark.parametrize("kind", ["map", "stream"])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_ends_with_a_log_line_of_all_workers_statistics(
    made: Prepared, fetch: Fetcher, caplog: pytest.LogCaptureFixture, kind: str, workers: int
) -> None:
    counted, loader = loaders(made, fetch, num_workers=workers)[kind]
    with caplog.at_level("INFO", logger="mirror.torch"):
        for _ in range(2):
            list(counted.track(loader))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    for epoch, line in enumerate(lines):
        assert line.startswith(f"epoch {epoch}, rank 0 of 1: 7 batches in ")
        assert "; 100 images, " in line
