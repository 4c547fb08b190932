"""Redirects: the source that answers last is paced and remembered, and no name is mistaken."""

from __future__ import annotations

import pytest

from mirror.backfill.answers import redirect_outcome
from mirror.backfill.pacing import COOL_DOWN, DAY, HOUR, MAX_FAILURES, MAX_FORBIDDEN
from mirror.backfill.request_log import RequestLog
from mirror.backfill.run_backfill import BackfillOptions
from tests.backfill.backfill_setup import Scene
from tests.backfill.fake_inaturalist import HOSTS, Answer, First, Image, gone, redirect
from tests.support.photos import photo

CDN = "cdn.example.org"
FAST = {"per_second": 100.0, "per_hour": 100_000, "per_day": 1_000_000}


def moved(scene: Scene, number: int, host: str, answer: Answer) -> str:
    """The URL of a photo that is redirected to another, at this host."""
    there = scene.server.photo(10_000 + number, answer, host)
    return scene.server.photo(number, redirect(there))


@pytest.mark.parametrize("host", [HOSTS[1], CDN], ids=["same source", "another source"])
def test_a_block_behind_redirects_does_not_make_everything_gone(scene: Scene, host: str) -> None:
    scene.backfill = {**FAST, "hosts": [*HOSTS, CDN]}
    count = MAX_FORBIDDEN + 30
    urls = [moved(scene, n, host, gone(403)) for n in range(count)]
    report = scene.run(urls, BackfillOptions(seconds=HOUR))
    assert sum(hit.status == 403 for hit in scene.server.hits) == MAX_FORBIDDEN
    assert any("blocked" in warning for warning in report.warnings)
    for n in range(count):
        moved(scene, n, host, Image(photo(n)))
    scene.time.now += 2 * DAY
    assert scene.run(urls).downloaded == count


def test_failures_behind_redirects_open_the_breaker(scene: Scene) -> None:
    scene.backfill = FAST
    urls = [moved(scene, n, HOSTS[1], gone(500)) for n in range(20)]
    scene.run(urls, BackfillOptions(seconds=COOL_DOWN / 2))
    assert sum(hit.status == 500 for hit in scene.server.hits) == MAX_FAILURES


def test_the_pause_that_a_redirects_target_asked_for_outlasts_the_run(scene: Scene) -> None:
    scene.backfill = {"hosts": [*HOSTS, CDN]}
    slow = Image(b"slow", 429, "text/plain", headers=("Retry-After: 36000",))
    url = moved(scene, 1, CDN, First(1, slow, Image(photo(1))))
    for _ in range(5):
        scene.run([url], BackfillOptions(seconds=60))
        scene.time.now += HOUR
    assert [hit.status for hit in scene.server.hits if hit.host.startswith(CDN)] == [404, 429]
    scene.time.now += 5 * HOUR
    assert scene.run([url]).downloaded == 1


def test_a_source_that_only_redirects_recovers_from_a_refusal(scene: Scene) -> None:
    scene.backfill = {**FAST, "hosts": [*HOSTS, CDN]}
    urls = [moved(scene, n, CDN, Image(photo(n))) for n in range(60)]
    there = scene.server.answers["/photos/1/medium.jpg"]
    scene.server.answers["/photos/1/medium.jpg"] = First(1, gone(503), there)
    assert scene.run(urls).downloaded == 60
    assert [hit.status for hit in scene.server.hits].count(503) == 1
    ledger = RequestLog(scene.settings.backfill_dir, b"")
    assert ledger.paces()["inaturalist"]["factor"] == 1
    ledger.close()


@pytest.mark.parametrize(
    "location",
    [
        "/login",
        "/Users/sign_in?next=%2Fphotos%2F1",
        "/session/new",
        "/attachment_defaults/local_photos/medium.png",
        "/assets/copyright-infringement-large-9b9e.png",
        "/copyright.html",
        "/photos/removed.png",
        "/missing.jpg",
        "/images/placeholder.gif",
    ],
)
def test_a_name_that_says_that_it_is_no_image(location: str) -> None:
    fate = redirect_outcome(location, "/photos/1/medium.jpg")
    assert fate is not None
    assert fate.kind == "placeholder"
    assert location[:20] in fate.reason


@pytest.mark.parametrize(
    "location",
    [
        "/photos/quercus_suber_bark_removed.jpg",
        "/wiki/Missing_petal.jpg",
        "/catalog-information/1.jpg",
        "/design-inspiration/7.jpg",
        "/2019/analogInput.jpg",
        "/blog-in-bloom/rose.jpg",
        "/photos/1/medium.jpg?login_hint=x",
        "/photos/1/medium.jpg?next=/login",
        "/sessions-of-2019/1.jpg",
        "/",
        "",
    ],
)
def test_a_name_that_only_holds_such_a_word_is_followed(location: str) -> None:
    assert redirect_outcome(location, "/photos/1/medium.jpg") is None


@pytest.mark.parametrize("path", ["/missing/1.jpg", "/photos/Removed.jpg", "/copyright/rose.jpg"])
def test_words_of_the_requested_path_are_ignored(path: str) -> None:
    assert redirect_outcome(f"/cdn{path.lower()}?v=2", path) is None
    assert redirect_outcome("/login", path) is not None


def test_a_photo_that_is_redirected_to_another_version_of_itself_is_had(scene: Scene) -> None:
    path = "/photos/missing/bark_removed.jpg"
    scene.server.answers[path] = redirect(f"{path}?v=2")
    scene.server.answers[f"{path}?v=2"] = Image(photo(3))
    report = scene.run([f"http://{HOSTS[0]}:{scene.server.port}{path}"])
    assert (report.downloaded, report.failed_total) == (1, 0)
