"""`mirror backfill` fetches missing images, stores no bad ones, and repeats no request."""

from __future__ import annotations

import gzip
import io
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from mirror.backfill.download_plan import DownloadSelection
from mirror.backfill.pacing import DAY, HOUR, MAX_FORBIDDEN
from mirror.backfill.run_backfill import BackfillOptions
from mirror.cache.cache_writer import backfill_writer
from mirror.content.digest import digest_of
from mirror.dataset.fields import parse_path
from mirror.dataset.inputs import Input
from mirror.errors import Busy, CacheError, ConfigError, StateDamaged, UsageError
from mirror.inspection.inspect_cache import judge_all
from mirror.run.lock import locked
from mirror.run.progress import Level, Progress
from mirror.sync.run_sync import sync
from tests.backfill.backfill_setup import Scene
from tests.backfill.fake_inaturalist import (
    HOSTS,
    Endless,
    First,
    Image,
    Reset,
    Stall,
    gone,
    html,
    redirect,
)
from tests.support.photos import blank, encoded, fill, name_of, photo, url_of


def png() -> bytes:
    out = io.BytesIO()
    Pillow.open(io.BytesIO(photo(1))).save(out, "PNG")
    return out.getvalue()


def selected(**fields: Any) -> BackfillOptions:
    return BackfillOptions(selection=DownloadSelection(**fields))


def test_missing_images_are_fetched(scene: Scene) -> None:
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(5)]
    fill(scene.cache, {urls[0]: photo(0)})
    report = scene.run([*urls, urls[1]])
    assert report.error is None
    told = report.as_json()
    assert (told["wanted"], told["already"], told["downloaded"], told["left"]) == (4, 1, 4, 0)
    assert sum(told["failed"].values()) == 0
    assert told["bytes"] == sum(len(photo(n)) for n in range(1, 5)) + len(gone().body)
    assert scene.files() == sorted(map(name_of, urls))
    assert (scene.cache / name_of(urls[3])).read_bytes() == photo(3)
    assert (report.exit_status, told["exit_status"], told["stopped"]) == (0, 0, "")
    agents = {hit.agent for hit in scene.server.hits}
    assert len(agents) == 1
    assert agents.pop().endswith("(+test@example.org)")


def test_nothing_to_do_sends_no_request(scene: Scene) -> None:
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(3)]
    scene.run(urls)
    scene.server.hits.clear()
    report = scene.run(urls)
    assert (report.plan.wanted, report.exit_status, scene.server.hits) == (0, 0, [])


# The answer, the kind of failure, and a part of the reason. None of it may be stored.
BAD: dict[str, tuple[Any, str, str]] = {
    "404": (gone(404), "gone", "404"),
    "403": (gone(403), "gone", "403"),
    "410": (gone(410), "gone", "410"),
    "451": (gone(451), "gone", "451"),
    "html": (html(), "not_image", "text/html"),
    "html called jpeg": (Image(html().body), "not_image", "html"),
    "json": (Image(b'{"error": "x"}', content_type="application/json"), "not_image", "json"),
    "empty": (Image(b""), "not_image", "empty"),
    "unknown": (Image(b"nothing known"), "not_image", "magic"),
    "gzip": (
        Image(gzip.compress(bytes(10_000_000)), headers=("Content-Encoding: gzip",)),
        "not_image",
        "gzip",
    ),
    "blank": (Image(blank()), "blank", "flat"),
    "cut": (Image(photo(1)[:-300]), "corrupt", "decode"),
    "cut and closed": (Image(photo(1)[:400] + b"\xff\xd9"), "corrupt", ""),
    "png under jpg": (Image(png(), content_type="image/png"), "placeholder", "PNG"),
    "too large": (Image(photo(1) + bytes(300_000)), "too_large", "200,000"),
    "endless": (Endless(2_000_000), "too_large", "200,000"),
    "endless 404": (Endless(2_000_000, 404), "gone", "404"),
    "wrong length": (Image(photo(1), length=len(photo(1)) + 10), "network", "ended before"),
    "reset": (Reset(), "network", "the connection broke: Connection reset by peer"),
    "reset midway": (Reset(photo(1)), "network", ""),
    "stall": (Stall(), "network", "stalled"),
    "500": (gone(500), "server_error", "500"),
    "teapot": (gone(418), "not_image", "418"),
    "login": (redirect("https://www.inaturalist.org/login"), "placeholder", "login"),
    "withdrawn": (redirect("/assets/copyright-infringement.png"), "placeholder", "copyright"),
    "elsewhere": (redirect("https://example.org/x.jpg"), "not_allowed", "example.org"),
    "private": (redirect("http://10.0.0.1/x.jpg"), "not_allowed", "10.0.0.1"),
    "metadata": (redirect("http://169.254.169.254/latest"), "not_allowed", "169.254"),
    "file": (redirect("file:///etc/passwd"), "not_allowed", "file"),
    "nowhere": (redirect(""), "not_image", "without a usable target"),
    "loop": (redirect("medium.jpg"), "not_image", "redirects"),
}


