"""A base install has no optional library. Every command that needs one names its extra."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[2]
# What the extras install, and what they import in turn.
ABSENT: Final = frozenset(
    [
        "aioboto3",
        "aiobotocore",
        "bson",
        "flask",
        "flask_cors",
        "fsspec",
        "moto",
        "pandas",
        "polars",
        "prometheus_client",
        "pyarrow",
        "pymongo",
        "skimage",
        "torch",
        "torchvision",
        "IPython",
    ]
)
URL = "mongodb://127.0.0.1:1/db/plants"
MONGO, PARQUET = "dataset-mirror[mongo]", "dataset-mirror[parquet]"
PHOTO = "https://x.example/1.jpg"

# Command line, exit status, what it says.
CALLS: Final[list[tuple[list[str], int, str]]] = [
    (["sync"], 0, ""),
    (["sync", "--dataset", URL], 2, MONGO),
    (["sync", "--dataset", "raw.parquet"], 2, PARQUET),
    (["rewrite", "raw.jsonl", "-o", "out.jsonl"], 0, ""),
    (["rewrite", "raw.jsonl", "-o", "out.csv"], 0, ""),
    (["rewrite", URL, "-o", "m.jsonl"], 2, MONGO),
    (["rewrite", "raw.jsonl", "-o", "out.parquet"], 2, PARQUET),
    (["rewrite", "raw.parquet", "-o", "p.jsonl"], 2, PARQUET),
    (["rewrite", "unnamed", "-o", "p.jsonl"], 2, PARQUET),
    (["rewrite", "raw.jsonl", "-o", "p.jsonl", "--split=a=1", "--pin=a=raw.parquet"], 2, PARQUET),
    (["export", URL, "-o", "e.jsonl"], 2, MONGO),
    (["export", URL, "-o", "e.parquet"], 2, MONGO),
    (["export", URL, "-o", "e.jsonl", '--filter={"a": 1}'], 2, MONGO),
    (["export", URL, "-o", "e.jsonl", "--json-style=canonical"], 2, MONGO),
    (["backfill", "raw.jsonl", "-n"], 0, ""),
    (["backfill", URL, "-n"], 2, MONGO),
    (["backfill", "raw.parquet", "-n"], 2, PARQUET),
    (["prefetch", "raw.jsonl", "--fetch-cache=fetched"], 0, ""),
    (["prefetch", URL, "--fetch-cache=fetched"], 2, MONGO),
    (["prefetch", "raw.parquet", "--fetch-cache=fetched"], 2, PARQUET),
    (["pull", "--cache=pulled", "--dataset=raw.jsonl"], 0, ""),
    (["pull", "--cache=pulled", "--dataset", URL], 2, MONGO),
    (["pull", "--cache=pulled", "--dataset=raw.parquet"], 2, PARQUET),
    (["fetch", PHOTO, "-o", "images"], 0, ""),
    (["inspect", "--csv=i.csv", "--sheet=i.html"], 0, ""),
    (["duplicates", "--csv=d.csv", "--sheet=d.html"], 0, ""),
    (["quarantine", "--to=away"], 0, ""),
    (["verify"], 0, ""),
    (["repair"], 0, ""),
    (["rebuild-state"], 0, ""),
    (["gc"], 0, ""),
    (["status"], 0, ""),
    (["config", "check"], 0, ""),
    (["completion", "bash"], 0, ""),
    (["sync", "--bucket=s3://b/p", "--engine=aioboto3", "--region=us-east-1"], 78, "dataset-mirror[aioboto3]"),
    (["demo"], 2, "dataset-mirror[demo]"),
    (["import", "mirror.torch"], 1, "dataset-mirror[torch]"),
    (["import", "mirror.fetch.filesystem"], 1, "dataset-mirror[fsspec]"),
]  # fmt: skip


def test_a_base_install_names_the_extra_that_it_lacks(
    tmp_path: Path, clean_environment: None
) -> None:
    from tests.support.photos import fill, photo

    fill(tmp_path / "cache", {PHOTO: photo(1)})
    (tmp_path / "raw.jsonl").write_text(json.dumps({"image_url": PHOTO}) + "\n")
    for name in ("raw.parquet", "unnamed"):
        (tmp_path / name).write_bytes(b"PAR1")
    (tmp_path / "mirror.toml").write_text(
        f'cache.dir = "cache"\nbucket.url = "file://{tmp_path}/mirror"\nstate.dir = "state"\n'
        'backfill.contact = "me@x.example"\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.cli.without_extras"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        input=json.dumps([arguments for arguments, _, _ in CALLS]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for (arguments, status, words), (ended, said) in zip(
        CALLS, json.loads(done.stdout), strict=True
    ):
        assert (ended, words in said) == (status, True), (arguments, ended, said)
        assert "fault of mirror" not in said


def test_every_extra_is_known() -> None:
    from mirror.system.extras import EXTRAS

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].keys() - {"all", "dev"}
    assert set(EXTRAS.values()) == extras
    assert EXTRAS.keys() <= ABSENT


def test_every_command_is_called() -> None:
    from mirror.cli.main import COMMANDS

    # These ask a server, a person or crontab first, and import no optional library.
    assert COMMANDS.keys() - {arguments[0] for arguments, _, _ in CALLS} <= {
        "doctor",
        "help",
        "init",
        "schedule",
    }
