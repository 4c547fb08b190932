"""Two ranks under torchrun that do not agree, and what each of them says.

    torchrun --standalone --nproc-per-node 2 -m tests.torch.disagreeing_ranks FOLDER BACKEND

A sync adds an image between the moments at which the two ranks read the index of `FOLDER/mirror`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.utils.data import DataLoader

from mirror import Fetcher
from mirror.config.loading import Layer, merge
from mirror.errors import MirrorError
from mirror.sync.run_sync import sync
from mirror.torch import MirrorDataset, MirrorIterableDataset, ResumableSampler
from tests.support.photos import fill, photo, url_of
from tests.torch.training_setup import SIDE

SAMPLES = 12


def fetchers_of_two_versions(folder: Path) -> Fetcher:
    """Rank 0 reads the index, then a sync adds the last photo, then rank 1 reads it."""
    rank = torch.distributed.get_rank()
    place = {"bucket": {"url": f"file://{folder}/mirror"}}
    state = {"state": {"dir": str(folder / f"state-{rank}")}}
    settings = merge([Layer("test", place | state)])
    if rank == 0:
        fetch = Fetcher(settings)
        fill(folder / "cache", {url_of(SAMPLES - 1): photo(SAMPLES - 1, SIDE)})
        where = {"cache": {"dir": str(folder / "cache")}, "state": {"dir": str(folder / "state")}}
        assert sync(merge([Layer("test", place | where)])).uploaded == 1
    torch.distributed.barrier()
    return fetch if rank == 0 else Fetcher(settings)


def said(make: Callable[[], object]) -> str:
    try:
        make()
    except MirrorError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def first_batch(state: dict[str, Any]) -> int:
    """The size of the first batch; only rank 0 loads a state."""
    sampler = ResumableSampler(range(SAMPLES))
    if torch.distributed.get_rank() == 0:
        sampler.load_state_dict(sampler.state_dict() | state)
    numbers: Any = range(SAMPLES)
    return len(next(sampler.track(DataLoader(numbers, 2, sampler=sampler))))


def heard(folder: Path) -> dict[str, str]:
    rank = torch.distributed.get_rank()
    fetch = fetchers_of_two_versions(folder)
    file, numbers = folder / "train.jsonl", range(SAMPLES)
    dataset = MirrorDataset(file, fetch, on_missing="drop")

    def stream() -> object:
        return MirrorIterableDataset(file, fetch, on_missing="drop", batch_size=2)

    heard = {
        "map": said(lambda: ResumableSampler(dataset)),
        "stream": said(stream),
        "seed": said(lambda: ResumableSampler(numbers, seed=rank)),
        "drop_last": said(lambda: ResumableSampler(numbers, drop_last=rank == 1)),
        "state": said(lambda: first_batch({"consumed": 4})),
        "agreed": said(lambda: first_batch({})),
    }
    if rank == 0:  # a rank that validates alone waits for no other
        heard["alone"] = said(lambda: ResumableSampler(dataset, rank=0, world_size=1))
    return heard


if __name__ == "__main__":
    torch.distributed.init_process_group(sys.argv[2], timeout=timedelta(seconds=60))
    try:
        path = Path(sys.argv[1])
        out = path / f"heard-{torch.distributed.get_rank()}.json"
        out.write_text(json.dumps(heard(path)))
    finally:
        torch.distributed.destroy_process_group()
