"""A cache, a place for its mirror, and a proxy between them that tests control."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mirror.config.settings import Settings
from mirror.sync.run_sync import SyncOptions, sync
from mirror.sync.sync_report import SyncReport
from tests.conftest import Place
from tests.support import invariants
from tests.support.fault_proxy import FaultProxy, Request, Rule
from tests.support.mirror_process import changed_nothing, completed
from tests.support.mirror_setup import SOON
from tests.support.photos import blank, fill, photo, url_of

CONCURRENCY = 8


@dataclass
class Scene:
    """A cache, a state, an empty place for the mirror, and a proxy that sees every request."""

    place: Place
    proxy: FaultProxy
    folder: Path
    images: dict[str, bytes] = field(default_factory=dict)
    flagged: dict[str, bytes] = field(default_factory=dict)

    @property
    def where(self) -> tuple[Place, str, Path, Path]:
        """The positional arguments of `started` and `completed`."""
        return self.place, self.proxy.endpoint, self.folder / "cache", self.folder / "state"

    def fill_cache(self, count: int) -> None:
        """Fill the cache with photographs, a fifth of them with two URLs, and two blank frames."""
        self.images = {url_of(number): photo(number) for number in range(count)}
        self.images |= {url_of(100_000 + number): photo(number) for number in range(count // 5)}
        self.flagged = {url_of(200_000 + n): blank(64 + n) for n in range(2)}
        fill(self.folder / "cache", {**self.images, **self.flagged})

    def settings(self, commit_rows: int) -> Settings:
        return self.place.settings(
            cache={"dir": str(self.folder / "cache")},
            state={"dir": str(self.folder / "state")},
            bucket={"endpoint": self.proxy.endpoint},
            sync={"concurrency": CONCURRENCY, "commit_rows": commit_rows},
        )

    def sync(self, rule: Rule | None = None, commit_rows: int = 25) -> SyncReport:
        """Run a sync in this process, while `rule` controls the network."""
        self.proxy.rule = rule
        try:
            return sync(self.settings(commit_rows), SyncOptions(retry=SOON))
        finally:
            self.proxy.rule = None

    def check(self) -> invariants.Mirrored:
        """Check the promise that holds at any moment."""
        mirrored = invariants.read(self.place)
        invariants.promise_kept(mirrored)
        invariants.state_is_behind(self.folder / "state", mirrored, self.folder)
        return mirrored

    def is_complete(self) -> None:
        """Check a run that completed."""
        invariants.complete(self.check(), self.images, self.flagged)

    def nothing_is_left(self) -> None:
        """Check a run that completed, and that another run has nothing to do."""
        self.is_complete()
        assert changed_nothing(completed(*self.where))

    def objects_put(self) -> list[str]:
        """The names of objects that got a PUT."""
        return [
            path.rpartition("/")[2]
            for method, path in list(self.proxy.requests)
            if method == "PUT" and "/objects/" in path
        ]


@contextmanager
def scene_at(place: Place, folder: Path) -> Iterator[Scene]:
    """A setup whose mirror is on a server."""
    assert place.server is not None
    with FaultProxy(place.server.endpoint) as proxy:
        yield Scene(place, proxy, folder)


def writes_object(request: Request) -> bool:
    return request.operation == "put" and "/objects/" in request.path


def commits(request: Request) -> bool:
    return request.operation == "put" and "/_delta_log/" in request.path
