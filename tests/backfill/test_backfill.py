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
from mirror.catalog.row import RowSource
from mirror.content.digest import digest_of
from mirror.dataset.fields import parse_path
from mirror.dataset.inputs import Input
from mirror.errors import Busy, CacheError, ConfigError, StateDamaged, UsageError
from mirror.inspection.inspect_cache import judge_all
from mirror.layout import url_md5
from mirror.run.lock import locked
from mirror.run.progress import Level, Progress
from mirror.sync.run_sync import sync
from mirror.system.display_text import format_size
from tests.backfill.backfill_setup import BackfillSetup
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


def test_missing_images_are_fetched(backfill_setup: BackfillSetup) -> None:
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(5)]
    fill(backfill_setup.cache, {urls[0]: photo(0)})
    report = backfill_setup.run([*urls, urls[1]])
    assert report.error is None
    told = report.as_json()
    assert (told["wanted"], told["already"], told["downloaded"], told["left"]) == (4, 1, 4, 0)
    assert sum(told["failed"].values()) == 0
    assert told["bytes"] == sum(len(photo(n)) for n in range(1, 5)) + len(gone().body)
    assert backfill_setup.files() == sorted(map(name_of, urls))
    assert (backfill_setup.cache / name_of(urls[3])).read_bytes() == photo(3)
    assert (report.exit_status, told["exit_status"], told["stopped"]) == (0, 0, "")
    agents = {hit.agent for hit in backfill_setup.server.hits}
    assert len(agents) == 1
    assert agents.pop().endswith("(+test@example.org)")


def test_nothing_to_do_sends_no_request(backfill_setup: BackfillSetup) -> None:
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(3)]
    backfill_setup.run(urls)
    backfill_setup.server.hits.clear()
    report = backfill_setup.run(urls)
    assert (report.plan.wanted, report.exit_status, backfill_setup.server.hits) == (0, 0, [])


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
    backfill_setup: BackfillSetup, answer: Any, kind: str, reason: str
) -> None:
    backfill_setup.backfill = {"max_size": "200K"}
    url = backfill_setup.server.photo(1, answer)
    good = backfill_setup.server.photo(2, Image(photo(2)))
    report = backfill_setup.run([url, good])
    told = report.as_json()
    assert {name: n for name, n in told["failed"].items() if n} == {kind: 1}
    ((failed, as_what, why),) = report.failures
    assert (failed, as_what) == (url, kind)
    assert reason in why
    assert (report.downloaded, report.exit_status) == (1, 3)
    assert backfill_setup.files() == [name_of(good)]


