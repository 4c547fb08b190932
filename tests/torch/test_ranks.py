"""Ranks of torch.distributed, started by torchrun, which wait for each other at every step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.photos import url_of
from tests.torch.training_setup import prepared

SAMPLES = 37


def test_ranks_share_an_epoch_and_more_ranks_resume_it(tmp_path: Path) -> None:
    """Two ranks take three steps of four; three ranks take the rest: 13 samples, five each."""
    made = prepared(tmp_path, SAMPLES)
    lines = [{"image_url": url_of(n), "id": f"{n:03}"} for n in range(SAMPLES)]
    made.dataset.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for ranks, steps in ((2, 3), (3, -1)):
        how = ["--standalone", f"--nproc-per-node={ranks}", "-m", "tests.torch.ddp_rank"]
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", *how, str(tmp_path), str(steps)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    for kind in ("map", "stream"):
        first = [read(tmp_path / f"seen-{kind}-2-{rank}.json") for rank in range(2)]
        rest = [read(tmp_path / f"seen-{kind}-3-{rank}.json") for rank in range(3)]
        assert [len(numbers) for numbers in first] == [12, 12]
        assert [len(numbers) for numbers in rest] == [5, 5, 5]
        numbers = [n for of_rank in first + rest for n in of_rank]
        assert set(numbers) == set(range(SAMPLES))
        assert len(numbers) == SAMPLES + 2
        state = read(tmp_path / f"checkpoint-{kind}.json")
        assert (state["epoch"], state["consumed"]) == (1, 0)


def read(path: Path) -> Any:
    return json.loads(path.read_text())