@pytest.mark.parametrize(("answer", "kind", "reason"), BAD.values(), ids=BAD)
def test_a_bad_answer_is_recorded_and_not_stored(
    scene: Scene, answer: Any, kind: str, reason: str
) -> None:
    scene.backfill = {"max_size": "200K"}
    url = scene.server.photo(1, answer)
    good = scene.server.photo(2, Image(photo(2)))
    report = scene.run([url, good])
    told = report.as_json()
    assert {name: n for name, n in told["failed"].items() if n} == {kind: 1}
    ((failed, as_what, why),) = report.failures
    assert (failed, as_what) == (url, kind)
    assert reason in why
    assert (report.downloaded, report.exit_status) == (1, 3)
    assert scene.files() == [name_of(good)]


def test_more_bytes_than_announced_are_no_image(scene: Scene) -> None:
    """Depending on timing, the HTTP library sees an answer that is cut, or one that is not HTTP."""
    url = scene.server.photo(1, Image(photo(1), length=len(photo(1)) // 2))
    report = scene.run([url], BackfillOptions(seconds=5))
    ((_, kind, why),) = report.failures
    assert kind in ("network", "corrupt")
    assert r"\x" not in why  # none of the server's bytes
    assert "\n" not in why
    assert scene.files() == []


FOR_EVER = [name for name, (_, kind, _) in BAD.items() if kind in ("gone", "placeholder")]


@pytest.mark.parametrize("name", FOR_EVER)
def test_gone_images_are_never_requested_again(scene: Scene, name: str) -> None:
    url = scene.server.photo(1, BAD[name][0])
    for _ in range(3):
        report = scene.run([url])
        scene.time.now += 40 * DAY
    assert scene.server.times_asked(url) == 1
    assert (report.plan.gone, report.left, report.exit_status) == (1, 0, 0)
    assert scene.run([url], selected(retry_failed=True)).requests == 0


@pytest.mark.parametrize(
    ("name", "most"),
    [("html", 4), ("blank", 4), ("cut", 4), ("500", 8), ("reset", 8), ("loop", 24)],
)
def test_transient_failures_are_retried_with_growing_pauses_and_given_up(
    scene: Scene, name: str, most: int
) -> None:
    url = scene.server.photo(1, BAD[name][0])
    pauses = []
    report = scene.run([url])
    while report.next_try is not None:
        pauses.append(report.next_try)
        assert scene.run([url]).requests == 0  # not before its time
        scene.time.now += report.next_try
        report = scene.run([url])
        assert len(pauses) < most
    assert scene.server.times_asked(url) == most
    assert pauses == sorted(pauses)
    assert (scene.run([url]).plan.given_up, scene.run([url]).exit_status) == (1, 0)
    assert scene.run([url], selected(retry_failed=True)).requests > 0


PASSING = {
    "reset": Reset(), "stall": Stall(), "500": gone(500), "short": Image(photo(1), length=10**5)
}  # fmt: skip


@pytest.mark.parametrize("first", PASSING.values(), ids=PASSING)
def test_a_short_failure_is_retried_by_the_same_run(scene: Scene, first: Any) -> None:
    url = scene.server.photo(1, First(2, first, Image(photo(1))))
    report = scene.run([url])
    assert (report.downloaded, report.failed_total, report.exit_status) == (1, 0, 0)
    assert scene.server.times_asked(url) == 3


def test_the_http_library_does_not_repeat_a_request(scene: Scene) -> None:
    """The HTTP library would repeat the request by itself."""
    url = scene.server.photo(1, Reset())
    scene.run([url], BackfillOptions(seconds=5))
    assert scene.server.times_asked(url) == 1


@pytest.mark.parametrize("host", HOSTS)
def test_a_redirect_is_followed_where_it_may_be(scene: Scene, host: str) -> None:
    there = scene.server.photo(2, Image(photo(2)), host)
    url = scene.server.photo(1, redirect(there))
    report = scene.run([url])
    assert (report.downloaded, scene.files()) == (1, [name_of(url)])


def test_one_picture_for_many_photos_is_a_placeholder_and_is_removed(scene: Scene) -> None:
    same = Image(photo(7))
    urls = [scene.server.photo(n, same) for n in range(7)]
    good = scene.server.photo(100, Image(photo(100)))
    report = scene.run([*urls, good])
    assert scene.files() == [name_of(good)]
    assert (report.downloaded, report.taken_back, report.failed["placeholder"]) == (1, 4, 7)
    assert any(digest_of(photo(7)).sha256.hex() in warning for warning in report.warnings)
    # A later run also recognises the next one at once.
    late = scene.server.photo(8, same)
    report = scene.run([*urls, good, late])
    assert (report.plan.gone, report.failed["placeholder"]) == (7, 1)
    assert scene.files() == [name_of(good)]
    assert [scene.server.times_asked(url) for url in urls] == [1] * 7


def test_one_photo_under_many_urls_is_no_placeholder(scene: Scene) -> None:
    urls = [
        scene.server.photo(1, Image(photo(1)), host, query)
        for host in HOSTS
        for query in ("", "?1", "?2", "?3")
    ]
    report = scene.run(urls)
    assert (report.downloaded, report.taken_back) == (8, 0)


def test_a_file_that_another_program_wrote_is_not_removed(scene: Scene) -> None:
    urls = [scene.server.photo(n, Image(photo(7))) for n in range(6)]
    fill(scene.cache, {urls[0]: photo(7)})
    scene.run(urls)
    assert scene.files() == [name_of(urls[0])]


@pytest.mark.parametrize("body", [blank(), b"", photo(1)[:-200], html().body])
def test_a_bad_file_in_the_cache_is_replaced_in_its_place(scene: Scene, body: bytes) -> None:
    url = scene.server.photo(1, Image(photo(1)))
    below = scene.cache / "below"
    below.mkdir(parents=True)
    (below / name_of(url)).write_bytes(body)
    report = scene.run([url])
    assert (report.plan.flagged, report.downloaded, report.replaced) == (1, 1, 1)
    assert scene.files() == ["below"]
    assert (below / name_of(url)).read_bytes() == photo(1)


def test_placeholders_in_the_cache_are_wanted_again(scene: Scene) -> None:
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(6)]
    fill(scene.cache, dict.fromkeys(urls, photo(99)))
    report = scene.run(urls)
    assert (report.plan.cached, report.downloaded, report.replaced) == (0, 6, 6)
    assert all((scene.cache / name_of(url)).read_bytes() == photo(n) for n, url in enumerate(urls))


def test_a_good_file_that_appears_meanwhile_stays(scene: Scene) -> None:
    class Training:
        """Puts the second image into the cache while the first is fetched."""

        def __init__(self) -> None:
            self.done = False

        def __call__(self) -> float:
            if scene.server.hits and not self.done:
                self.done = True
                fill(scene.cache, {urls[1]: photo(50)})
            return scene.time.now

    scene.server.clock = Training()
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(2)]
    report = scene.run(urls)
    assert (report.downloaded, report.overtaken, report.left) == (1, 1, 0)
    assert (scene.cache / name_of(urls[1])).read_bytes() == photo(50)


