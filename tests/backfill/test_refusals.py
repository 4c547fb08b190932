"""A URL that its source always refuses does not hold up the others, and is given up in the end."""

from __future__ import annotations

import itertools

import pytest

from mirror.backfill.pacing import DAY, HOUR
from mirror.backfill.run_backfill import BackfillOptions
from tests.backfill.backfill_setup import Scene
from tests.backfill.fake_inaturalist import Image, gone
from tests.support.photos import photo

# The answer, and the pause in seconds that it causes.
REFUSAL_STATUSES = {
    "503": (gone(503), 5),
    "429": (Image(b"", 429, "text/plain", headers=("Retry-After: 3600",)), 3600),
    "403": (Image(b"", 403, "text/plain", headers=("Retry-After: 3600",)), 3600),
}


@pytest.mark.parametrize(("refusal", "pause"), REFUSAL_STATUSES.values(), ids=REFUSAL_STATUSES)
def test_urls_that_are_always_refused_do_not_hold_up_the_others(
    scene: Scene, refusal: Image, pause: float
) -> None:
    refused = [scene.server.photo(n, refusal) for n in range(2)]
    good = [scene.server.photo(n, Image(photo(n))) for n in range(2, 22)]
    report = scene.run([*refused, *good], BackfillOptions(seconds=7 * DAY))
    assert (report.downloaded, report.failed["server_error"], report.left) == (20, 2, 0)
    assert report.exit_status == 3
    assert report.next_try == pytest.approx(DAY, rel=0.1)
    assert [scene.server.times_asked(url) for url in refused] == [2, 2]
    # Each refusal is followed by its pause, whichever URL is next.
    hits = itertools.pairwise(scene.server.hits)
    assert min(then.at - hit.at for hit, then in hits if hit.status == refusal.status) >= pause
    for _ in range(10):
        scene.time.now += DAY
        report = scene.run([*refused, *good], BackfillOptions(seconds=DAY))
    assert [scene.server.times_asked(url) for url in refused] == [9, 9]
    assert (report.plan.given_up, report.requests) == (2, 0)


def test_a_run_does_not_begin_with_what_was_refused_before(scene: Scene) -> None:
    refused = scene.server.photo(1, Image(b"", 429, headers=("Retry-After: 36000",)))
    good = [scene.server.photo(n, Image(photo(n))) for n in range(2, 5)]
    night = BackfillOptions(seconds=8 * HOUR)
    assert scene.run([refused, *good], night).downloaded == 0
    scene.time.now += 16 * HOUR
    assert scene.run([refused, *good], night).downloaded == 3


def test_a_source_that_refuses_the_only_one_left_is_not_asked_for_ever(scene: Scene) -> None:
    good = scene.server.photo(1, Image(photo(1)))
    refused = scene.server.photo(2, gone(503))
    report = scene.run([good, refused], BackfillOptions(seconds=30 * DAY))
    assert (report.downloaded, report.failed["server_error"], report.exit_status) == (1, 1, 3)
    assert scene.server.times_asked(refused) == 2
    scene.server.photo(2, Image(photo(2)))
    scene.time.now += DAY
    assert scene.run([good, refused]).downloaded == 1
