"""DataLoader workers that are killed: the error arrives, and the last state continues exactly."""

from __future__ import annotations

import gc
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, get_worker_info

from mirror import Fetcher
from mirror.content.digest import digest_of
from mirror.layout import object_key
from mirror.torch import MirrorDataset, MirrorIterableDataset, ResumableSampler, rgb
from tests.support.photos import photo
from tests.torch.training_setup import SIDE, expected_pixels, pixels, prepared

COUNT = 40
BATCH = 4
BAD = 7


class Site:
    """A mirror of 40 photos, one of which is gone; a photo by its pixels."""

    def __init__(self, folder: Path) -> None:
        made = prepared(folder, COUNT)
        key = object_key(digest_of(photo(BAD, SIDE)).content_hash, "jpeg")
        (folder / "mirror" / key).unlink()
        self.file = made.dataset
        self.fetch = Fetcher(made.settings)
        self.numbers = {expected_pixels(n).numpy().tobytes(): n for n in range(COUNT)}

    def numbers_in(self, batch: torch.Tensor) -> list[int]:
        return [self.numbers[image.numpy().tobytes()] for image in batch]

    def training(self, kind: str, decode: Any, **options: Any) -> tuple[Any, DataLoader[Any]]:
        """What counts samples, and its loader."""
        how: dict[str, Any] = {"decode": decode, "transform": pixels, "on_bad": "resample"}
        how |= {"budget": 3}
        if kind == "map":
            dataset = MirrorDataset(self.file, self.fetch, **how)
            sampler = ResumableSampler(dataset, seed=5)
            return sampler, DataLoader(dataset, BATCH, sampler=sampler, **options)
        stream = MirrorIterableDataset(self.file, self.fetch, batch_size=BATCH, seed=5, **how)
        return stream, DataLoader(stream, BATCH, **options)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.fetch.close()


class DiesAt:
    """A decoder in whose worker the image of a number is the last: SIGKILL, in mid-batch."""

    def __init__(self, number: int) -> None:
        self._last = photo(number, SIDE)

    def __call__(self, data: bytes) -> Any:
        if data == self._last and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return rgb(data)


def shared_files() -> Counter[str]:
    """Open and mapped files in shared memory, and those that a process that ended left there."""
    open_files = []
    for name in os.listdir("/proc/self/fd"):
        try:
            open_files.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # the descriptor of the listing
            continue
    mapped = [line.split()[5:6] for line in Path("/proc/self/maps").read_text().splitlines()]
    paths = [*open_files, *(path for found in mapped for path in found)]
    ours = [path for path in paths if "/mirror-" in path or "/torch_" in path]
    named = [name for name in os.listdir("/dev/shm") if name.startswith("torch_")]
    return Counter([*ours, *(name for name in named if not running(int(name.split("_")[1])))])


def running(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def trained_until_the_kill(
    site: Site, counted: Any, loader: DataLoader[Any]
) -> tuple[list[list[int]], dict[str, Any]]:
    """The batches of the steps that ended, and the state after the last of them.

    torch raises its error in a signal handler, which may run at any moment: before, or a little
    after, the main process notices that the worker's socket is closed.
    """
    done: tuple[list[list[int]], dict[str, Any]] = [], counted.state_dict()
    error: Exception | None = None
    try:
        for batch in counted.track(loader):
            numbers = site.numbers_in(batch)
            done = [*done[0], numbers], json.loads(json.dumps(counted.state_dict()))
    except (RuntimeError, OSError, EOFError) as raised:
        error = raised
    try:
        time.sleep(0.0 if isinstance(error, RuntimeError) else 1.0)
    except RuntimeError as raised:
        error = raised
    assert "worker" in str(error)
    return done


@pytest.mark.parametrize("kind", ["map", "stream"])
@pytest.mark.parametrize("persistent", [False, True])
def test_no_sample_is_lost_or_repeated_after_a_worker_is_killed(
    site: Site, kind: str, persistent: bool
) -> None:
    """A new run from the last state, or the same run with a new loader, takes the rest."""
    unbroken, loader = site.training(kind, rgb)
    whole = [site.numbers_in(batch) for batch in unbroken.track(loader)]
    last = whole[6][2]
    before = shared_files()

    counted, loader = site.training(
        kind, DiesAt(last), num_workers=2, persistent_workers=persistent
    )
    seen, state = trained_until_the_kill(site, counted, loader)
    assert seen == whole[: len(seen)]
    assert len(seen) <= 6
    assert state["consumed"] == BATCH * len(seen)

    again, fresh = site.training(kind, rgb, num_workers=2)
    again.load_state_dict(state)
    assert seen + [site.numbers_in(batch) for batch in again.track(fresh)] == whole

    dataset = loader.dataset
    assert isinstance(dataset, MirrorDataset | MirrorIterableDataset)
    dataset._decode = rgb
    counted.load_state_dict(state)
    options: dict[str, Any] = {"num_workers": 2}
    renewed = (
        DataLoader(dataset, BATCH, sampler=counted, **options)
        if kind == "map"
        else DataLoader(dataset, BATCH, **options)
    )
    assert seen + [site.numbers_in(batch) for batch in counted.track(renewed)] == whole
    assert {bad.index for bad in dataset.bad_samples} == {BAD}

    del unbroken, counted, again, loader, fresh, renewed, dataset
    deadline = time.monotonic() + 20.0
    # One collection may not be enough: finalizers of a loader keep what it holds for the next.
    while gc.collect() or (shared_files() - before and time.monotonic() < deadline):
        time.sleep(0.05)
    assert not shared_files() - before