def test_mirrored_images_are_not_fetched(scene: Scene) -> None:
    scene.bucket = True
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(4)]
    report = scene.run(urls[:2])
    assert "no mirror" in report.warnings[0]
    sync(scene.settings)
    for name in scene.files():
        (scene.cache / name).unlink()
    scene.server.hits.clear()
    report = scene.run(urls, selected(from_empty=True))
    assert (report.plan.mirrored, report.plan.wanted, report.downloaded) == (2, 2, 2)
    aside = BackfillOptions(use_bucket=False, dry_run=True)
    assert scene.run(urls, aside).plan.mirrored == 0


def test_a_photo_that_is_mirrored_under_another_spelling_need_not_be_fetched(scene: Scene) -> None:
    scene.bucket = True
    fill(scene.cache, {url_of(1): photo(1)})
    sync(scene.settings)
    other = url_of(1).replace("medium.jpg", "medium.jpeg?1545")
    for match, mirrored in (("photo", 1), ("url", 0)):
        options = BackfillOptions(match=match, dry_run=True)  # type: ignore[arg-type]
        assert scene.run([other], options).plan.mirrored == mirrored


def test_files_of_the_cache_are_judged_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    def counting(*arguments: Any) -> Any:
        for judged, failures in judge_all(*arguments):
            looked_at.append(len(judged))
            yield judged, failures

    monkeypatch.setattr("mirror.backfill.download_plan.judge_all", counting)
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(20)]
    fill(scene.cache, {url: photo(n) for n, url in enumerate(urls[:10])})
    scene.run(urls)
    assert sum(looked_at) == 10
    assert scene.run(urls).plan.cached == 20
    assert sum(looked_at) == 10  # it knows the files that it wrote
    (scene.cache / name_of(urls[3])).write_bytes(blank())
    assert scene.run(urls).replaced == 1
    assert sum(looked_at) == 11


