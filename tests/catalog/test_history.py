"""What the catalog said within the grace period, by which gc spares objects and files."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from mirror.catalog.delta_table import Catalog
from mirror.catalog.history import RecentCatalog, recent_catalog
from mirror.catalog.open_mirror import Location
from mirror.content.digest import digest_of
from mirror.errors import CatalogError
from mirror.layout import object_key
from mirror.store.retry import RetryPolicy
from mirror.upkeep.gc import gc
from tests.support.mirror_setup import MirrorSetup, folder_setup
from tests.support.photos import fill, photo, url_of
from tests.upkeep.aged_mirrors import pass_days, root_of, stocked

__all__ = ["folder_setup"]


def recent(setup: MirrorSetup, days: float) -> RecentCatalog:
    store = setup.place.open()
    catalog = Location(setup.settings()).catalog(store, RetryPolicy())
    since = datetime.now(UTC) - timedelta(days=days)
    return asyncio.run(recent_catalog(store, catalog, since))


def test_an_error_of_the_catalog_drops_no_version_from_what_is_kept(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(folder_setup)
    pass_days(folder_setup, 8)
    fill(folder_setup.cache, {url_of(50): photo(50)})
    folder_setup.sync()
    assert recent(folder_setup, 7).began_with

    def fails(*_: object) -> None:
        raise CatalogError("The network is gone.")

    monkeypatch.setattr(Catalog, "data_files_at", fails)
    with pytest.raises(CatalogError, match="The network is gone"):
        recent(folder_setup, 7)


def test_a_version_whose_log_was_deleted_cannot_be_read(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    pass_days(folder_setup, 8)
    fill(folder_setup.cache, {url_of(50): photo(50)})
    folder_setup.sync()
    from deltalake import DeltaTable

    DeltaTable(str(root_of(folder_setup) / "catalog")).create_checkpoint()
    log = root_of(folder_setup) / "catalog" / "_delta_log"
    (log / f"{0:020d}.json").unlink()
    past = recent(folder_setup, 7)
    assert not past.began_with
    assert past.added == past.kept, "all rows count as committed since"
    assert len(past.added) == 2


def test_both_extensions_of_a_content_that_was_named_recently_stay(
    folder_setup: MirrorSetup,
) -> None:
    stocked(folder_setup)
    content = digest_of(photo(0)).content_hash
    other = object_key(content, "unknown")
    folder_setup.put({other: photo(0)})
    pass_days(folder_setup, 100)
    fill(folder_setup.cache, {url_of(0): photo(50)})  # now no live row names either object
    folder_setup.sync()
    report = gc(folder_setup.settings())
    assert (report.named_recently, report.deleted) == (2, 0)
    assert {other, object_key(content, "jpeg")} <= set(folder_setup.objects())
    pass_days(folder_setup, 8)
    assert gc(folder_setup.settings()).deleted == 2
