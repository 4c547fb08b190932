"""A cache, a dataset, a server, and a clock that advances only during sleeps."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirror.backfill.backfill_report import BackfillReport
from mirror.backfill.run_backfill import BackfillOptions, backfill
from mirror.config.loading import Layer, merge
from mirror.config.settings import Settings
from mirror.content.image import inspect
from mirror.dataset.inputs import Input
from mirror.run.progress import Progress
from tests.backfill.fake_inaturalist import Everywhere, INaturalist
from tests.support.photos import name_of

BEGIN = 1_790_000_000.0


class VirtualTime:
    """A clock that advances only by `sleep`."""

    def __init__(self, now: float = BEGIN) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def to_save(self) -> list[Any]:
        return [self.now, 0.0, ""]

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.now += seconds


@dataclass
class Scene:
    """Runs backfills in virtual time. `backfill`, `inspect`: sections of mirror.toml."""

    folder: Path
    server: INaturalist
    time: VirtualTime
    backfill: dict[str, Any] = field(default_factory=dict)
    inspect: dict[str, Any] = field(default_factory=dict)
    bucket: bool = False

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def settings(self) -> Settings:
        self.cache.mkdir(exist_ok=True)
        fast = {"stall_seconds": 0.3, "deadline_seconds": 5.0}
        sections: dict[str, Any] = {
            "cache": {"dir": str(self.cache)},
            "inspect": self.inspect,
            "state": {"dir": str(self.folder / "state")},
            "backfill": {
                "contact": "test@example.org", "allow_private": True, **fast, **self.backfill,
            },
        }  # fmt: skip
        if self.bucket:
            sections["bucket"] = {"url": f"file://{self.folder}/mirror"}
        return merge([Layer("test", sections)])

    def dataset(self, urls: Sequence[str], **fields: Sequence[Any]) -> Input:
        """A dataset of these URLs, with a value of each field for each."""
        path = self.folder / "dataset.jsonl"
        with path.open("w") as file:
            for at, url in enumerate(urls):
                record = {"image_url": url, **{name: of[at] for name, of in fields.items()}}
                file.write(json.dumps(record) + "\n")
        return Input(str(path))

    def run(
        self,
        dataset: Input | Sequence[str],
        options: BackfillOptions | None = None,
        progress: Progress = Progress(),
    ) -> BackfillReport:
        source = dataset if isinstance(dataset, Input) else self.dataset(dataset)
        return backfill(
            self.settings,
            [source],
            options or BackfillOptions(),
            progress=progress,
            clock=lambda _: self.time,
            sleep=self.time.sleep,
            wall=self.time,
            resolver=Everywhere(),
        )

    def has(self, url: str) -> bool:
        """Whether the cache has a good image of a URL."""
        path = self.cache / name_of(url)
        return path.is_file() and inspect(path.read_bytes()).verdict == "ok"

    def files(self) -> list[str]:
        return sorted(os.listdir(self.cache))