def test_the_rarest_classes_come_first_then_the_order_of_the_dataset(scene: Scene) -> None:
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(7)]
    species = ["oak", "oak", "oak", "fern", "rare", "fern", None]
    dataset = scene.dataset(urls, species=species)
    scene.run(dataset, selected(balance=parse_path("species")))
    asked = [hit.path for hit in scene.server.hits if "photos" in hit.path]
    numbers = [int(path.split("/")[2]) for path in asked]
    assert numbers == [4, 3, 5, 0, 1, 2, 6]


def test_only_allowed_licences_are_fetched(scene: Scene) -> None:
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(4)]
    dataset = scene.dataset([*urls, urls[2]], license=["CC BY-NC", None, "C", "cc0", "cc-by-nc"])
    asked = selected(license=("license",), allowed=frozenset({"cc-by-nc"}))
    report = scene.run(dataset, asked)
    assert (report.plan.unlicensed, report.plan.wanted, report.downloaded) == (2, 2, 2)
    assert scene.files() == sorted(name_of(urls[n]) for n in (0, 2))


def test_a_host_that_is_not_on_the_list_is_never_asked(scene: Scene) -> None:
    good = scene.server.photo(1, Image(photo(1)))
    other = good.replace("static.inaturalist.org", "static.inaturalist.org.example.org")
    report = scene.run([other, good, "ftp://static.inaturalist.org/x", "no address"])
    assert (report.failed["not_allowed"], report.downloaded, report.exit_status) == (3, 1, 3)
    assert "backfill.hosts" in report.warnings[0]


def test_private_addresses_are_not_connected_to(scene: Scene) -> None:
    """The names are on the list, but resolve to this machine."""
    scene.backfill = {"allow_private": False, "hosts": [f"{HOSTS[0]}:{scene.server.port}"]}
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(3)]
    report = scene.run(urls, BackfillOptions(seconds=60))
    assert (scene.server.hits, scene.files(), report.downloaded) == ([], [], 0)
    assert {kind for _, kind, _ in report.failures} == {"network"}
    assert "not public" in report.failures[0][2]


def test_a_refusal_is_waited_out_and_costs_the_image_nothing(scene: Scene) -> None:
    scene.server.per_hour = 10
    scene.backfill = {"per_hour": 100}
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(25)]
    report = scene.run(urls)
    assert (report.downloaded, report.failed_total, report.exit_status) == (25, 0, 0)
    # Each refusal is followed by the pause that it asked for, in seconds or as a date.
    assert 2 <= report.throttled <= 6
    assert {hit.status for hit in scene.server.hits} == {200, 404, 429}


def test_a_blocked_address_does_not_make_everything_gone(scene: Scene) -> None:
    count = MAX_FORBIDDEN + 10
    urls = [scene.server.photo(n, gone(403)) for n in range(count)]
    scene.backfill = {"per_hour": 3000}
    report = scene.run(urls, BackfillOptions(seconds=4 * HOUR))
    assert len(scene.server.hits) <= MAX_FORBIDDEN + 1
    assert any("blocked" in warning for warning in report.warnings)
    for n in range(count):
        scene.server.photo(n, Image(photo(n)))
    scene.time.now += 2 * DAY
    assert scene.run(urls).downloaded == count


def test_a_source_that_is_down_is_left_alone(scene: Scene) -> None:
    urls = [scene.server.photo(n, gone(503)) for n in range(50)]
    scene.backfill = {"per_hour": 3000}
    report = scene.run(urls, BackfillOptions(seconds=24 * HOUR))
    assert report.throttled == len(scene.server.hits) - 1 < 20
    assert (report.left, report.exit_status) == (50, 0)
    assert "its time would be up" in report.stopped
    for n in range(50):
        scene.server.photo(n, Image(photo(n)))
    assert scene.run(urls).downloaded == 50


