"""With `--log-format json` standard error is an object a line, whichever command speaks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mirror_setup import MirrorSetup, folder_setup
from tests.support.photos import fill, photo, url_of

__all__ = ["folder_setup"]


@pytest.fixture
def damaged(folder_setup: MirrorSetup, tmp_path: Path) -> MirrorSetup:
    """A mirror that has lost an object, and a dataset that names what it never had."""
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(3)})
    assert folder_setup.sync().exit_status == 0
    folder_setup.remove(next(iter(folder_setup.objects())))
    records = [json.dumps({"image_url": url_of(n)}) for n in (0, 99)]
    (tmp_path / "dataset.jsonl").write_text("\n".join([*records, "no record"]))
    return folder_setup


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["verify"], 3),
        (["rewrite", "dataset.jsonl", "-o", "out.jsonl", "--url-field=other", "--allow-empty"], 3),
        (["prefetch", "dataset.jsonl", "--fetch-cache=kept"], 3),
        (["backfill", "dataset.jsonl", "--cache=cache"], 78),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_every_line_on_standard_error_is_an_object(
    damaged: MirrorSetup, words: list[str], status: int, tmp_path: Path
) -> None:
    place = [f"--bucket={damaged.place.url}", f"--state={damaged.state}"]
    done = subprocess.run(
        [sys.executable, "-m", "mirror", "--log-format=json", *words, *place],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert said
    assert all(one["message"] for one in said)
