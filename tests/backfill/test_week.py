"""A simulated week of runs, judged by what a server that plays iNaturalist has seen.

Time is virtual, the server and its clock are not the client's: limits are counted by the server.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from typing import Any

from mirror.backfill.pacing import DAY, HOUR
from mirror.backfill.run_backfill import BackfillOptions
from mirror.content.image import inspect
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
from tests.backfill.test_backfill import png
from tests.support.photos import blank, fill, name_of, photo

LIMITS: dict[str, Any] = {
    "per_hour": 12,
    "per_day": 200,
    "per_second": 0.5,
    "max_size": "30K",
    # A request reserves a megabyte for bytes in transit, and a broken-off answer costs that much.
    "bytes_per_hour": "1.09M",
    "bytes_per_day": "6M",
}
# The server is stricter than its published limits: it refuses sooner.
PORTER = 9


@dataclass
class World:
    """The photos of the week, those that can be downloaded and those that cannot."""

    scene: Scene
    good: dict[str, bytes] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    number: int = 0

    def put(self, answer: Any, to: list[str] | None = None) -> str:
        """Add a photo; it can be downloaded unless it belongs to a list of others."""
        self.number += 1
        host = HOSTS[self.number % 2]
        url = self.scene.server.photo(self.number, answer, host)
        if to is None:
            while isinstance(answer, First):
                answer = answer.then
            self.good[url] = answer.body
        else:
            to.append(url)
        return url

    def fill(self) -> list[str]:
        """The dataset's URLs."""
        body = photo(0)
        for seed in range(1, 240):
            self.put(Image(photo(seed)))
        for status in (403, 404, 410, 451) * 6:
            self.put(gone(status), self.gone)
        for _ in range(9):  # a replacement picture
            self.put(Image(banner()), self.gone)
        for seed, passing in enumerate(
            [
                Reset(), Reset(body), Stall(), gone(500), gone(502), html(), Image(body[:-99]),
                Image(body, length=9999), Image(blank()), Image(b""), Endless(100, 504),
            ]
        ):  # fmt: skip
            self.put(First(1 + seed % 2, passing, Image(photo(1000 + seed))))
        lasting = [
            html(), Image(blank()), Image(body[:-99]), Endless(200_000),
            Image(body + bytes(99_000)), redirect("medium.jpg"), Reset(),
            redirect("http://192.168.0.1/x.jpg"), redirect("https://evil.example.org/x.jpg"),
            Image(gzip.compress(bytes(10**6)), headers=("Content-Encoding: gzip",)),
        ]  # fmt: skip
        for answer in lasting:
            self.put(answer, self.bad)
        self.put(Image(png(), content_type="image/png"), self.gone)
        self.put(redirect("/login"), self.gone)
        target = self.put(Image(photo(2000)))
        self.put(First(0, None, Image(photo(2000))))  # the same photograph for another photo: once
        moved = self.put(Image(photo(2000)), [])
        self.scene.server.photo(self.number, redirect(target))
        self.good[moved] = photo(2000)
        urls = [*self.good, *self.gone, *self.bad]
        # Mixed in the same way on every run: every seventh, and so on.
        return [urls[at] for begin in range(7) for at in range(begin, len(urls), 7)]


def banner() -> bytes:
    """The replacement picture: a good JPEG, but not a photograph."""
    return photo(987_654, side=32)


def test_a_week_exceeds_no_limit_loses_nothing_and_asks_for_nothing_twice(scene: Scene) -> None:
    scene.backfill = dict(LIMITS)
    scene.server.per_hour = PORTER
    scene.bucket = True
    world = World(scene)
    urls = world.fill()
    before = {urls[3]: blank(), urls[5]: b"", urls[8]: photo(5000)}
    fill(scene.cache, before)
    began = scene.time.now
    runs = 0
    while scene.time.now < began + 7 * DAY:
        report = scene.run(urls, BackfillOptions(seconds=[5 * HOUR, HOUR / 2, 20 * HOUR][runs % 3]))
        assert report.error is None
        scene.time.now += [HOUR, 7.0, 3 * HOUR][runs % 3]
        runs += 1
    report = scene.run(urls, BackfillOptions(seconds=1))

    server = scene.server
    assert server.most_requests(2) <= 1
    assert server.most_requests(HOUR) <= LIMITS["per_hour"]
    assert server.most_requests(DAY) <= LIMITS["per_day"]
    assert server.most_bytes(HOUR) <= 1_090_000
    assert server.most_bytes(DAY) <= 6_000_000
    refused = sum(hit.status == 429 for hit in server.hits)
    assert 0 < refused < len(server.hits) / 10

    had = world.good.keys() | {urls[8]}
    assert {url for url in urls if scene.has(url)} == had
    assert scene.files() == sorted(map(name_of, had))
    for url, body in world.good.items():
        expected = before[url] if url == urls[8] else body
        assert (scene.cache / name_of(url)).read_bytes() == expected
    assert all(server.times_asked(url) == 1 for url in world.gone)
    # Four attempts, or eight. A redirect loop takes six requests, or fewer and a refusal.
    assert max(server.times_asked(url) for url in world.bad) <= 4 * 6 + 5 * refused
    assert (report.left, report.plan.gone) == (0, len(world.gone))
    assert report.plan.given_up + report.failed_total == len(world.bad)

    asked = len(server.hits)
    assert (scene.run(urls).exit_status, len(server.hits)) == (0, asked)
    synced = sync(scene.settings)
    assert (synced.failed, synced.flagged_total, synced.scanned) == (0, 0, len(had))
    assert scene.run(urls).plan.mirrored == len(had)


def test_every_file_was_good_at_every_moment(scene: Scene) -> None:
    """A reader of the cache never meets a partial or bad file while it is being filled."""
    seen: list[str] = []

    class Watching:
        def __call__(self) -> float:
            here = scene.cache.glob("*.jpg")
            seen.extend(inspect(path.read_bytes()).verdict for path in here)
            return scene.time.now

    scene.server.clock = Watching()
    body = photo(1)
    bad: list[Any] = [
        Image(body[:-50]),
        Reset(body),
        html(),
        Image(blank()),
        Image(body, length=10**4),
    ]
    urls = [scene.server.photo(n, answer) for n, answer in enumerate(bad)]
    urls += [scene.server.photo(100 + n, Image(photo(n))) for n in range(10)]
    scene.run(urls, BackfillOptions(seconds=HOUR))
    assert len(scene.files()) == 10
    assert set(seen) == {"ok"}


def test_the_banner_is_no_bad_image_by_itself() -> None:
    assert inspect(banner()).verdict == "ok"