def test_the_rate_of_robots_txt_is_respected_and_asked_for_once_a_day(scene: Scene) -> None:
    scene.server.robots = "User-agent: *\nCrawl-delay: 120\n"
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(8)]
    began = scene.time.now
    scene.run(urls[:5])
    assert scene.time.now - began >= 5 * 120
    scene.run(urls)
    assert [hit.path for hit in scene.server.hits].count("/robots.txt") == 1
    assert scene.server.most_requests(119) == 1
    scene.time.now += DAY
    scene.run([*urls, scene.server.photo(9, Image(photo(9)))])
    assert [hit.path for hit in scene.server.hits].count("/robots.txt") == 2


def test_limits_hold_from_one_run_to_the_next(scene: Scene) -> None:
    scene.backfill = {"per_hour": 10}
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(40)]
    for n in range(8):
        scene.run(urls[: 5 * n + 5], BackfillOptions(seconds=1200))
    assert scene.server.most_requests(HOUR) == 10


def test_a_run_that_dies_in_a_request_has_asked_all_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(Exception):
        pass

    def die(_: object) -> None:
        raise Died

    scene.backfill = {"per_hour": 3}
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(9)]
    with monkeypatch.context() as dying:
        dying.setattr("mirror.backfill.fetch_one.request_outcome", die)
        for _ in range(3):
            with pytest.raises(Died):
                scene.run(urls)
            scene.time.now += 60 * 20 - 1
    assert "its time would be up" in scene.run(urls, BackfillOptions(seconds=10)).stopped
    assert len(scene.server.hits) == 3
    assert scene.server.most_requests(HOUR) == 3


STOPS = {
    "time": (BackfillOptions(seconds=HOUR / 2), "time"),
    "bytes": (BackfillOptions(max_bytes=3000), "bytes had come"),
    "images": (BackfillOptions(max_images=3), "3 images were downloaded"),
}


@pytest.mark.parametrize(("options", "why"), STOPS.values(), ids=STOPS)
def test_a_run_ends_at_its_limits(scene: Scene, options: BackfillOptions, why: str) -> None:
    scene.backfill = {"per_hour": 10}
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(20)]
    began = scene.time.now
    report = scene.run(urls, options)
    assert why in report.stopped
    assert 0 < report.downloaded < 20
    assert report.downloaded + report.left == 20
    assert report.exit_status == 0
    if options.seconds is not None:
        assert scene.time.now <= began + options.seconds
    if options.max_bytes is not None:
        assert report.bytes < options.max_bytes + 3000
    assert report.as_json()["eta"] > 0


def test_the_estimate_is_shown_before_any_request(scene: Scene) -> None:
    class Listening(Progress):
        def say(self, sentence: str, level: Level = "info") -> None:
            if "To be fetched: " in sentence:
                told.append((len(scene.server.hits), sentence.partition("To be fetched: ")[2]))

    told: list[tuple[int, str]] = []
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(40)]
    report = scene.run(urls, BackfillOptions(max_images=1), Listening())
    assert told == [(0, "40 images at 150 an hour are 4 minutes; about 57.6 MB in all.")]
    assert report.estimate is not None


def test_a_dry_run_requests_and_stores_nothing(scene: Scene) -> None:
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(300)]
    scene.backfill = {"contact": None}
    fill(scene.cache, {urls[0]: photo(0)})
    report = scene.run(urls, BackfillOptions(dry_run=True))
    assert (report.plan.wanted, report.plan.already, report.exit_status) == (299, 1, 0)
    assert (len(scene.files()), scene.server.hits) == (1, [])
    assert report.as_json()["eta"] == pytest.approx(269 * 24)


@pytest.mark.parametrize("contact", [None, "", "  ", "me\r\nX-Evil: 1", "Jürgen", "a(b)"])
def test_a_contact_is_required(scene: Scene, contact: str | None) -> None:
    scene.backfill = {"contact": contact}
    with pytest.raises(ConfigError, match=r"backfill\.contact"):
        scene.run([scene.server.photo(1, Image(photo(1)))])
    assert scene.server.hits == []


