"""A fetch cache whose writers are killed, one or several of eight: its files are whole."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import xxhash

from mirror import Fetcher
from mirror.fetch.disk_cache.usage import DiskUsage
from tests.support.chaos_tally import SEED, TIMES, count, kills
from tests.support.fetch_setup import fetching, without_cache
from tests.support.killing import Killing
from tests.support.mirror_setup import Workshop
from tests.support.photos import fill, photo, url_of

IMAGES = {url_of(n): photo(n) for n in range(16)}


class Reader:
    """A machine that fills its fetch cache from a mirror in a folder."""

    def __init__(self, shop: Workshop, folder: Path) -> None:
        fill(shop.cache, IMAGES)
        assert shop.sync().exit_status == 0
        dataset = folder / "dataset.jsonl"
        dataset.write_text("".join(json.dumps({"image_url": url}) + "\n" for url in IMAGES))
        self.cache = folder / "fetch"
        self.settings = fetching(without_cache(shop.settings()), cache_dir=str(self.cache))
        self.words = ["--json", "prefetch", str(dataset), f"--fetch-cache={self.cache}"]
        self.words += [f"--bucket={shop.place.url}", f"--state={shop.state}"]

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.cache.glob("objects/*/*") if path.suffix != ".part")
        return {path.name: path.read_bytes() for path in found}

    def check(self, story: str) -> None:
        """At any moment, each file must have the bytes of its name."""
        for name, body in self.files().items():
            assert xxhash.xxh3_128_hexdigest(body) == name, story

    def check_completed(self, story: str) -> None:
        """A training reads every image, and the files of killed writers are gone."""
        with Fetcher(self.settings) as fetch:
            assert dict(fetch.many(IMAGES)) == IMAGES, story
        self.check(story)
        files = self.files()
        assert len(files) == len(IMAGES), story
        assert not list(self.cache.rglob("*.part")), story
        usage = DiskUsage(self.cache / "usage", lambda: -1)
        assert usage.used >= sum(map(len, files.values())), story
        usage.close()

    def clear(self) -> None:
        for path in self.cache.glob("objects/*/*"):
            path.unlink()


@pytest.mark.chaos("fetch cache")
def test_a_kill_leaves_whole_images_and_the_next_run_completes(
    local: Workshop, tmp_path: Path
) -> None:
    reader = Reader(local, tmp_path)
    modules = "mirror.fetch.disk_cache.object_cache,mirror.fetch.disk_cache.usage,mirror.fetch.client,mirror.fetch.prefetch"
    killing = Killing(modules, reader.words)
    for story in killing.rounds(kills(4), random.Random(SEED)):
        reader.clear()
        killing.run()
        reader.check(story)
        reader.check_completed(story)


@pytest.mark.chaos("fetch cache")
def test_eight_processes_share_a_cache_and_three_are_killed(
    local: Workshop, tmp_path: Path
) -> None:
    reader = Reader(local, tmp_path)
    chance = random.Random(SEED)
    for round_ in range(TIMES):
        story = f"CHAOS_SEED={SEED}, round {round_}"
        reader.clear()
        modules = "mirror.fetch.disk_cache.object_cache,mirror.fetch.disk_cache.usage"
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.support.die_at_line",
                    str(at),
                    modules,
                    *reader.words,
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for at in [*(chance.randint(1, 400) for _ in range(3)), *[0] * 5]
        ]
        statuses = [process.wait(60) for process in processes]
        assert statuses[3:] == [0] * 5, story
        count("kills", statuses.count(-signal.SIGKILL))
        reader.check_completed(story)
    count("together eight processes on one fetch cache, three of them killed")
