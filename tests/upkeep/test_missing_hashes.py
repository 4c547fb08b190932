"""Perceptual hashes that a mirror lacks are added by a full verification, or by the next sync."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mirror.catalog.delta_table import Catalog
from mirror.catalog.index import Index
from mirror.catalog.open_mirror import read_index
from mirror.catalog.row import Row, RowSource
from mirror.content.image import inspect
from mirror.duplicates.copy_groups import usable
from mirror.errors import CatalogError
from mirror.sync.rebuild import rebuild_state
from mirror.sync.run_sync import SyncOptions, sync
from mirror.upkeep.verify import VerifyOptions, verify
from tests.labelled.photographs import jpeg
from tests.support.mirror_setup import MirrorSetup, key_of
from tests.support.photos import blank, fill, flipped, url_of
from tests.sync.test_sync import DatasetSources

PHOTOGRAPHS = ("coffee.png", "chelsea.png", "astronaut.png", "brick.png")
FULL = VerifyOptions(share=1.0)


def uninspected(setup: MirrorSetup) -> None:
    """A mirror whose pixels nobody looked at: four photographs, one of them under two URLs."""
    fill(setup.cache, {url_of(n): jpeg(name) for n, name in enumerate(PHOTOGRAPHS)})
    fill(setup.cache, {url_of(9): jpeg(PHOTOGRAPHS[0])})
    assert sync(setup.settings(inspect="off"), SyncOptions()).exit_status == 0


def index_of(setup: MirrorSetup) -> Index:
    return read_index(setup.settings())[1]


def hashed(setup: MirrorSetup) -> int:
    return int(usable(index_of(setup).objects["near"]).sum())


def test_a_full_verification_adds_what_is_missing(mirror_setup: MirrorSetup) -> None:
    uninspected(mirror_setup)
    assert hashed(mirror_setup) == 0
    before = index_of(mirror_setup)
    report = verify(mirror_setup.settings(), FULL)
    assert (report.hashed, report.read, report.exit_status) == (4, 4, 0)
    after = index_of(mirror_setup)
    stored = {value.tobytes() for value in after.objects["near"]}
    assert stored == {inspect(jpeg(name)).near for name in PHOTOGRAPHS}
    assert after.sightings["first_seen"].tolist() == before.sightings["first_seen"].tolist()
    for name in ("hash_hi", "size", "format", "verdict", "width"):
        assert after.sightings[name].tolist() == before.sightings[name].tolist()
    again = verify(mirror_setup.settings(), FULL)
    assert (again.hashed, again.catalog_version) == (0, after.version)


@pytest.mark.parametrize("options", [VerifyOptions(), VerifyOptions(share=0.9, seed=1)])
def test_lesser_verifications_write_nothing(
    mirror_setup: MirrorSetup, options: VerifyOptions
) -> None:
    uninspected(mirror_setup)
    assert verify(mirror_setup.settings(), options).hashed == 0
    assert hashed(mirror_setup) == 0


def test_what_is_known_of_a_url_is_kept(folder_setup: MirrorSetup) -> None:
    uninspected(folder_setup)
    sources = DatasetSources({url_of(n): RowSource(url_of(n), "CC0") for n in range(4)})
    settings = folder_setup.settings(inspect="off")
    assert sync(settings, SyncOptions(), sources=sources).exit_status == 0
    photos = index_of(folder_setup).sightings["photo"].tolist()
    assert verify(folder_setup.settings(), FULL).hashed == 4
    assert index_of(folder_setup).sightings["photo"].tolist() == photos
    assert index_of(folder_setup).sightings["sourced"].sum() == 4


def test_a_damaged_object_gets_no_hash(folder_setup: MirrorSetup) -> None:
    uninspected(folder_setup)
    folder_setup.put({key_of(jpeg(PHOTOGRAPHS[1])): flipped(jpeg(PHOTOGRAPHS[1]))})
    report = verify(folder_setup.settings(), FULL)
    assert (report.mismatched, report.hashed) == (1, 3)


def test_a_key_that_may_only_read_gets_a_warning(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninspected(folder_setup)

    def refused(self: Catalog, version: int, rows: Sequence[Row], mark: str = "") -> int | None:
        raise CatalogError("Access was denied.")

    monkeypatch.setattr(Catalog, "append_after", refused)
    report = verify(folder_setup.settings(), FULL)
    assert (report.exit_status, report.hashed) == (0, 0)
    (warning,) = report.warnings
    assert warning.startswith("Perceptual hashes could not be added to the catalog: Access was")


def test_a_rebuilt_state_leaves_files_without_a_hash_to_the_next_sync(
    mirror_setup: MirrorSetup,
) -> None:
    uninspected(mirror_setup)
    fill(mirror_setup.cache, {url_of(2000): blank()})
    mirror_setup.sync()
    report = rebuild_state(mirror_setup.settings())
    assert (report.read, report.known) == (6, 1)
    synced = mirror_setup.sync()
    assert (synced.uploaded, synced.deduplicated) == (0, 5)
    assert hashed(mirror_setup) == 4
    assert rebuild_state(mirror_setup.settings()).known == 6
    version = index_of(mirror_setup).version
    mirror_setup.sync()
    assert index_of(mirror_setup).version == version
