"""A training that can be killed: it writes a checkpoint after every step.

    python -m tests.torch.killable_training FOLDER KIND WORKERS STOP

It goes through two epochs of `FOLDER/train.jsonl` by `FOLDER/mirror`, from where the checkpoint says.
Before step STOP (-1: never) it says so on standard output and waits to be killed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from mirror import Fetcher
from mirror.config.loading import Layer, merge
from mirror.torch import MirrorDataset, MirrorIterableDataset, ResumableSampler
from tests.torch.training_setup import pixels

EPOCHS = 2
BATCH = 4


def train(folder: Path, kind: str, workers: int, stop: int) -> None:
    place = {
        "bucket": {"url": f"file://{folder}/mirror"},
        "state": {"dir": str(folder / "state")},
    }
    fetch = Fetcher(merge([Layer("test", place)]))
    options: dict[str, Any] = {"label_field": "id", "transform": pixels}
    tracked: Any
    if kind == "map":
        dataset = MirrorDataset(folder / "train.jsonl", fetch, **options)
        tracked = ResumableSampler(dataset, seed=9)
        loader = DataLoader(dataset, BATCH, sampler=tracked, num_workers=workers)
    else:
        tracked = MirrorIterableDataset(
            folder / "train.jsonl", fetch, batch_size=BATCH, seed=9, **options
        )
        persist = workers > 0
        loader = DataLoader(tracked, BATCH, num_workers=workers, persistent_workers=persist)

    checkpoint = folder / "checkpoint.json"
    seen: list[list[int]] = []
    if checkpoint.exists():
        saved = json.loads(checkpoint.read_text())
        tracked.load_state_dict(saved["data"])
        seen = saved["seen"]
    for epoch in range(tracked.epoch, EPOCHS):
        tracked.set_epoch(epoch)
        for _, labels in tracked.track(loader):
            if len(seen) == stop:
                print("waiting", flush=True)
                sys.stdin.readline()
            seen.append(labels.tolist())
            half = folder / "checkpoint.tmp"
            half.write_text(json.dumps({"data": tracked.state_dict(), "seen": seen}))
            os.replace(half, checkpoint)


if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
