"""Every stage that a person waits for says how much there is to do, and comes to that end."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.dataset.rewrite.image_source import open_image_source
from mirror.dataset.rewrite.rewrite_options import ImageOptions
from mirror.inspection.inspect_cache import inspect_cache, inspection_arguments
from mirror.run.progress import Progress, Stage
from mirror.sync.rebuild import rebuild_state
from mirror.upkeep.pull import PullOptions, pull
from mirror.upkeep.repair import RepairOptions, repair
from mirror.upkeep.verify import VerifyOptions, verify
from tests.support.mirror_setup import MirrorSetup, key_of
from tests.support.photos import fill, flipped, photo, url_of

IMAGES = 7


class Totals(Progress):
    """Notes each stage with what it came to."""

    def __init__(self) -> None:
        self.stages: list[tuple[Stage, int]] = []

    def begin(self, stage: Stage) -> None:
        self.stages.append((stage, 0))

    def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
        stage, done = self.stages.pop()
        self.stages.append((stage, done + items))

    def of(self, noun: str) -> tuple[int | None, int]:
        """Total and items done of the stage with this noun."""
        ((stage, done),) = (found for found in self.stages if found[0].noun == noun)
        return stage.items, done


@pytest.fixture
def setup(folder_setup: MirrorSetup) -> MirrorSetup:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(IMAGES)})
    assert folder_setup.sync().exit_status == 0
    return folder_setup


def test_an_inspection(setup: MirrorSetup) -> None:
    totals = Totals()
    with inspect_cache(**inspection_arguments(setup.settings(), "decode"), progress=totals):
        pass
    assert totals.of("files judged") == (IMAGES, IMAGES)
    ((stage, _),) = totals.stages
    assert stage.nbytes == sum(len(photo(n)) for n in range(IMAGES))


def test_the_inspection_of_a_rewrite(setup: MirrorSetup) -> None:
    totals = Totals()
    open_image_source(setup.settings(), ImageOptions(cached_only=True), None, totals)
    assert totals.of("files judged") == (IMAGES, IMAGES)


def test_a_verification(setup: MirrorSetup) -> None:
    totals = Totals()
    verify(setup.settings(), VerifyOptions(share=1.0), progress=totals)
    assert totals.of("objects listed") == (IMAGES, IMAGES)
    assert totals.of("objects read back") == (IMAGES, IMAGES)


def test_a_repair(setup: MirrorSetup) -> None:
    setup.put({key_of(photo(2)): flipped(photo(2))})
    setup.remove(key_of(photo(3)))
    totals = Totals()
    repair(setup.settings(), RepairOptions(verify=VerifyOptions(share=1.0)), progress=totals)
    assert totals.of("objects repaired") == (2, 2)


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_pull(setup: MirrorSetup, tmp_path: Path, dry_run: bool) -> None:
    (setup.cache / next(iter(sorted(path.name for path in setup.cache.iterdir())))).unlink()
    totals = Totals()
    pull(setup.settings(), PullOptions(dry_run=dry_run), progress=totals)
    assert totals.of("files") == (IMAGES, IMAGES)


def test_a_rebuild(setup: MirrorSetup) -> None:
    totals = Totals()
    rebuild_state(setup.settings(), progress=totals)
    assert totals.of("files") == (IMAGES, IMAGES)
