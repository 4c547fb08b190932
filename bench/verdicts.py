# ruff: noqa: INP001 - a script, not a package
"""Compares verdicts with known ones and with cleanvision, and measures the cost of the cascade.

    python bench/verdicts.py               everything, with each result as soon as it is known
    python bench/verdicts.py --markdown    the tables of docs/verdicts.md, on stdout
    python bench/verdicts.py --quick       without cleanvision and without the other seeds

The files are those of tests/labelled/, written to .bench/verdicts. cleanvision is installed into a
separate environment, .bench/cleanvision.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import venv
from collections import Counter
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from random import Random

import simplejpeg  # type: ignore[import-untyped,unused-ignore]

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mirror.content.image import inspect  # noqa: E402
from tests.labelled import BAD, GOOD, Sample, samples_of  # noqa: E402
from tests.labelled.bad import scan_start  # noqa: E402
from tests.labelled.photographs import PHOTOGRAPHS, jpeg  # noqa: E402

BENCH = ROOT / ".bench"
CLEANVISION = "0.3.7"
# These seeds were not used to choose the thresholds.
OTHER_SEEDS = range(20, 28)

# Runs in cleanvision's environment: reads the paths of a kind on stdin, and prints its answers.
JUDGE = """
import contextlib, json, logging, sys, warnings
warnings.simplefilter("ignore")
from PIL import Image
from cleanvision import Imagelab
answers = {}
for kind, paths in json.load(sys.stdin).items():
    opened, refused = [], []
    for path in paths:
        try:
            with Image.open(path) as image:
                image.load()
            opened.append(path)
        except Exception:
            refused.append(path)
    flagged, stopped = [], ""
    if opened:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                lab = Imagelab(filepaths=opened)
                lab.find_issues({"dark": {}, "light": {}, "low_information": {}}, n_jobs=1)
            bad = lab.issues.filter(regex="^is_.*_issue$").any(axis=1)
            flagged = [str(path) for path in bad.index[bad]]
        except Exception as error:
            stopped = repr(error)[:200]
    answers[kind] = dict(flagged=len(flagged), refused=len(refused), stopped=stopped)