def test_more_bytes_than_announced_are_no_image(backfill_setup: BackfillSetup) -> None:
    """Depending on timing, the HTTP library sees an answer that is cut, or one that is not HTTP."""
    url = backfill_setup.server.photo(1, Image(photo(1), length=len(photo(1)) // 2))
    report = backfill_setup.run([url], BackfillOptions(seconds=5))
    ((_, kind, why),) = report.failures
    assert kind in ("network", "corrupt")
    assert r"\x" not in why  # none of the server's bytes
    assert "\n" not in why
    assert backfill_setup.files() == []


FOR_EVER = [name for name, (_, kind, _) in BAD.items() if kind in ("gone", "placeholder")]


@pytest.mark.parametrize("name", FOR_EVER)
def test_gone_images_are_never_requested_again(backfill_setup: BackfillSetup, name: str) -> None:
    url = backfill_setup.server.photo(1, BAD[name][0])
    for _ in range(3):
        report = backfill_setup.run([url])
        backfill_setup.time.now += 40 * DAY
    assert backfill_setup.server.times_asked(url) == 1
    assert (report.plan.gone, report.left, report.exit_status) == (1, 0, 0)
    assert backfill_setup.run([url], selected(retry_failed=True)).requests == 0


@pytest.mark.parametrize(
    ("name", "most"),
    [("html", 4), ("blank", 4), ("cut", 4), ("500", 8), ("reset", 8), ("loop", 24)],
)
def test_transient_failures_are_retried_with_growing_pauses_and_given_up(
    backfill_setup: BackfillSetup, name: str, most: int
) -> None:
    url = backfill_setup.server.photo(1, BAD[name][0])
    pauses = []
    report = backfill_setup.run([url])
    while report.next_try is not None:
        pauses.append(report.next_try)
        assert backfill_setup.run([url]).requests == 0  # not before its time
        backfill_setup.time.now += report.next_try
        report = backfill_setup.run([url])
        assert len(pauses) < most
    assert backfill_setup.server.times_asked(url) == most
    assert pauses == sorted(pauses)
    assert (backfill_setup.run([url]).plan.given_up, backfill_setup.run([url]).exit_status) == (
        1,
        0,
    )
    assert backfill_setup.run([url], selected(retry_failed=True)).requests > 0


PASSING = {
    "reset": Reset(), "stall": Stall(), "500": gone(500), "short": Image(photo(1), length=10**5)
}  # fmt: skip


@pytest.mark.parametrize("first", PASSING.values(), ids=PASSING)
def test_a_short_failure_is_retried_by_the_same_run(
    backfill_setup: BackfillSetup, first: Any
) -> None:
    url = backfill_setup.server.photo(1, First(2, first, Image(photo(1))))
    report = backfill_setup.run([url])
    assert (report.downloaded, report.failed_total, report.exit_status) == (1, 0, 0)
    assert backfill_setup.server.times_asked(url) == 3


def test_the_http_library_does_not_repeat_a_request(backfill_setup: BackfillSetup) -> None:
    """The HTTP library would repeat the request by itself."""
    url = backfill_setup.server.photo(1, Reset())
    backfill_setup.run([url], BackfillOptions(seconds=5))
    assert backfill_setup.server.times_asked(url) == 1


@pytest.mark.parametrize("host", HOSTS)
def test_a_redirect_is_followed_where_it_may_be(backfill_setup: BackfillSetup, host: str) -> None:
    there = backfill_setup.server.photo(2, Image(photo(2)), host)
    url = backfill_setup.server.photo(1, redirect(there))
    report = backfill_setup.run([url])
    assert (report.downloaded, backfill_setup.files()) == (1, [name_of(url)])


def test_one_picture_for_many_photos_is_a_placeholder_and_is_removed(
    backfill_setup: BackfillSetup,
) -> None:
    same = Image(photo(7))
    urls = [backfill_setup.server.photo(n, same) for n in range(7)]
    good = backfill_setup.server.photo(100, Image(photo(100)))
    report = backfill_setup.run([*urls, good])
    assert backfill_setup.files() == [name_of(good)]
    assert (report.downloaded, report.taken_back, report.failed["placeholder"]) == (1, 4, 7)
    assert any(digest_of(photo(7)).sha256.hex() in warning for warning in report.warnings)
    # A later run also recognises the next one at once.
    late = backfill_setup.server.photo(8, same)
    report = backfill_setup.run([*urls, good, late])
    assert (report.plan.gone, report.failed["placeholder"]) == (7, 1)
    assert backfill_setup.files() == [name_of(good)]
    assert [backfill_setup.server.times_asked(url) for url in urls] == [1] * 7


def test_one_photo_under_many_urls_is_no_placeholder(backfill_setup: BackfillSetup) -> None:
    urls = [
        backfill_setup.server.photo(1, Image(photo(1)), host, query)
        for host in HOSTS
        for query in ("", "?1", "?2", "?3")
    ]
    report = backfill_setup.run(urls)
    assert (report.downloaded, report.taken_back) == (8, 0)


def test_a_file_that_another_program_wrote_is_not_removed(backfill_setup: BackfillSetup) -> None:
    urls = [backfill_setup.server.photo(n, Image(photo(7))) for n in range(6)]
    fill(backfill_setup.cache, {urls[0]: photo(7)})
    backfill_setup.run(urls)
    assert backfill_setup.files() == [name_of(urls[0])]


@pytest.mark.parametrize("body", [blank(), b"", photo(1)[:-200], html().body])
def test_a_bad_file_in_the_cache_is_replaced_in_its_place(
    backfill_setup: BackfillSetup, body: bytes
) -> None:
    url = backfill_setup.server.photo(1, Image(photo(1)))
    below = backfill_setup.cache / "below"
    below.mkdir(parents=True)
    (below / name_of(url)).write_bytes(body)
    report = backfill_setup.run([url])
    assert (report.plan.flagged, report.downloaded, report.replaced) == (1, 1, 1)
    assert backfill_setup.files() == ["below"]
    assert (below / name_of(url)).read_bytes() == photo(1)


def test_placeholders_in_the_cache_are_wanted_again(backfill_setup: BackfillSetup) -> None:
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(6)]
    fill(backfill_setup.cache, dict.fromkeys(urls, photo(99)))
    report = backfill_setup.run(urls)
    assert (report.plan.cached, report.downloaded, report.replaced) == (0, 6, 6)
    assert all(
        (backfill_setup.cache / name_of(url)).read_bytes() == photo(n) for n, url in enumerate(urls)
    )


def test_a_good_file_that_appears_meanwhile_stays(backfill_setup: BackfillSetup) -> None:
    class Training:
        """Puts the second image into the cache while the first is fetched."""

        def __init__(self) -> None:
            self.done = False

        def __call__(self) -> float:
            if backfill_setup.server.hits and not self.done:
                self.done = True
                fill(backfill_setup.cache, {urls[1]: photo(50)})
            return backfill_setup.time.now

    backfill_setup.server.clock = Training()
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(2)]
    report = backfill_setup.run(urls)
    assert (report.downloaded, report.overtaken, report.left) == (1, 1, 0)
    assert (backfill_setup.cache / name_of(urls[1])).read_bytes() == photo(50)


