"""A bad image never replaces a good one, whichever machine commits first."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.cache.prepare import Prepared
from mirror.cache.scan import Entry
from mirror.catalog.delta_table import Catalog
from mirror.catalog.row import Row, RowSource
from mirror.content.digest import Identity, digest_of
from mirror.content.image import inspect
from mirror.errors import CatalogError
from mirror.layout import CATALOG, url_md5
from mirror.run.progress import Progress
from mirror.store.base import Store
from mirror.sync import commit
from mirror.sync.commit import Committer
from mirror.sync.row_sources import Sources
from mirror.sync.run_sync import SyncOptions, sync
from mirror.sync.state import State
from mirror.sync.weigh import Basis
from tests.support.mirror_setup import MirrorSetup
from tests.support.photos import blank, fill, name_of, photo, url_of
from tests.sync.test_sync import DatasetSources

URL = url_of(1)
GOOD, BAD = photo(1), blank()


class Machine:
    """One machine that commits, with a clock that the test sets."""

    def __init__(self, store: Store, uri: str, folder: Path) -> None:
        self.time = 1_790_000_000.0
        self.catalog = Catalog(store, uri, dict)
        folder.mkdir()
        self._state, self._snapshots = State(folder), folder / "index"
        self.committer = self.with_sources(None)

    def with_sources(self, sources: Sources | None) -> Committer:
        return Committer(self.catalog, self._state, self._snapshots, sources, lambda: self.time)

    def reads(self, body: bytes, url: str = URL) -> None:
        """Add a file whose content is in the mirror, or is flagged."""
        entry = Entry(name_of(url).encode(), Identity(len(body), 1, 1))
        prepared = Prepared(entry, digest_of(body), inspect(body), body)
        basis = Basis.UPLOADED if prepared.inspection.verdict == "ok" else Basis.FLAGGED
        self.committer.add(prepared, basis, self.committer.epoch)

    async def commits(self, body: bytes, url: str = URL) -> None:
        self.reads(body, url)
        await self.committer.commit()

    def close(self) -> None:
        self._state.close()


@contextmanager
def machines(mirror_setup: MirrorSetup, names: Sequence[str]) -> Iterator[list[Machine]]:
    Path(mirror_setup.place.url.path, CATALOG).mkdir(parents=True)
    store, uri = mirror_setup.place.open(), f"{mirror_setup.place.url.path}/{CATALOG}"
    made = [Machine(store, uri, mirror_setup.cache.parent / name) for name in names]
    try:
        yield made
    finally:
        for machine in made:
            machine.close()


def told(
    mirror_setup: MirrorSetup, story: Callable[..., Coroutine[Any, Any, None]], *names: str
) -> None:
    with machines(mirror_setup, names) as made:
        asyncio.run(story(*made))


def is_good(mirror_setup: MirrorSetup) -> bool:
    row = mirror_setup.rows()[url_md5(URL)]
    return (row["verdict"], row["content_hash"]) == ("ok", digest_of(GOOD).content_hash)


def test_a_bad_file_does_not_supersede_a_good_row_of_the_same_run(
    folder_setup: MirrorSetup,
) -> None:
    async def story(one: Machine) -> None:
        await one.commits(GOOD)
        await one.commits(photo(2), url_of(2))
        one.time += 60
        await one.commits(BAD)

    told(folder_setup, story, "one")
    assert is_good(folder_setup)


def test_a_good_file_supersedes_a_bad_row_even_if_the_clock_was_set_back(
    folder_setup: MirrorSetup,
) -> None:
    async def story(one: Machine) -> None:
        await one.commits(BAD)
        one.time -= 3600
        await one.commits(GOOD)

    told(folder_setup, story, "one")
    assert is_good(folder_setup)


def test_the_rows_that_a_run_remembers_are_bounded(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "_MAX_REMEMBERED", 3)

    async def story(one: Machine) -> None:
        for number in range(1, 11):
            await one.commits(photo(number), url_of(number))
            # Rows that the index has need not be remembered.
            assert number - len(one.committer.index) <= 3
        one.time += 60
        await one.commits(BAD)

    told(folder_setup, story, "one")
    assert is_good(folder_setup)


SKEWS = pytest.mark.parametrize("skew", [-3600.0, 0.0, 60.0])


@SKEWS
@pytest.mark.parametrize("first", ["good", "bad"])
@pytest.mark.parametrize("known", [False, True], ids=["new mirror", "known mirror"])
def test_of_two_machines_at_once_the_one_with_the_good_image_wins(
    folder_setup: MirrorSetup, skew: float, first: str, known: bool
) -> None:
    async def story(good: Machine, bad: Machine) -> None:
        if known:
            await good.commits(photo(9), url_of(9))
        for machine in (good, bad):
            await machine.committer.refresh()
        bad.time += skew
        good.reads(GOOD)
        bad.reads(BAD)
        bad.reads(photo(2), url_of(2))
        order = (good, bad) if first == "good" else (bad, good)
        for machine in order:
            await machine.committer.commit()

    told(folder_setup, story, "good", "bad")
    assert is_good(folder_setup)
    assert folder_setup.rows()[url_md5(url_of(2))]["verdict"] == "ok"


@SKEWS
def test_rows_that_wait_during_a_conflict_are_compared_again_too(
    folder_setup: MirrorSetup, skew: float
) -> None:
    async def story(good: Machine, bad: Machine) -> None:
        for machine in (good, bad):
            await machine.committer.refresh()
        await good.commits(GOOD)
        bad.time += skew
        bad.reads(photo(2), url_of(2))
        committing = asyncio.create_task(bad.committer.commit())
        await asyncio.sleep(0)  # it is under way
        bad.reads(BAD)
        await committing
        await bad.committer.commit()

    told(folder_setup, story, "good", "bad")
    assert is_good(folder_setup)


def test_a_conflict_loses_no_row(folder_setup: MirrorSetup) -> None:
    async def story(one: Machine, other: Machine) -> None:
        for machine in (one, other):
            await machine.committer.refresh()
        for number in range(2, 6):
            one.reads(photo(number), url_of(number))
            other.reads(photo(number + 2), url_of(number + 2))
        await one.committer.commit()
        await other.committer.commit()

    told(folder_setup, story, "one", "other")
    rows = folder_setup.rows()
    assert {url: row["content_hash"] for url, row in rows.items()} == {
        url_md5(url_of(n)): digest_of(photo(n)).content_hash for n in range(2, 8)
    }


def test_a_source_that_another_machine_commits_meanwhile_is_kept(folder_setup: MirrorSetup) -> None:
    async def story(knowing: Machine, one: Machine) -> None:
        knowing.committer = knowing.with_sources(DatasetSources({URL: RowSource(URL, "CC0")}))
        for machine in (knowing, one):
            await machine.committer.refresh()
        one.time += 60
        one.reads(GOOD)
        await knowing.commits(photo(2))
        await one.committer.commit()

    told(folder_setup, story, "knowing", "one")
    assert is_good(folder_setup)
    row = folder_setup.rows()[url_md5(URL)]
    assert (row["source_url"], row["license"]) == (URL, "CC0")


def test_a_writer_that_always_loses_the_race_says_so_and_commits_later(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never commits rows that were decided on an older version than the one before."""
    monkeypatch.setattr(commit, "_ATTEMPTS", 5)

    async def story(one: Machine, busy: Machine) -> None:
        await one.committer.refresh()
        first = one.catalog.append_after

        def late(version: int, rows: Sequence[Row], mark: str) -> int | None:
            busy.catalog.append([rows[0]._replace(url_md5=version.to_bytes(16, "big"))])
            return first(version, rows, mark)

        with monkeypatch.context() as patch:
            patch.setattr(one.catalog, "append_after", late)
            with pytest.raises(CatalogError, match="5 times in a row"):
                await one.commits(GOOD)
        assert url_md5(URL) not in folder_setup.rows()
        await one.committer.commit()

    told(folder_setup, story, "one", "busy")
    assert is_good(folder_setup)


class Interrupting(Progress):
    """Starts another machine's whole run between this one's reading and committing of a file."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._run: Callable[[], object] | None = run

    def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
        if self._run is not None:
            thread = threading.Thread(target=self._run)
            self._run = None
            thread.start()
            thread.join()


@pytest.mark.parametrize("mine", ["good", "bad"])
def test_two_syncs_at_once_end_with_the_good_image(
    folder_setup: MirrorSetup, tmp_path: Path, mine: str
) -> None:
    (tmp_path / "other").mkdir()
    other = MirrorSetup(folder_setup.place, tmp_path / "other")
    bodies = (GOOD, BAD) if mine == "good" else (BAD, GOOD)
    for mirror_setup, body in zip((folder_setup, other), bodies, strict=True):
        fill(mirror_setup.cache, {URL: body})
    report = sync(folder_setup.settings(), SyncOptions(), progress=Interrupting(other.sync))
    assert report.exit_status == 0
    assert is_good(folder_setup)
    for mirror_setup in (folder_setup, other):
        assert mirror_setup.sync().unchanged == 1
    assert is_good(folder_setup)
