# ruff: noqa: INP001 - a script, not a package
"""Train a small CNN on the demo's photographs, read from a mirror: CPU, under two minutes.

    python examples/train_small_cnn.py
    python examples/train_small_cnn.py --stop-after 5     stops in mid-epoch, as a crash would
    python examples/train_small_cnn.py                    goes on with the sample after that

There is no server of iNaturalist's here, and nothing that could reach it: what training reads is the
mirror. The black frames, cut files and error pages that the demo's cache holds are not in it.
Needs: pip install "dataset-mirror[demo,torch]".
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from mirror import Fetcher
from mirror.config.loading import Layer, merge
from mirror.config.settings import Settings
from mirror.demo.demo_cache import make_cache
from mirror.sync.run_sync import sync
from mirror.torch import MirrorDataset, ResumableSampler

SIDE = 48


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small CNN on a mirror's photographs.")
    folder = Path("mirror-demo-training")
    parser.add_argument("--folder", type=Path, default=folder, help="of mirror and checkpoint")
    parser.add_argument("--images", type=int, default=300, help="photographs to make")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes that read; 0 for none")
    parser.add_argument("--stop-after", type=int, metavar="STEPS", help="as a crash would")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # The settings of a training; in real life: Fetcher.from_config("mirror.toml").
    settings = settings_of(options.folder)
    if not (options.folder / "mirror").exists():
        mirrored(options.folder, options.images)
    with Fetcher(settings) as fetch:
        train(fetch, options)


def settings_of(folder: Path, **sections: dict[str, str]) -> Settings:
    place = {
        "bucket": {"url": f"file://{folder.absolute()}/mirror"},
        "state": {"dir": str(folder.absolute() / "state")},
    }
    return merge([Layer("example", place | sections)])


def mirrored(folder: Path, images: int) -> None:
    """Once, before any training: the cache that an old loader has left goes into a mirror."""
    made = make_cache(folder, images)
    report = sync(settings_of(folder, cache={"dir": str(made.folder)}))
    print(f"mirrored {report.uploaded} of {made.files} files; the rest is flagged or a duplicate")


def train(fetch: Fetcher, options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    dataset = MirrorDataset(
        options.folder / "dataset_raw.jsonl",
        fetch,
        label_field="scene",
        transform=to_tensor,
        on_missing="drop",
    )
    print(dataset.check)
    sampler = ResumableSampler(dataset)
    loader = DataLoader(dataset, batch_size=32, sampler=sampler, num_workers=options.workers)
    model = small_cnn(len(dataset.classes))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    path = options.folder / "checkpoint.pt"
    if path.exists():
        checkpoint = torch.load(path)
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        sampler.load_state_dict(checkpoint["sampler"])
        print(f"resumed in epoch {sampler.epoch}: {len(sampler)} of its samples are left")

    steps = 0
    for epoch in range(sampler.epoch, options.epochs):
        right = seen = 0
        for images, labels in sampler.track(loader):
            scores = model(images)
            loss = nn.functional.cross_entropy(scores, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right += int((scores.argmax(1) == labels).sum())
            seen += len(labels)
            steps += 1
            # After the step: what is saved as consumed has been trained on.
            save(path, model=model, optimizer=optimizer, sampler=sampler)
            if steps == options.stop_after:
                print(f"stopped in epoch {epoch}: {len(sampler)} of its samples are left")
                return
        print(f"epoch {epoch}: trained on {seen} samples, {right / max(1, seen):.0%} of them right")
        save(path, model=model, optimizer=optimizer, sampler=sampler)


def save(path: Path, **parts: Any) -> None:
    half = path.with_suffix(".tmp")
    torch.save({name: part.state_dict() for name, part in parts.items()}, half)
    os.replace(half, path)


def to_tensor(image: Any) -> torch.Tensor:
    pixels = np.asarray(image.resize((SIDE, SIDE)), np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1


def small_cnn(classes: int) -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]

    layers = [*block(3, 16), *block(16, 32), *block(32, 64)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


if __name__ == "__main__":
    main()