json.dump(answers, sys.stdout)
"""


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


def all_kinds(seed: int = 1) -> dict[str, list[Sample]]:
    kinds = [samples_of(kind, seed=seed) for kind in GOOD]
    kinds += [samples_of(kind, verdict, reason, seed) for kind, verdict, reason in BAD]
    return {samples[0].kind: samples for samples in kinds}


def is_right(sample: Sample) -> bool:
    got = inspect(sample.data)
    return got.verdict == sample.verdict and sample.reason in got.reason


def cleanvision(kinds: dict[str, list[Sample]]) -> dict[str, dict[str, object]] | str:
    """Return cleanvision's answers by kind, or the reason why there are none."""
    home = BENCH / "cleanvision"
    python = home / "bin" / "python"
    try:
        if not python.exists():
            say(f"installing cleanvision {CLEANVISION} into {home} …")
            venv.create(home, with_pip=True)
        install = [str(python), "-m", "pip", "install", "-q", f"cleanvision=={CLEANVISION}"]
        subprocess.run(install, check=True, capture_output=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        return f"cleanvision could not be installed: {error}"
    folder = BENCH / "verdicts"
    shutil.rmtree(folder, ignore_errors=True)
    paths: dict[str, list[str]] = {}
    for kind, samples in kinds.items():
        (folder / kind).mkdir(parents=True)
        paths[kind] = []
        for number, sample in enumerate(samples):
            path = folder / kind / f"{number:04}.jpg"
            path.write_bytes(sample.data)
            paths[kind].append(str(path))
    say("asking cleanvision …")
    done = subprocess.run(  # noqa: S603
        [str(python), "-c", JUDGE],
        input=json.dumps(paths),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return f"cleanvision stopped: {done.stderr.strip().splitlines()[-1:]}"
    answers: dict[str, dict[str, object]] = json.loads(done.stdout)
    return answers


def table_of_kinds(quick: bool) -> list[str]:
    kinds = all_kinds()
    theirs = "not asked" if quick else cleanvision(kinds)
    lines = [
        f"| kind | should be | files | right | cleanvision {CLEANVISION}: flagged | cannot open |",
        "|---|---|---|---|---|---|",
    ]
    totals: dict[str, Counter[str]] = {"ok": Counter(), "bad": Counter()}
    notes = [theirs] if isinstance(theirs, str) else []
    for kind, samples in kinds.items():
        verdict = samples[0].verdict
        right = sum(map(is_right, samples))
        total = totals["ok" if verdict == "ok" else "bad"]
        total.update(files=len(samples), right=right)
        cells = ["–", "–"]
        if not isinstance(theirs, str):
            said = theirs[kind]
            total.update(flagged=int(str(said["flagged"])), refused=int(str(said["refused"])))
            cells = [str(said["flagged"]), str(said["refused"])]
            if said["stopped"]:
                cells[0] = "stopped"
                notes.append(f"cleanvision stopped at `{kind}`: {said['stopped']}")
        lines.append(f"| {kind} | {verdict} | {len(samples)} | {right} | {' | '.join(cells)} |")
    for name, total in totals.items():
        cells = [str(total[key]) if "flagged" in total else "–" for key in ("flagged", "refused")]
        word = "all good" if name == "ok" else "all bad"
        lines.append(
            f"| **{word}** | | {total['files']} | {total['right']} | {' | '.join(cells)} |"
        )
    return [*lines, "", *(f"{note}" for note in notes), ""]


def table_of_seeds() -> list[str]:
    wrong: Counter[str] = Counter()
    files = Counter(good=0, bad=0)
    missed = Counter(good=0, bad=0)
    for seed in OTHER_SEEDS:
        say(f"seed {seed} …")
        for kind, samples in all_kinds(seed).items():
            side = "good" if samples[0].verdict == "ok" else "bad"
            failures = sum(not is_right(sample) for sample in samples)
            files[side] += len(samples)
            missed[side] += failures
            wrong[kind] += failures
    kinds = ", ".join(f"{kind} {count}" for kind, count in wrong.items() if count) or "none"
    return [
        "| other seeds | files | wrong verdicts |",
        "|---|---|---|",
        f"| good | {files['good']} | {missed['good']} |",
        f"| bad | {files['bad']} | {missed['bad']} |",
        "",
        f"Seeds {OTHER_SEEDS[0]} to {OTHER_SEEDS[-1]}; the wrong ones by kind: {kinds}.",
        "",
    ]


def table_of_holes() -> list[str]:
    lines = ["| bytes overwritten in a scan | zeros: caught | noise: caught |", "|---|---|---|"]
    bodies = [
        jpeg(name, 500, 85, progressive=number % 4 == 3) for number, name in enumerate(PHOTOGRAPHS)
    ]
    for size in (1, 16, 64, 256, 1024, 4096):
        cells = []
        for noise in (False, True):
            chance, caught, tried = Random(size), 0, 0  # noqa: S311 - repeatable, not secret
            for body in bodies * 12:
                if len(body) - scan_start(body) < size + 10:
                    continue
                at = chance.randrange(scan_start(body), len(body) - size - 2)
                filling = chance.randbytes(size) if noise else bytes(size)
                if body[at : at + size] == filling:
                    continue
                tried += 1
                caught += inspect(body[:at] + filling + body[at + size :]).verdict == "corrupt"
            cells.append(f"{caught} of {tried}")
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return [*lines, ""]


def bare(body: bytes) -> object:
    return simplejpeg.decode_jpeg(
        body, colorspace="GRAY", min_height=16, min_width=16, min_factor=1, strict=True
    )


def seconds_apart(bodies: list[bytes]) -> tuple[float, float]:
    """CPU seconds of the scaled decode alone, and of the cascade, in turns for each file."""
    spent = [0.0, 0.0]
    for number, body in enumerate(bodies):
        for which in (number % 2, 1 - number % 2):
            start = time.thread_time()
            (bare, inspect)[which](body)
            spent[which] += time.thread_time() - start
    return spent[0], spent[1]


def judge_all(bodies: list[bytes]) -> None:
    for body in bodies:
        inspect(body)


def seconds_in(pool: Executor, bodies: list[bytes], parts: int) -> float:
    """Wall seconds for one copy of the work in each part, divided by the number of parts."""
    start = time.perf_counter()
    list(pool.map(judge_all, [bodies] * parts))
    return (time.perf_counter() - start) / parts


def table_of_costs() -> list[str]:
    lines = [
        "| photographs | scaled decode alone, CPU | whole cascade, CPU | ratio | 2 threads against 1, wall | 2 processes against 1, wall |",
        "|---|---|---|---|---|---|",
    ]
    for box, repeats in ((500, 12), (2048, 2)):
        bodies = [jpeg(name, box, 88) for name in PHOTOGRAPHS[:8]] * repeats
        spent, threads, processes = [], [], []
        with ThreadPoolExecutor(2) as in_threads, ProcessPoolExecutor(2) as in_processes:
            seconds_in(in_processes, bodies[:2], 2)
            for _ in range(21):
                spent.append(seconds_apart(bodies))
                alone = seconds_in(in_threads, bodies, 1)
                threads.append(alone / seconds_in(in_threads, bodies, 2))
                processes.append(alone / seconds_in(in_processes, bodies, 2))
        each = [statistics.median(times) / len(bodies) * 1000 for times in zip(*spent, strict=True)]
        ratio = statistics.median(whole / alone for alone, whole in spent)
        lines.append(
            f"| {box} px | {each[0]:.3f} ms | {each[1]:.3f} ms | "
            f"{ratio:.3f} | {statistics.median(threads):.2f} × | "
            f"{statistics.median(processes):.2f} × |"
        )
    return [*lines, ""]


def machine() -> str:
    names = ("pillow", "simplejpeg", "numpy", "scikit-image")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    model = "unknown processor"
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if "model name" in line), model)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} × {model}, {platform.system()}, "
        f"Python {platform.python_version()}, {versions}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--markdown", action="store_true", help="print only the tables")
    parser.add_argument("--quick", action="store_true", help="seed 1 only, without cleanvision")
    flags = parser.parse_args()
    lines = ["### Cost", "", *table_of_costs(), "### By kind", "", *table_of_kinds(flags.quick)]
    lines += ["### Damage within a scan", "", *table_of_holes()]
    if not flags.quick:
        lines += ["### Other seeds", "", *table_of_seeds()]
    sys.stdout.write("\n".join([machine(), "", *lines]).rstrip() + "\n")
    if not flags.markdown:
        say("docs/verdicts.md holds these tables: `python bench/verdicts.py --markdown`")


if __name__ == "__main__":
    main()
