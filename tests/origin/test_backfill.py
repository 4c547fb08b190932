"""`mirror backfill`: what is wanted is fetched, what is bad is not kept, and nobody is asked twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.origin.inaturalist import INaturalist, Image
from tests.origin.scene import Scene, VirtualTime
from tests.photos import name_of, photo


@pytest.fixture
def scene(tmp_path: Path, clean_environment: None) -> Iterator[Scene]:
    time = VirtualTime()
    with INaturalist(time) as server:
        yield Scene(tmp_path, server, time)


def test_what_the_cache_lacks_is_fetched(scene: Scene) -> None:
    urls = [scene.server.photo(n, Image(photo(n))) for n in range(5)]
    report = scene.run(urls)
    assert report.error is None
    assert report.as_json()["downloaded"] == 5
    assert scene.files() == sorted(map(name_of, urls))
    assert report.exit_status == 0