def test_mirrored_images_are_not_fetched(backfill_setup: BackfillSetup) -> None:
    backfill_setup.bucket = True
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(4)]
    report = backfill_setup.run(urls[:2])
    assert "no mirror" in report.warnings[0]
    sync(backfill_setup.settings)
    for name in backfill_setup.files():
        (backfill_setup.cache / name).unlink()
    backfill_setup.server.hits.clear()
    report = backfill_setup.run(urls, selected(from_empty=True))
    assert (report.plan.mirrored, report.plan.wanted, report.downloaded) == (2, 2, 2)
    aside = BackfillOptions(use_bucket=False, dry_run=True)
    assert backfill_setup.run(urls, aside).plan.mirrored == 0


def test_a_photo_that_is_mirrored_under_another_spelling_need_not_be_fetched(
    backfill_setup: BackfillSetup,
) -> None:
    backfill_setup.bucket = True
    fill(backfill_setup.cache, {url_of(1): photo(1)})
    sync(backfill_setup.settings)
    other = url_of(1).replace("medium.jpg", "medium.jpeg?1545")
    for match, mirrored in (("photo", 1), ("url", 0)):
        options = BackfillOptions(match=match, dry_run=True)  # type: ignore[arg-type]
        assert backfill_setup.run([other], options).plan.mirrored == mirrored


def test_files_of_the_cache_are_judged_once(
    backfill_setup: BackfillSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[int] = []

    def counting(*arguments: Any) -> Any:
        for judged, failures in judge_all(*arguments):
            looked_at.append(len(judged))
            yield judged, failures

    monkeypatch.setattr("mirror.backfill.download_plan.judge_all", counting)
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(20)]
    fill(backfill_setup.cache, {url: photo(n) for n, url in enumerate(urls[:10])})
    backfill_setup.run(urls)
    assert sum(looked_at) == 10
    assert backfill_setup.run(urls).plan.cached == 20
    assert sum(looked_at) == 10  # it knows the files that it wrote
    (backfill_setup.cache / name_of(urls[3])).write_bytes(blank())
    assert backfill_setup.run(urls).replaced == 1
    assert sum(looked_at) == 11


