"""A killed quarantine loses nothing, and the next run completes it."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest

from mirror.inspection import quarantine_manifest
from mirror.inspection.quarantine_manifest import ManifestLine
from tests.inspection.quarantine_setup import FLAGGED, back, out
from tests.support.chaos_tally import SEED, kills
from tests.support.damaged_caches import files_of, make, put
from tests.support.killing import dying
from tests.support.photos import blank

MODULES = (
    "mirror.inspection.quarantine_manifest,mirror.inspection.quarantine,mirror.cache.safe_folder"
)


@pytest.mark.chaos("quarantine")
@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
@pytest.mark.parametrize("restoring", [False, True], ids=["out", "back"])
def test_a_run_that_is_killed_loses_nothing_and_is_completed_by_the_next(
    tmp_path: Path, links: bool, restoring: bool
) -> None:
    chance = random.Random(f"{SEED} {links} {restoring}")
    cache, to = tmp_path / "cache", tmp_path / "flagged"
    make(cache)
    put(cache, 700, blank(77), "some/folder")
    everything = files_of(cache)
    if restoring:
        out(cache, to)
    before = tmp_path / "before"
    shutil.copytree(tmp_path, before, ignore=lambda *_: ["before"])
    words = [] if links else ["no-links"]
    words += ["--json", "quarantine", "--yes", f"--cache={cache}", f"--to={to}"]
    words += ["--restore"] if restoring else []
    whole = dying(MODULES, words, 0)
    assert whole.returncode == 0, whole.stderr
    steps = int(whole.stderr.split()[-1])
    done = files_of(cache), files_of(to)
    assert len(done[0 if restoring else 1]) == (len(everything) if restoring else FLAGGED + 1)

    for at in sorted(chance.sample(range(1, steps + 1), min(steps, kills(5, tests=4)))):
        for folder in (cache, to):
            shutil.rmtree(folder)
            if (before / folder.name).exists():
                shutil.copytree(before / folder.name, folder)
        assert dying(MODULES, words, at).returncode == -signal.SIGKILL
        found: dict[str, bytes] = {}
        for folder in (cache, to):
            for path, body in files_of(folder).items():
                if not path.endswith((".mirror-part", ".mirror-lock")):
                    assert everything[path] == body, f"killed at line {at}"
                    found[path] = body
        assert found == everything, f"killed at line {at}"
        if (to / quarantine_manifest.NAME).exists():
            named = {
                line.path for line in quarantine_manifest.read(to) if isinstance(line, ManifestLine)
            }
        else:
            named = set()
        moved = {
            path.encode()
            for path in files_of(to)
            if not path.endswith((".mirror-part", ".mirror-lock"))
        }
        assert moved <= named, "no file without a line"
        report = back(cache, to) if restoring else out(cache, to)
        assert (report.skipped, report.failed) == (0, 0), (at, report.failures)
        assert (files_of(cache), files_of(to)) == done, f"killed at line {at}"
