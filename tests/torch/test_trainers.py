"""The real Lightning, Accelerate and torchdata, each with two ranks or two workers."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, DistributedSampler

from mirror import Fetcher
from mirror.errors import UsageError
from mirror.torch import MirrorDataset, MirrorIterableDataset, ResumableSampler
from tests.servers.process import installed
from tests.support.photos import url_of
from tests.torch.training_setup import Prepared, prepared

ROOT = Path(__file__).parents[2]
SAMPLES = 23


def test_lightning_and_accelerate_lose_no_sample(tmp_path: Path) -> None:
    """With the defaults of their trainers; a loader made too early is refused."""
    made = prepared(tmp_path, SAMPLES)
    lines = [{"image_url": url_of(n), "species": f"{n:03}"} for n in range(SAMPLES)]
    made.dataset.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = subprocess.run(
        [sys.executable, "-m", "tests.torch.lightning_training", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{installed('training')}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    heard = json.loads((tmp_path / "heard.json").read_text())

    for way in ("plain", "stream", "documented", "accelerate"):
        assert [len(numbers) for numbers in heard[way]] == [12, 12], way
        assert set(chain(*heard[way])) == set(range(SAMPLES)), way
    for way in ("plain before", "own before", "stream before"):
        assert "was made as rank 0 of 1, but the process is now rank" in heard[way], way
    assert heard["prepared"].startswith("The loader has another sampler")

    whole = heard["whole"]
    for at in (0, 12):
        assert set(chain(*(rank[at : at + 12] for rank in whole))) == set(range(SAMPLES))
    for steps, consumed in ((2, 8), (4, 16)):  # of the first epoch, then of the second
        assert heard[f"resumed {steps}"] == [rank[consumed:] for rank in whole]


def test_the_sampler_has_the_attributes_of_a_distributed_sampler() -> None:
    sampler = ResumableSampler(range(23), seed=5, rank=1, world_size=2)
    numbers: Any = range(23)
    known: Any = DistributedSampler(numbers, 2, 1, seed=5)
    ours = {name: getattr(sampler, name, None) for name in vars(known)}
    assert ours == vars(known)


NOW = pytest.mark.parametrize(
    ("found", "now", "given"),
    [
        ((0, 1), (0, 2), False),
        ((0, 1), (1, 2), False),
        ((1, 2), (1, 4), False),
        ((1, 2), (0, 2), False),
        ((1, 2), (1, 2), False),
        ((0, 1), (1, 2), True),
    ],
)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@NOW
def test_a_rank_that_changed_is_refused_unless_it_was_given(
    made: Prepared,
    fetch: Fetcher,
    monkeypatch: pytest.MonkeyPatch,
    found: tuple[int, int],
    now: tuple[int, int],
    given: bool,
) -> None:
    for name, value in zip(("RANK", "WORLD_SIZE"), found, strict=True):
        monkeypatch.setenv(name, str(value))
    names = ("rank", "world_size") if given else ()
    rank: dict[str, Any] = dict(zip(names, found, strict=False))
    stream = MirrorIterableDataset(
        made.dataset, fetch, batch_size=16, on_missing="drop", decode=len, **rank
    )
    sampler = ResumableSampler(stream, **rank)
    for name, number in zip(("get_rank", "get_world_size"), now, strict=True):
        monkeypatch.setattr(f"torch.distributed.{name}", lambda number=number: number)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr(
        "mirror.torch.rank_agreement._gathered", lambda facts, ranks: [facts] * ranks
    )

    numbers: Any = range(100)
    loader = DataLoader(numbers, 16, sampler=sampler)
    forked: Any = DataLoader(stream, 16, num_workers=1, multiprocessing_context="fork")
    ways: list[Callable[[], Any]] = [
        *(lambda: len(sampler), lambda: list(sampler), lambda: list(sampler.track(loader))),
        *(lambda: len(stream), lambda: next(iter(stream)), lambda: pickle.dumps(stream)),
        lambda: sum(map(len, forked)),
    ]
    for way in ways:
        if found == now or given:
            assert way()
            continue
        with pytest.raises(UsageError, match=r"was made as rank \d of \d, but the process is now"):
            way()


@pytest.fixture
def stateful_loader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """torchdata's StatefulDataLoader; nothing of torchdata stays in this process."""
    monkeypatch.syspath_prepend(installed("training"))
    yield importlib.import_module("torchdata.stateful_dataloader").StatefulDataLoader
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchdata"]:
        del sys.modules[name]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
@pytest.mark.parametrize("kind", ["map", "stream"])
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_a_stateful_loader_resumes_exactly(
    made: Prepared,
    fetch: Fetcher,
    stateful_loader: Any,
    kind: str,
    workers: int,
    persistent: bool,
) -> None:
    """100 samples in batches of 16, with states within, at the end of, and after each epoch."""

    def begin(state: Any = None) -> tuple[Any, Any]:
        counted: Any
        how: dict[str, Any] = {"decode": bytes, "on_missing": "drop"}
        if kind == "map":
            dataset: Any = MirrorDataset(made.dataset, fetch, **how)
            counted = ResumableSampler(dataset, seed=3)
            options = {"sampler": counted}
        else:
            counted = dataset = MirrorIterableDataset(
                made.dataset, fetch, batch_size=16, seed=3, **how
            )
            options = {}
        loader = stateful_loader(
            *(dataset, 16),
            num_workers=workers,
            persistent_workers=persistent,
            collate_fn=list,
            **options,
        )
        if state is not None:
            loader.load_state_dict(state)
        return counted, loader

    counted, loader = begin()
    epochs: list[list[Any]] = []
    states: dict[tuple[int, int], Any] = {}
    for epoch in range(2):
        counted.set_epoch(epoch)
        epochs.append([])
        for batch in loader:
            epochs[epoch].append(batch)
            states[epoch, len(epochs[epoch])] = loader.state_dict()
        states[epoch + 1, 0] = loader.state_dict()
        assert len({image for batch in epochs[epoch] for image in batch}) == 100
    assert epochs[0] != epochs[1]

    for epoch, taken in ((0, 3), (0, 7), (1, 0), (1, 3)):
        counted, loader = begin(states[epoch, taken])
        if (epoch, taken) == (0, 3):  # a state that is saved by a resumed run
            counted.set_epoch(epoch)
            assert next(iter(loader)) == epochs[0][3]
            counted, loader = begin(loader.state_dict())
            taken = 4  # noqa: PLW2901
        for number in range(epoch, 2):
            counted.set_epoch(number)
            assert list(loader) == epochs[number][taken if number == epoch else 0 :]
    with pytest.raises(UsageError, match="keeps a state of its own"):
        counted.track(loader)


def test_a_stateful_loader_refuses_a_state_of_other_samples(made: Prepared, fetch: Fetcher) -> None:
    def of(batch_size: int = 16, **options: Any) -> Any:
        how: dict[str, Any] = {"decode": len, "on_missing": "drop"} | options
        return iter(MirrorIterableDataset(made.dataset, fetch, batch_size=batch_size, **how))

    stream, drawn = of(), iter(ResumableSampler(range(100)))
    for case, match in ((of(8), "'batch_size': 16"), (of(rank=0, world_size=2), "'world_size': 1")):
        with pytest.raises(UsageError, match=match):
            case.load_state_dict(stream.state_dict())
    with pytest.raises(UsageError, match="The checkpoint is of a dataset"):
        iter(ResumableSampler(range(101))).load_state_dict(drawn.state_dict())
    for case in (stream, drawn):
        with pytest.raises(UsageError, match="was saved with|This is no sampler state"):
            case.load_state_dict({})