def test_the_rarest_classes_come_first_then_the_order_of_the_dataset(
    backfill_setup: BackfillSetup,
) -> None:
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(7)]
    species = ["oak", "oak", "oak", "fern", "rare", "fern", None]
    dataset = backfill_setup.dataset(urls, species=species)
    backfill_setup.run(dataset, selected(balance=parse_path("species")))
    asked = [hit.path for hit in backfill_setup.server.hits if "photos" in hit.path]
    numbers = [int(path.split("/")[2]) for path in asked]
    assert numbers == [4, 3, 5, 0, 1, 2, 6]


def test_only_allowed_licences_are_fetched(backfill_setup: BackfillSetup) -> None:
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(4)]
    dataset = backfill_setup.dataset(
        [*urls, urls[2]], license=["CC BY-NC", None, "C", "cc0", "cc-by-nc"]
    )
    asked = selected(license=("license",), allowed=frozenset({"cc-by-nc"}))
    report = backfill_setup.run(dataset, asked)
    assert (report.plan.unlicensed, report.plan.wanted, report.downloaded) == (2, 2, 2)
    assert backfill_setup.files() == sorted(name_of(urls[n]) for n in (0, 2))


def test_a_host_that_is_not_on_the_list_is_never_asked(backfill_setup: BackfillSetup) -> None:
    good = backfill_setup.server.photo(1, Image(photo(1)))
    other = good.replace("static.inaturalist.org", "static.inaturalist.org.example.org")
    report = backfill_setup.run([other, good, "ftp://static.inaturalist.org/x", "no address"])
    assert (report.failed["not_allowed"], report.downloaded, report.exit_status) == (3, 1, 3)
    assert "backfill.hosts" in report.warnings[0]


def test_private_addresses_are_not_connected_to(backfill_setup: BackfillSetup) -> None:
    """The names are on the list, but resolve to this machine."""
    backfill_setup.backfill = {
        "allow_private": False,
        "hosts": [f"{HOSTS[0]}:{backfill_setup.server.port}"],
    }
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(3)]
    report = backfill_setup.run(urls, BackfillOptions(seconds=60))
    assert (backfill_setup.server.hits, backfill_setup.files(), report.downloaded) == ([], [], 0)
    assert {kind for _, kind, _ in report.failures} == {"network"}
    assert "not public" in report.failures[0][2]


def test_a_refusal_is_waited_out_and_costs_the_image_nothing(backfill_setup: BackfillSetup) -> None:
    backfill_setup.server.per_hour = 10
    backfill_setup.backfill = {"per_hour": 100}
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(25)]
    report = backfill_setup.run(urls)
    assert (report.downloaded, report.failed_total, report.exit_status) == (25, 0, 0)
    # Each refusal is followed by the pause that it asked for, in seconds or as a date.
    assert 2 <= report.throttled <= 6
    assert {hit.status for hit in backfill_setup.server.hits} == {200, 404, 429}


def test_a_blocked_address_does_not_make_everything_gone(backfill_setup: BackfillSetup) -> None:
    count = MAX_FORBIDDEN + 10
    urls = [backfill_setup.server.photo(n, gone(403)) for n in range(count)]
    backfill_setup.backfill = {"per_hour": 3000}
    report = backfill_setup.run(urls, BackfillOptions(seconds=4 * HOUR))
    assert len(backfill_setup.server.hits) <= MAX_FORBIDDEN + 1
    assert any("blocked" in warning for warning in report.warnings)
    for n in range(count):
        backfill_setup.server.photo(n, Image(photo(n)))
    backfill_setup.time.now += 2 * DAY
    assert backfill_setup.run(urls).downloaded == count


