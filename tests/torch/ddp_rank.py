"""One rank of a training under torchrun: DistributedDataParallel, and a checkpoint at its end.

    torchrun --standalone --nproc-per-node 2 -m tests.torch.ddp_rank FOLDER STEPS

With either kind of dataset it trains STEPS steps (-1: the rest) of an epoch of `FOLDER/train.jsonl` by
`FOLDER/mirror`, from where the checkpoint says, and writes down what each rank was handed.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from mirror import Fetcher
from mirror.config.loading import Layer, merge
from mirror.torch import MirrorDataset, MirrorIterableDataset, ResumableSampler
from tests.torch.training_setup import SIDE, pixels

BATCH = 4


def train(folder: Path, kind: str, steps: int) -> None:
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
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
        loader = DataLoader(dataset, BATCH, sampler=tracked, num_workers=1)
    else:
        tracked = MirrorIterableDataset(
            folder / "train.jsonl", fetch, batch_size=BATCH, seed=9, **options
        )
        loader = DataLoader(tracked, BATCH, num_workers=1)
    checkpoint = folder / f"checkpoint-{kind}.json"
    if checkpoint.exists():
        tracked.load_state_dict(json.loads(checkpoint.read_text()))

    # The backward pass waits for all ranks: a rank with one batch more would wait forever.
    model = DistributedDataParallel(torch.nn.Linear(3 * SIDE * SIDE, 1))
    seen: list[int] = []
    batches = tracked.track(loader)
    for images, labels in batches if steps < 0 else islice(batches, steps):
        model(images.flatten(1).float()).mean().backward()
        seen += labels.tolist()
    torch.distributed.barrier()
    (folder / f"seen-{kind}-{world_size}-{rank}.json").write_text(json.dumps(seen))
    if rank == 0:
        checkpoint.write_text(json.dumps(tracked.state_dict()))


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    try:
        for kind in ("map", "stream"):
            train(Path(sys.argv[1]), kind, int(sys.argv[2]))
    finally:
        torch.distributed.destroy_process_group()
