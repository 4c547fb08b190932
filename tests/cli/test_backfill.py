"""`mirror backfill` as a user calls it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backfill.fake_inaturalist import Image, INaturalist, gone
from tests.support.photos import photo

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def server() -> Iterator[INaturalist]:
    with INaturalist(time.monotonic) as server:
        yield server


@pytest.fixture
def mirror(tmp_path: Path, clean_environment: None) -> Run:
    (tmp_path / "cache").mkdir()
    (tmp_path / "mirror.toml").write_text(
        """
        cache.dir = "cache"
        state.dir = "state"
        [backfill]
        hosts = ["127.0.0.1"]
        contact = "test@example.org"
        allow_private = true
        per_second = 100
        """
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mirror", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=120
        )

    return run


def dataset(folder: Path, server: INaturalist) -> list[dict[str, Any]]:
    answers = [*(Image(photo(n)) for n in range(4)), gone(404)]
    records = [
        {"image_url": f"http://127.0.0.1:{server.port}/photos/{n}/medium.jpg"}
        for n, answer in enumerate(answers)
        if server.photo(n, answer)
    ]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "dataset.jsonl").write_text(text)
    return records


def test_a_backfill_then_another_then_the_mirror_has_it(
    mirror: Run, server: INaturalist, tmp_path: Path
) -> None:
    dataset(tmp_path, server)
    done = mirror("backfill", "dataset.jsonl", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "5 images at" in done.stdout
    assert "no request was sent" in done.stdout
    assert server.hits == []

    done = mirror("backfill", "dataset.jsonl")
    assert done.returncode == 3, done.stderr
    assert "To be fetched: 5 images at" in done.stderr
    assert "medium.jpg: gone, HTTP 404" in done.stderr
    assert re.search(r"^downloaded +4 ", done.stdout, re.MULTILINE)
    assert len(os.listdir(tmp_path / "cache")) == 4

    done = mirror("--json", "-q", "backfill", "dataset.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    keys = ("wanted", "already", "downloaded", "throttled", "bytes", "gone_before", "left")
    assert [told[key] for key in keys] == [1, 4, 0, 0, 0, 1, 0]
    assert told["failed"] == dict.fromkeys(told["failed"], 0)

    bucket = f"--bucket=file://{tmp_path}/mirror"
    assert mirror("sync", bucket).returncode == 0
    done = mirror("--json", "rewrite", "dataset.jsonl", "-o", "out.jsonl", bucket)
    assert json.loads(done.stdout)["written"] == 4
    asked = len(server.hits)
    done = mirror("--json", "prefetch", "dataset.jsonl", bucket, "--fetch-cache=fetched")
    told = json.loads(done.stdout)
    assert (told["cached"] + told["fetched"], told["missing"]) == (4, 1)
    assert len(server.hits) == asked
    done = mirror("--json", "backfill", "dataset.jsonl", bucket)
    assert json.loads(done.stdout)["mirrored"] == 4


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--contact", "a\nb"], 78, "backfill.contact"),
        (["--until", "25:00"], 2, "time of day"),
        (["--for", "soon"], 2, "duration"),
        (["--max-bytes", "much"], 78, "--max-bytes"),
        (["--per-hour", "0"], 2, "per-hour"),
        (["--allow-license", "none"], 2, "licence"),
        (["--cache", "nowhere"], 1, "mounted"),
        (["--url-field", "url"], 2, "--url-field"),
        (["--bucket", "http://x"], 78, "s3://"),
        (["nowhere.jsonl"], 2, "nowhere.jsonl"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    mirror: Run, server: INaturalist, tmp_path: Path, arguments: list[str], status: int, words: str
) -> None:
    dataset(tmp_path, server)
    done = mirror("backfill", "dataset.jsonl", *arguments)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert server.hits == []
