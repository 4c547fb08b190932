# ruff: noqa: INP001 - for the scripts beside it, not a package
"""`mirror inspect`: decodes and judges every file of a cache."""

from __future__ import annotations

import json
import sys

from caches import Cache, photographs
from measure import BENCH, ROOT, Contender, Runs, alternately
from results import Part

# The method of most scripts. It accepts files that were cut short and closed with an end marker.
PILLOW = """
import os, sys
from concurrent.futures import ProcessPoolExecutor
from PIL import Image

def load(path):
    with Image.open(path) as image:
        image.load()

if __name__ == "__main__":
    folder = sys.argv[1]
    paths = [entry.path for entry in os.scandir(folder)]
    with ProcessPoolExecutor() as pool:
        print(sum(1 for _ in pool.map(load, paths, chunksize=64)))
"""


def _beside_pillow(cache: Cache, rounds: int) -> Runs:
    def inspected(printed: str) -> None:
        report = json.loads(printed)
        if (report["checked"], report["ok"]) != (cache.files, cache.files):
            raise RuntimeError(f"mirror inspect reports {printed}")

    def loaded(printed: str) -> None:
        if int(printed) != cache.files:
            raise RuntimeError(f"Pillow loaded {printed} of {cache.files}")

    script = BENCH / "load_all.py"
    script.write_text(PILLOW)
    ours = [sys.executable, "-m", "mirror", "--json", "-q", "inspect"]
    return alternately(
        [
            Contender(
                "mirror inspect",
                [*ours, "--cache", str(cache.folder)],
                check=inspected,
                environment={"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(BENCH / "no-state")},
            ),
            Contender(
                "Pillow, load() in processes",
                [sys.executable, str(script), str(cache.folder)],
                check=loaded,
            ),
        ],
        rounds,
    )


PARTS = [
    Part(
        "inspection",
        "20,000 photographs of 45 kB, judged",
        lambda rounds: _beside_pillow(photographs(20_000, 45_000), rounds),
        ("simplejpeg", "pillow"),
    ),
    Part(
        "inspection-large",
        "2,000 photographs of 1.4 MB, judged",
        lambda rounds: _beside_pillow(photographs(2_000, 1_400_000), rounds),
        ("simplejpeg", "pillow"),
    ),
]