def test_a_source_that_is_down_is_left_alone(backfill_setup: BackfillSetup) -> None:
    urls = [backfill_setup.server.photo(n, gone(503)) for n in range(50)]
    backfill_setup.backfill = {"per_hour": 3000}
    report = backfill_setup.run(urls, BackfillOptions(seconds=24 * HOUR))
    assert report.throttled == len(backfill_setup.server.hits) - 1 < 20
    assert (report.left, report.exit_status) == (50, 0)
    assert "its time would be up" in report.stopped
    for n in range(50):
        backfill_setup.server.photo(n, Image(photo(n)))
    assert backfill_setup.run(urls).downloaded == 50


def test_the_rate_of_robots_txt_is_respected_and_asked_for_once_a_day(
    backfill_setup: BackfillSetup,
) -> None:
    backfill_setup.server.robots = "User-agent: *\nCrawl-delay: 120\n"
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(8)]
    began = backfill_setup.time.now
    backfill_setup.run(urls[:5])
    assert backfill_setup.time.now - began >= 5 * 120
    backfill_setup.run(urls)
    assert [hit.path for hit in backfill_setup.server.hits].count("/robots.txt") == 1
    assert backfill_setup.server.most_requests(119) == 1
    backfill_setup.time.now += DAY
    backfill_setup.run([*urls, backfill_setup.server.photo(9, Image(photo(9)))])
    assert [hit.path for hit in backfill_setup.server.hits].count("/robots.txt") == 2


def test_limits_hold_from_one_run_to_the_next(backfill_setup: BackfillSetup) -> None:
    backfill_setup.backfill = {"per_hour": 10}
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(40)]
    for n in range(8):
        backfill_setup.run(urls[: 5 * n + 5], BackfillOptions(seconds=1200))
    assert backfill_setup.server.most_requests(HOUR) == 10


def test_a_run_that_dies_in_a_request_has_asked_all_the_same(
    backfill_setup: BackfillSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(Exception):
        pass

    def die(_: object) -> None:
        raise Died

    backfill_setup.backfill = {"per_hour": 3}
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(9)]
    with monkeypatch.context() as dying:
        dying.setattr("mirror.backfill.fetch_one.request_outcome", die)
        for _ in range(3):
            with pytest.raises(Died):
                backfill_setup.run(urls)
            backfill_setup.time.now += 60 * 20 - 1
    assert "its time would be up" in backfill_setup.run(urls, BackfillOptions(seconds=10)).stopped
    assert len(backfill_setup.server.hits) == 3
    assert backfill_setup.server.most_requests(HOUR) == 3


STOPS = {
    "time": (BackfillOptions(seconds=HOUR / 2), "time"),
    "bytes": (BackfillOptions(max_bytes=3000), "bytes had come"),
    "images": (BackfillOptions(max_images=3), "3 images were downloaded"),
}


@pytest.mark.parametrize(("options", "why"), STOPS.values(), ids=STOPS)
def test_a_run_ends_at_its_limits(
    backfill_setup: BackfillSetup, options: BackfillOptions, why: str
) -> None:
    backfill_setup.backfill = {"per_hour": 10}
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(20)]
    began = backfill_setup.time.now
    report = backfill_setup.run(urls, options)
    assert why in report.stopped
    assert 0 < report.downloaded < 20
    assert report.downloaded + report.left == 20
    assert report.exit_status == 0
    if options.seconds is not None:
        assert backfill_setup.time.now <= began + options.seconds
    if options.max_bytes is not None:
        assert report.bytes < options.max_bytes + 3000
    assert report.as_json()["eta"] > 0


def test_the_estimate_is_shown_before_any_request(backfill_setup: BackfillSetup) -> None:
    class Listening(Progress):
        def say(self, sentence: str, level: Level = "info") -> None:
            if "To be fetched: " in sentence:
                told.append(
                    (len(backfill_setup.server.hits), sentence.partition("To be fetched: ")[2])
                )

    told: list[tuple[int, str]] = []
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(40)]
    report = backfill_setup.run(urls, BackfillOptions(max_images=1), Listening())
    assert told == [(0, "40 images at 150 an hour are 4 minutes; about 57.6 MB in all.")]
    assert report.estimate is not None


