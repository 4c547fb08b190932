"""A machine for the doctor to examine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mirror.config.settings import Settings
from mirror.diagnosis.doctor import DoctorOptions, examine
from mirror.diagnosis.finding import Finding
from mirror.store.base import list_all
from mirror.sync.run_sync import sync
from tests.conftest import Place
from tests.support.fault_proxy import Fault, FaultProxy, Request
from tests.support.photos import fill, photo, url_of

LINES = [
    "credentials", "endpoint", "bucket", "region", "clock", "list", "write", "read",
    "if-none-match", "if-match", "checksum", "pages", "latency", "delete", "engine", "format",
    "public_url", "cache", "state",
]  # fmt: skip


class DoctorSetup:
    """A machine to examine: a cache, a place for its mirror, a state folder."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place = place
        self.folder = folder
        self.bucket: dict[str, Any] = {}
        self.slept: list[float] = []
        self.cache = folder / "cache"
        fill(self.cache, {url_of(n): photo(n) for n in range(3)})

    def settings(self) -> Settings:
        place = Place(self.place.name, self.place.layer | self.bucket)
        state = {"dir": str(self.folder / "state")}
        return place.settings(cache={"dir": str(self.cache)}, state=state)

    def sync(self) -> None:
        assert sync(self.settings()).uploaded == 3

    def found(self, **options: Any) -> dict[str, Finding]:
        options = {"sleep": self.slept.append} | options
        found = list(examine(self.settings(), DoctorOptions(**options)))
        names = [finding.name for finding in found]
        assert len(set(names)) == len(names)
        for finding in found:
            assert bool(finding.fix) == (finding.status in ("warn", "fail")), finding
        return {finding.name: finding for finding in found}

    def probes(self) -> list[str]:
        async def read() -> list[str]:
            store = self.place.open()
            try:
                return [info.key async for info in list_all(store, "doctor/")]
            finally:
                await store.aclose()

        return asyncio.run(read())


MakeSetup = Callable[[str], DoctorSetup]


def statuses(found: Mapping[str, Finding], status: str) -> list[str]:
    return [name for name, finding in found.items() if finding.status == status]


@contextmanager
def proxied(setup: DoctorSetup, rule: Callable[[Request], Fault | None]) -> Iterator[FaultProxy]:
    """The bucket's server behind a proxy that answers by `rule`."""
    with FaultProxy(setup.place.layer["endpoint"], rule) as proxy:
        setup.bucket["endpoint"] = proxy.endpoint
        yield proxy
