# ruff: noqa: INP001 - a script, not a package
"""Train a small CNN on photographs from a mirror. Takes under two minutes on a CPU.

    python examples/train_small_cnn.py
    python examples/train_small_cnn.py --stop-after 5     stop within an epoch, as a crash would
    python examples/train_small_cnn.py                    resume with the next sample

The first run makes a small cache and mirrors it to a local folder. Training reads only the mirror. It
never sees the cache's black frames, truncated files and error pages, because they are not mirrored.
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

from mirror import Fetcher, Mirror
from mirror.demo.demo_cache import make_cache
from mirror.torch import MirrorDataset, ResumableSampler

SIDE = 48


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small CNN on photographs from a mirror.")
    folder = Path("mirror-demo-training")
    parser.add_argument("--folder", type=Path, default=folder, help="folder for everything")
    parser.add_argument("--images", type=int, default=300, help="photographs in the cache")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--stop-after", type=int, metavar="STEPS", help="stop early")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    bucket, state = options.folder / "mirror", options.folder / "state"
    if not bucket.exists():
        mirror_cache(options.folder, options.images, bucket, state)
    # With a configuration file: Fetcher.from_config("mirror.toml").
    with Mirror.open(bucket=bucket, state=state).fetcher() as fetch:
        train(fetch, options)


def mirror_cache(folder: Path, images: int, bucket: Path, state: Path) -> None:
    """Mirror a URL-keyed cache, once before the first training."""
    made = make_cache(folder, images)
    report = Mirror.open(cache=made.folder, bucket=bucket, state=state).sync()
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
        correct = seen = 0
        for images, labels in sampler.track(loader):
            scores = model(images)
            loss = nn.functional.cross_entropy(scores, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            correct += int((scores.argmax(1) == labels).sum())
            seen += len(labels)
            steps += 1
            # After the step, so that the consumed samples have been trained on.
            save(path, model=model, optimizer=optimizer, sampler=sampler)
            if steps == options.stop_after:
                print(f"stopped in epoch {epoch}: {len(sampler)} of its samples are left")
                return
        print(
            f"epoch {epoch}: trained on {seen} samples, {correct / max(1, seen):.0%} of them correct"
        )
        save(path, model=model, optimizer=optimizer, sampler=sampler)


def save(path: Path, **parts: Any) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save({name: part.state_dict() for name, part in parts.items()}, temporary)
    os.replace(temporary, path)


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