def test_the_estimate_uses_the_sizes_of_mirrored_images(backfill_setup: BackfillSetup) -> None:
    """The mean of the size that a URL names; for another size the mean of all images."""
    backfill_setup.bucket = True
    url = "https://static.inaturalist.org/photos/{}/{}.jpg".format
    small = {url(n, "medium"): photo(n, 40) for n in (1, 2)}
    large = {url(n, "original"): photo(n, 400) for n in (3, 4, 5)}
    fill(backfill_setup.cache, small | large)
    sources = {url_md5(each): RowSource(each) for each in small | large}
    sync(backfill_setup.settings, sources=sources)
    sizes = [len(body) for body in (*small.values(), *large.values())]
    means = {"medium": sum(sizes[:2]) / 2, "original": sum(sizes[2:]) / 3, "square": sum(sizes) / 5}
    for word, mean in means.items():
        wanted = [url(n, word) for n in range(10_000, 11_000)]
        report = backfill_setup.run(wanted, BackfillOptions(dry_run=True))
        assert report.estimate is not None
        assert report.estimate.arithmetic.endswith(f"; {format_size(1000 * mean)} in all.")


def test_a_dry_run_says_its_arithmetic_once(backfill_setup: BackfillSetup) -> None:
    class Listening(Progress):
        def say(self, sentence: str, level: Level = "info") -> None:
            told.append(sentence)

    told: list[str] = []
    url = backfill_setup.server.photo(1, Image(photo(1)))
    report = backfill_setup.run([url], BackfillOptions(dry_run=True), Listening())
    assert report.estimate is not None
    assert not [sentence for sentence in told if report.estimate.arithmetic in sentence]


def test_a_dry_run_requests_and_stores_nothing(backfill_setup: BackfillSetup) -> None:
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(300)]
    fill(backfill_setup.cache, {urls[0]: photo(0)})
    report = backfill_setup.run(urls, BackfillOptions(dry_run=True))
    assert (report.plan.wanted, report.plan.already, report.exit_status) == (299, 1, 0)
    assert (len(backfill_setup.files()), backfill_setup.server.hits) == (1, [])
    assert report.as_json()["eta"] == pytest.approx(269 * 24)


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("contact", [None, "", "  ", "me\r\nX-Evil: 1", "Jürgen", "a(b)"])
def test_a_contact_is_required(
    backfill_setup: BackfillSetup, contact: str | None, dry_run: bool
) -> None:
    backfill_setup.backfill = {"contact": contact}
    options = BackfillOptions(dry_run=dry_run)
    with pytest.raises(ConfigError, match=r"backfill\.contact"):
        backfill_setup.run([backfill_setup.server.photo(1, Image(photo(1)))], options)
    assert backfill_setup.server.hits == []


def test_two_backfills_do_not_run_at_once(backfill_setup: BackfillSetup, tmp_path: Path) -> None:
    url = backfill_setup.server.photo(1, Image(photo(1)))
    backfill_setup.cache.mkdir()
    with backfill_writer(os.fsencode(backfill_setup.cache)), pytest.raises(Busy, match="cache"):
        backfill_setup.run([url])
    with locked(backfill_setup.settings.backfill_dir, "sync"), pytest.raises(Busy):
        backfill_setup.run([url])
    assert backfill_setup.run([url], BackfillOptions(dry_run=True)).plan.wanted == 1
    assert backfill_setup.run([url]).downloaded == 1


def test_a_cache_whose_disk_is_not_mounted_is_not_fetched_again(
    backfill_setup: BackfillSetup,
) -> None:
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(3)]
    backfill_setup.run(urls)
    for name in backfill_setup.files():
        (backfill_setup.cache / name).unlink()
    backfill_setup.server.hits.clear()
    with pytest.raises(CacheError, match="mounted"):
        backfill_setup.run(urls)
    assert backfill_setup.server.hits == []
    assert backfill_setup.run(urls, selected(from_empty=True)).downloaded == 3


