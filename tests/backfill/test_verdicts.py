"""The request log remembers which files of the cache a backfill wrote, and their verdicts."""

from __future__ import annotations

import sqlite3

from mirror.backfill.pacing import DAY
from mirror.backfill.run_backfill import BackfillOptions
from mirror.content.digest import digest_of
from mirror.run.progress import Progress, Stage
from tests.backfill.backfill_setup import Scene
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


def looked_at(scene: Scene, urls: list[str], *, dry_run: bool = False) -> int:
    counting = Counting()
    scene.run(urls, BackfillOptions(dry_run=dry_run), counting)
    return counting.files


def request_log(scene: Scene) -> list[str]:
    """The whole content of the request log."""
    with sqlite3.connect(scene.settings.backfill_dir / "ledger.sqlite") as db:
        lines = list(db.iterdump())
    db.close()
    return lines


def list_as_bad(scene: Scene, *hashes: bytes) -> None:
    listed = scene.folder / "known_bad.txt"
    listed.write_text("".join(one.hex() + "\n" for one in hashes))
    scene.inspect = {"known_bad": str(listed)}


def served(scene: Scene) -> list[str]:
    """Four photos with one replacement picture: too few to detect it, so the files are kept."""
    return [scene.server.photo(n, SAME) for n in range(1, 5)]


def taken_back_with_a_fifth(scene: Scene, urls: list[str]) -> int:
    report = scene.run([*urls, scene.server.photo(5, SAME)])
    assert not any((scene.cache / name).read_bytes() == SAME.body for name in scene.files())
    return report.taken_back


def test_another_placeholder_does_not_make_it_forget_which_files_are_its_own(scene: Scene) -> None:
    urls = [*served(scene), scene.server.photo(50, PNG)]
    for _ in range(2):
        scene.run(urls)
        scene.time.now += DAY
    assert taken_back_with_a_fifth(scene, urls) == 4


def test_a_list_of_known_bad_hashes_does_not_make_it_forget_its_files(scene: Scene) -> None:
    urls = served(scene)
    scene.run(urls)
    for hashes in ([bytes(32)], [bytes(32), bytes(16)], [bytes(16)]):
        list_as_bad(scene, *hashes)
        scene.run(urls)
    assert taken_back_with_a_fifth(scene, urls) == 4


def test_a_new_placeholder_does_not_cause_a_second_look_at_the_cache(scene: Scene) -> None:
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(100, 110)]
    fill(scene.cache, {url: photo(n) for n, url in enumerate(urls)})
    urls += [*served(scene), scene.server.photo(50, PNG)]
    assert [looked_at(scene, urls) for _ in range(3)] == [10, 0, 0]


def test_a_hash_on_the_list_or_off_it_counts_at_once(scene: Scene) -> None:
    url = scene.server.photo(1, Image(photo(1)))
    scene.run([url])
    digest = digest_of(photo(1))
    dry = BackfillOptions(dry_run=True)
    for known, cached in (
        ([digest.content_hash], 0),
        ([], 1),
        ([digest.sha256], 0),
        ([bytes(32)], 1),
    ):
        list_as_bad(scene, *known)
        assert scene.run([url], dry).plan.cached == cached
        # Its time is up before the first request.
        assert scene.run([url], BackfillOptions(seconds=0.0)).plan.cached == cached


def test_a_dry_run_records_nothing(scene: Scene) -> None:
    theirs = [scene.server.photo(n, Image(photo(n))) for n in range(100, 110)]
    fill(scene.cache, {url: photo(n) for n, url in enumerate(theirs)})
    urls = served(scene)
    scene.run(urls)
    before = request_log(scene)
    assert looked_at(scene, [*urls, *theirs], dry_run=True) == 10
    list_as_bad(scene, bytes(32))
    assert looked_at(scene, [*urls, *theirs], dry_run=True) == 14
    assert request_log(scene) == before
    assert taken_back_with_a_fifth(scene, urls) == 4
