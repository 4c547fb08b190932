"""Trainings by Lightning and Accelerate on two ranks, and what each rank was handed.

    PYTHONPATH=.servers/training:. python -m tests.torch.lightning_training FOLDER

Lightning forks the ranks, so that one process imports it for all trainings. `FOLDER/heard.json` says for
each training which samples the ranks got, or the error.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytorch_lightning as lightning
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from mirror.config.loading import Layer, merge
from mirror.errors import UsageError
from mirror.fetch.client import Fetcher
from mirror.torch import MirrorDataset, MirrorIterableDataset, ResumableSampler
from tests.torch.test_document import LIGHTNING
from tests.torch.training_setup import pixels

SAMPLES, BATCH, RANKS = 23, 4, 2

MakeLoader = Callable[[], Any]


class Listener(lightning.LightningModule):  # type: ignore[misc]
    """A model of one weight, which notes the samples that it is trained on."""

    def __init__(self, out: Path, make_loader: MakeLoader) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.out, self.make_loader = out, make_loader
        self.seen: list[int] = []

    def train_dataloader(self) -> Any:
        return self.make_loader()

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        labels = batch if isinstance(batch, torch.Tensor) else batch[1]
        self.seen += labels.tolist()
        loss: torch.Tensor = self.layer(labels.float()[:, None]).mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_train_end(self) -> None:
        (self.out / f"{self.global_rank}.json").write_text(json.dumps(self.seen))


def numbers(kind: type[DataLoader[Any]]) -> DataLoader[Any]:
    """A loader of the numbers 0 to 22."""
    samples: Any = range(SAMPLES)
    return kind(samples, BATCH, sampler=ResumableSampler(samples, seed=1))


def stream(folder: Path, fetch: Fetcher) -> DataLoader[Any]:
    dataset = MirrorIterableDataset(
        folder / "train.jsonl", fetch, batch_size=BATCH, label_field="species", decode=len
    )
    return DataLoader(dataset, BATCH, num_workers=1, collate_fn=labels_of)


def labels_of(samples: list[tuple[int, int]]) -> torch.Tensor:
    return torch.tensor([label for _, label in samples])


def documented() -> Any:
    """The loader of the data module in docs/training.md."""
    names: dict[str, Any] = {"Fetcher": Fetcher, "transform": pixels}
    names |= {"MirrorDataset": MirrorDataset, "ResumableSampler": ResumableSampler}
    exec(LIGHTNING, names)
    return names["Plants"]().train_dataloader()


def fitted(
    out: Path, make: MakeLoader, *, before: bool = False, resume: Path | None = None, **options: Any
) -> Any:
    """Train by a Trainer with its defaults: the samples of each rank, or the error in one line.

    Args:
        out: a folder to make, for checkpoints and results.
        make: makes the loader of a rank.
        before: make the loader before `fit`, when the ranks are not yet known.
        resume: a checkpoint to continue from.
        options: of the Trainer.
    """
    out.mkdir()
    save = lightning.callbacks.ModelCheckpoint(out, every_n_train_steps=2, save_top_k=-1)
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": RANKS,
        "strategy": "ddp_fork",
        "max_epochs": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": [save],
        "default_root_dir": out,
    }
    trainer = lightning.Trainer(**defaults | options)
    try:
        trainer.fit(Listener(out, make), make() if before else None, ckpt_path=resume)
    except Exception as error:  # noqa: BLE001 - the error of a rank, as text
        return str(error).strip().splitlines()[-1]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(RANKS)]


def heard(folder: Path) -> dict[str, Any]:
    place = {"bucket": {"url": f"file://{folder}/mirror"}, "state": {"dir": f"{folder}/state"}}
    fetch = Fetcher(merge([Layer("test", place)]))
    os.chdir(folder)
    tables = (
        f'[{section}]\n{key} = "{value}"\n'
        for section, of in place.items()
        for key, value in of.items()
    )
    Path("mirror.toml").write_text("".join(tables))

    def streamed() -> DataLoader[Any]:
        return stream(folder, fetch)

    def plain() -> DataLoader[Any]:
        return numbers(DataLoader)

    def stateful() -> DataLoader[Any]:
        return numbers(StatefulDataLoader)

    two: dict[str, Any] = {"max_epochs": 2}
    ways = {
        "plain": fitted(folder / "plain", plain),
        "stream": fitted(folder / "stream", streamed),
        "documented": fitted(folder / "documented", documented),
        "plain before": fitted(folder / "before", plain, before=True),
        "own before": fitted(folder / "own", plain, before=True, use_distributed_sampler=False),
        "stream before": fitted(folder / "early", streamed, before=True),
        "whole": fitted(folder / "whole", stateful, **two),
    }
    for checkpoint in sorted((folder / "whole").glob("*.ckpt")):
        steps = checkpoint.stem.rpartition("step=")[2]
        resumed = fitted(folder / f"after-{steps}", stateful, resume=checkpoint, **two)
        ways[f"resumed {steps}"] = resumed
    fetch.close()
    return ways


def accelerated(out: str) -> None:
    """One rank under Accelerate: the loader as it is, then one that Accelerate has prepared."""
    accelerator = accelerate.Accelerator(cpu=True)
    loader = numbers(DataLoader)
    sampler: Any = loader.sampler
    seen = [int(label) for labels in sampler.track(loader) for label in labels]
    try:
        list(sampler.track(accelerator.prepare(loader)))
    except UsageError as error:
        said = {"seen": seen, "prepared": str(error)}
        Path(out, f"accelerate-{accelerator.process_index}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    path = Path(sys.argv[1])
    ways = heard(path)
    accelerate.notebook_launcher(accelerated, (str(path),), num_processes=RANKS)
    ranks = [json.loads((path / f"accelerate-{rank}.json").read_text()) for rank in range(RANKS)]
    ways["accelerate"] = [rank["seen"] for rank in ranks]
    ways["prepared"] = ranks[0]["prepared"]
    (path / "heard.json").write_text(json.dumps(ways))
