"""Ranks of torch.distributed, started by torchrun, which wait for each other at every step."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.photos import url_of
from tests.torch import disagreeing_ranks
from tests.torch.training_setup import prepared, write_dataset

SAMPLES = 37


def test_ranks_share_an_epoch_and_more_ranks_resume_it(tmp_path: Path) -> None:
    """Two ranks take three steps of four; three ranks take the rest: 13 samples, five each."""
    made = prepared(tmp_path, SAMPLES)
    lines = [{"image_url": url_of(n), "id": f"{n:03}"} for n in range(SAMPLES)]
    made.dataset.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for ranks, steps in ((2, 3), (3, -1)):
        torchrun(ranks, "tests.torch.ddp_rank", str(tmp_path), str(steps))

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


@pytest.mark.parametrize("backend", ["gloo", "cpu:gloo"])
def test_ranks_that_do_not_agree_all_raise_the_same_error(tmp_path: Path, backend: str) -> None:
    """They see different versions of the index, or have different options or states.

    The second backend takes the way of a training with NCCL, whose group sends nothing here.
    """
    made = prepared(tmp_path, disagreeing_ranks.SAMPLES - 1)
    write_dataset(made.dataset, [url_of(n) for n in range(disagreeing_ranks.SAMPLES)])
    torchrun(2, "tests.torch.disagreeing_ranks", str(tmp_path), backend)

    heard = [read(tmp_path / f"heard-{rank}.json") for rank in range(2)]
    assert heard[0].pop("alone") == "nothing"
    assert heard[0] == heard[1]
    for kind in ("map", "stream"):
        assert re.fullmatch(
            r"UsageError: The ranks would not share one epoch, because rank 0 has samples=11, "
            r"fingerprint='\w{16}' and rank 1 has samples=12, fingerprint='\w{16}'; drop missing .*\.",
            heard[0][kind],
        )
    assert "rank 0 has seed=0 and rank 1 has seed=1; give" in heard[0]["seed"]
    assert "rank 0 has drop_last=False and rank 1 has drop_last=True" in heard[0]["drop_last"]
    assert "rank 0 has consumed=4 and rank 1 has consumed=0" in heard[0]["state"]
    assert heard[0]["agreed"] == "nothing"


def torchrun(ranks: int, module: str, *arguments: str) -> None:
    how = ["--standalone", f"--nproc-per-node={ranks}", "-m", module]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *how, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def read(path: Path) -> Any:
    return json.loads(path.read_text())