def test_two_backfills_do_not_run_at_once(scene: Scene, tmp_path: Path) -> None:
    url = scene.server.photo(1, Image(photo(1)))
    scene.cache.mkdir()
    with backfill_writer(os.fsencode(scene.cache)), pytest.raises(Busy, match="cache"):
        scene.run([url])
    with locked(scene.settings.backfill_dir), pytest.raises(Busy):
        scene.run([url])
    assert scene.run([url], BackfillOptions(dry_run=True)).plan.wanted == 1
    assert scene.run([url]).downloaded == 1


def test_a_cache_whose_disk_is_not_mounted_is_not_fetched_again(scene: Scene) -> None:
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(3)]
    scene.run(urls)
    for name in scene.files():
        (scene.cache / name).unlink()
    scene.server.hits.clear()
    with pytest.raises(CacheError, match="mounted"):
        scene.run(urls)
    assert scene.server.hits == []
    assert scene.run(urls, selected(from_empty=True)).downloaded == 3


def test_a_cache_that_cannot_be_written_ends_the_run_and_blames_no_image(scene: Scene) -> None:
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(3)]
    (scene.cache / name_of(urls[0])).mkdir(parents=True)  # something that must not be replaced
    report = scene.run(urls)
    assert (report.downloaded, report.failed["unreadable"]) == (2, 1)


def test_part_files_of_a_killed_run_are_removed(scene: Scene) -> None:
    url = scene.server.photo(1, Image(photo(1)))
    scene.cache.mkdir()
    (scene.cache / ".backfill-0123456789abcdef.tmp").write_bytes(b"half")
    (scene.cache / ".mirror-0123456789ab.tmp").write_bytes(b"somebody else's")
    scene.run([url])
    assert scene.files() == [".mirror-0123456789ab.tmp", name_of(url)]


def test_every_attempt_is_in_the_request_log(scene: Scene) -> None:
    urls = [scene.server.photo(1, Image(photo(1))), scene.server.photo(2, gone(404))]
    urls.append(scene.server.photo(3, gone(500)))
    scene.run(urls, BackfillOptions(seconds=20))
    with sqlite3.connect(scene.settings.backfill_dir / "ledger.sqlite") as db:
        rows = db.execute(
            "SELECT state, attempts, status, kind, next_try FROM urls ORDER BY url"
        ).fetchall()
        runs = db.execute("SELECT count(*) FROM runs").fetchone()[0]
    db.close()
    assert rows[0][:4] == ("had", 1, 200, "had")
    assert rows[1][:4] == ("gone", 1, 404, "gone")
    assert rows[2][:4] == ("waiting", 2, 500, "server_error")
    assert rows[2][4] > scene.time.now
    assert runs == 1


def test_a_damaged_request_log_is_reported(scene: Scene) -> None:
    url = scene.server.photo(1, Image(photo(1)))
    scene.run([url])
    path = scene.settings.backfill_dir / "ledger.sqlite"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StateDamaged, match="wait a day"):
        scene.run([url])


def test_a_dataset_without_urls_is_reported(scene: Scene) -> None:
    path = scene.folder / "dataset.jsonl"
    path.write_text('{"url": "x"}\n{"url": "y"}\n')
    with pytest.raises(UsageError, match="--url-field"):
        scene.run(Input(str(path)))


def test_known_bad_contents_are_placeholders(scene: Scene) -> None:
    url = scene.server.photo(1, Image(photo(1)))
    assert scene.run([url]).downloaded == 1
    listed = scene.folder / "known_bad.txt"
    listed.write_text(digest_of(photo(1)).sha256.hex())
    scene.inspect = {"known_bad": str(listed)}
    report = scene.run([url])
    assert (report.plan.cached, report.failed["placeholder"]) == (0, 1)


def test_a_large_photograph_is_kept(scene: Scene) -> None:
    body = encoded(Pillow.open(io.BytesIO(photo(3))).resize((2000, 1500)), 95)
    url = scene.server.photo(1, Image(body))
    assert scene.run([url]).downloaded == 1
    assert (scene.cache / name_of(url)).read_bytes() == body


def test_several_connections_hold_the_limits_too(scene: Scene) -> None:
    scene.backfill = {"concurrency": 4, "per_second": 10.0, "per_hour": 100}
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(150)]
    report = scene.run(urls)
    assert (report.downloaded, report.error) == (150, None)
    assert scene.server.most_requests(HOUR) <= 100
    assert scene.server.most_requests(1) <= 10