def test_a_cache_that_cannot_be_written_ends_the_run_and_blames_no_image(
    backfill_setup: BackfillSetup,
) -> None:
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(3)]
    (backfill_setup.cache / name_of(urls[0])).mkdir(
        parents=True
    )  # something that must not be replaced
    report = backfill_setup.run(urls)
    assert (report.downloaded, report.failed["unreadable"]) == (2, 1)


def test_part_files_of_a_killed_run_are_removed(backfill_setup: BackfillSetup) -> None:
    url = backfill_setup.server.photo(1, Image(photo(1)))
    backfill_setup.cache.mkdir()
    (backfill_setup.cache / ".backfill-0123456789abcdef.tmp").write_bytes(b"half")
    (backfill_setup.cache / ".mirror-0123456789ab.tmp").write_bytes(b"somebody else's")
    backfill_setup.run([url])
    assert backfill_setup.files() == [".mirror-0123456789ab.tmp", name_of(url)]


def test_every_attempt_is_in_the_request_log(backfill_setup: BackfillSetup) -> None:
    urls = [
        backfill_setup.server.photo(1, Image(photo(1))),
        backfill_setup.server.photo(2, gone(404)),
    ]
    urls.append(backfill_setup.server.photo(3, gone(500)))
    backfill_setup.run(urls, BackfillOptions(seconds=20))
    with sqlite3.connect(backfill_setup.settings.backfill_dir / "ledger.sqlite") as db:
        rows = db.execute(
            "SELECT state, attempts, status, kind, next_try FROM urls ORDER BY url"
        ).fetchall()
        runs = db.execute("SELECT count(*) FROM runs").fetchone()[0]
    db.close()
    assert rows[0][:4] == ("had", 1, 200, "had")
    assert rows[1][:4] == ("gone", 1, 404, "gone")
    assert rows[2][:4] == ("waiting", 2, 500, "server_error")
    assert rows[2][4] > backfill_setup.time.now
    assert runs == 1


def test_a_damaged_request_log_is_reported(backfill_setup: BackfillSetup) -> None:
    url = backfill_setup.server.photo(1, Image(photo(1)))
    backfill_setup.run([url])
    path = backfill_setup.settings.backfill_dir / "ledger.sqlite"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StateDamaged, match="wait a day"):
        backfill_setup.run([url])


def test_a_dataset_without_urls_is_reported(backfill_setup: BackfillSetup) -> None:
    path = backfill_setup.folder / "dataset.jsonl"
    path.write_text('{"url": "x"}\n{"url": "y"}\n')
    with pytest.raises(UsageError, match="--url-field"):
        backfill_setup.run(Input(str(path)))


def test_known_bad_contents_are_placeholders(backfill_setup: BackfillSetup) -> None:
    url = backfill_setup.server.photo(1, Image(photo(1)))
    assert backfill_setup.run([url]).downloaded == 1
    listed = backfill_setup.folder / "known_bad.txt"
    listed.write_text(digest_of(photo(1)).sha256.hex())
    backfill_setup.inspect = {"known_bad": str(listed)}
    report = backfill_setup.run([url])
    assert (report.plan.cached, report.failed["placeholder"]) == (0, 1)


def test_a_large_photograph_is_kept(backfill_setup: BackfillSetup) -> None:
    body = encoded(Pillow.open(io.BytesIO(photo(3))).resize((2000, 1500)), 95)
    url = backfill_setup.server.photo(1, Image(body))
    assert backfill_setup.run([url]).downloaded == 1
    assert (backfill_setup.cache / name_of(url)).read_bytes() == body


def test_several_connections_hold_the_limits_too(backfill_setup: BackfillSetup) -> None:
    backfill_setup.backfill = {"concurrency": 4, "per_second": 10.0, "per_hour": 100}
    urls = [backfill_setup.server.photo(n, Image(photo(n))) for n in range(150)]
    report = backfill_setup.run(urls)
    assert (report.downloaded, report.error) == (150, None)
    assert backfill_setup.server.most_requests(HOUR) <= 100
    assert backfill_setup.server.most_requests(1) <= 10
