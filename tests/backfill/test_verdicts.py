"""The request log remembers which files of the cache a backfill wrote, and their verdicts."""

from __future__ import annotations

import sqlite3

from mirror.backfill.pacing import DAY
from mirror.backfill.run_backfill import BackfillOptions
from mirror.content.digest import digest_of
from mirror.run.progress import Progress, Stage
from tests.backfill.backfill_setup import BackfillSetup
from tests.backfill.fake_inaturalist import Image
from tests.backfill.test_backfill import png
from tests.support.photos import fill, photo

SAME = Image(photo(777))
PNG = Image(png(), content_type="image/png")


class Counting(Progress):
    """Counts the files that are judged."""

    def __init__(self) -> None:
        self.files = 0
        self._noun = ""

    def begin(self, stage: Stage) -> None:
        self._noun = stage.noun

    def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
        self.files += items * (self._noun == "files of the cache judged")


def looked_at(backfill_setup: BackfillSetup, urls: list[str], *, dry_run: bool = False) -> int:
    counting = Counting()
    backfill_setup.run(urls, BackfillOptions(dry_run=dry_run), counting)
    return counting.files


def request_log(backfill_setup: BackfillSetup) -> list[str]:
    """The whole content of the request log."""
    with sqlite3.connect(backfill_setup.settings.backfill_dir / "ledger.sqlite") as db:
        lines = list(db.iterdump())
    db.close()
    return lines


def list_as_bad(backfill_setup: BackfillSetup, *hashes: bytes) -> None:
    listed = backfill_setup.folder / "known_bad.txt"
    listed.write_text("".join(one.hex() + "\n" for one in hashes))
    backfill_setup.inspect = {"known_bad": str(listed)}


def served(backfill_setup: BackfillSetup) -> list[str]:
    """Four photos with one replacement picture: too few to detect it, so the files are kept."""
    return [backfill_setup.server.photo(n, SAME) for n in range(1, 5)]


def taken_back_with_a_fifth(backfill_setup: BackfillSetup, urls: list[str]) -> int:
    report = backfill_setup.run([*urls, backfill_setup.server.photo(5, SAME)])
    assert not any(
        (backfill_setup.cache / name).read_bytes() == SAME.body for name in backfill_setup.files()
    )
    return report.taken_back


def test_another_placeholder_does_not_make_it_forget_which_files_are_its_own(
    backfill_setup: BackfillSetup,
) -> None:
    urls = [*served(backfill_setup), backfill_setup.server.photo(50, PNG)]
    for _ in range(2):
        backfill_setup.run(urls)
        backfill_setup.time.now += DAY
    assert taken_back_with_a_fifth(backfill_setup, urls) == 4


def test_a_list_of_known_bad_hashes_does_not_make_it_forget_its_files(
    backfill_setup: BackfillSetup,
) -> None:
    urls = served(backfill_setup)
    backfill_setup.run(urls)
    for hashes in ([bytes(32)], [bytes(32), bytes(16)], [bytes(16)]):
        list_as_bad(backfill_setup, *hashes)
        backfill_setup.run(urls)
    assert taken_back_with_a_fifth(backfill_setup, urls) == 4


def test_a_new_placeholder_does_not_cause_a_second_look_at_the_cache(
    backfill_setup: BackfillSetup,
) -> None:
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(100, 110)]
    fill(backfill_setup.cache, {url: photo(n) for n, url in enumerate(urls)})
    urls += [*served(backfill_setup), backfill_setup.server.photo(50, PNG)]
    assert [looked_at(backfill_setup, urls) for _ in range(3)] == [10, 0, 0]


def test_a_hash_on_the_list_or_off_it_counts_at_once(backfill_setup: BackfillSetup) -> None:
    url = backfill_setup.server.photo(1, Image(photo(1)))
    backfill_setup.run([url])
    digest = digest_of(photo(1))
    dry = BackfillOptions(dry_run=True)
    for known, cached in (
        ([digest.content_hash], 0),
        ([], 1),
        ([digest.sha256], 0),
        ([bytes(32)], 1),
    ):
        list_as_bad(backfill_setup, *known)
        assert backfill_setup.run([url], dry).plan.cached == cached
        # Its time is up before the first request.
        assert backfill_setup.run([url], BackfillOptions(seconds=0.0)).plan.cached == cached


def test_a_dry_run_records_nothing(backfill_setup: BackfillSetup) -> None:
    theirs = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(100, 110)]
    fill(backfill_setup.cache, {url: photo(n) for n, url in enumerate(theirs)})
    urls = served(backfill_setup)
    backfill_setup.run(urls)
    before = request_log(backfill_setup)
    assert looked_at(backfill_setup, [*urls, *theirs], dry_run=True) == 10
    list_as_bad(backfill_setup, bytes(32))
    assert looked_at(backfill_setup, [*urls, *theirs], dry_run=True) == 14
    assert request_log(backfill_setup) == before
    assert taken_back_with_a_fifth(backfill_setup, urls) == 4
