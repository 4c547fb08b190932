"""`mirror fetch` and `mirror prefetch`, as they are called."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mirror.content.digest import digest_of
from tests.conftest import MakePlace
from tests.support.fetch_setup import BLANK, UNKNOWN, key_of, mirrored
from tests.support.photos import name_of, photo, url_of

NUMBERS = range(12)


@pytest.fixture
def home(make_place: MakePlace, tmp_path: Path) -> Path:
    """A folder with a mirror, its configuration, and a dataset that names what is in it."""
    settings = mirrored(make_place("file"), tmp_path, NUMBERS)
    (tmp_path / "mirror.toml").write_text(
        f'[bucket]\nurl = "{settings.bucket.url}"\n[state]\ndir = "{settings.state.dir}"\n'
        '[fetch]\ncache_dir = "fetch"\n'
    )
    dataset(tmp_path / "good.jsonl", *NUMBERS)
    dataset(tmp_path / "some.jsonl", *NUMBERS, BLANK, UNKNOWN)
    return tmp_path


def dataset(path: Path, *numbers: int, field: str = "image_url") -> None:
    path.write_text("".join(json.dumps({field: url_of(n), "n": n}) + "\n" for n in numbers))


def run(home: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "mirror", *arguments], cwd=home, capture_output=True, check=False
    )
    assert done.returncode == status, (done.stdout, done.stderr)
    return done


def report(home: Path, *arguments: str, status: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(home, *arguments, "--json", status=status).stdout)
    return found


# --- fetch ---


def test_fetch_writes_images_under_the_names_that_a_cache_has(home: Path) -> None:
    urls = [url_of(1), url_of(2), digest_of(photo(3)).content_hash.hex()]
    found = report(home, "fetch", *urls, "-o", "photos/new")
    assert (found["fetched"], found["missing"], found["failed"]) == (3, 0, 0)
    assert found["bytes"] == sum(len(photo(n)) for n in (1, 2, 3))
    photos = home / "photos" / "new"
    assert (photos / name_of(url_of(1))).read_bytes() == photo(1)
    assert (photos / name_of(urls[2])).read_bytes() == photo(3)
    assert sorted(found["written"]) == sorted(f"photos/new/{name_of(url)}" for url in urls)


def test_fetch_writes_one_image_to_standard_output(home: Path) -> None:
    assert run(home, "fetch", url_of(1), "-o", "-").stdout == photo(1)
    run(home, "fetch", url_of(1), url_of(2), "-o", "-", status=2)
    run(home, "fetch", url_of(1), "-o", "-", "--json", status=2)
    assert run(home, "fetch", url_of(UNKNOWN), "-o", "-", status=1).stdout == b""


def test_fetch_lists_what_it_has_not(home: Path) -> None:
    urls = [url_of(1), url_of(BLANK), url_of(UNKNOWN)]
    found = report(home, "fetch", *urls, status=3)
    assert (found["fetched"], found["missing"]) == (1, 2)
    assert found["failures"] == [
        {"url": url_of(BLANK), "reason": "flagged: blank"},
        {"url": url_of(UNKNOWN), "reason": "not in the mirror"},
    ]
    said = run(home, "fetch", *urls, status=3)
    assert url_of(UNKNOWN) in said.stderr.decode()
    assert b"missing" in said.stdout


def test_fetch_takes_a_name_that_is_no_utf8(home: Path) -> None:
    found = report(home, "fetch", "http://x/\udcff", url_of(1), "--json", status=3)
    assert (found["fetched"], found["missing"]) == (1, 1)
    assert found["failures"] == [{"url": r"http://x/\udcff", "reason": "not in the mirror"}]


def test_fetch_says_that_an_object_is_damaged(home: Path) -> None:
    (home / "mirror" / key_of(1)).write_bytes(photo(2))
    found = report(home, "fetch", url_of(1), url_of(2), status=3)
    assert (found["fetched"], found["failed"]) == (1, 1)
    assert "mirror repair" in found["failures"][0]["reason"]


def test_fetch_needs_a_mirror(home: Path) -> None:
    done = run(home, "fetch", url_of(1), "--bucket", f"file://{home}/none", status=1)
    assert b"There is no mirror" in done.stderr


def test_fetch_refuses_inaturalist_as_a_mirror(home: Path) -> None:
    done = run(home, "fetch", url_of(1), "--public-url", url_of(1), status=78)
    assert b"never reads" in done.stderr
    assert b"Traceback" not in done.stderr


# --- prefetch ---


def test_prefetch_warms_the_cache_and_does_it_once(home: Path) -> None:
    found = report(home, "prefetch", "good.jsonl")
    assert (found["urls"], found["fetched"], found["cached"], found["missing"]) == (12, 12, 0, 0)
    assert found["bytes"] == sum(len(photo(n)) for n in NUMBERS)
    (home / "mirror").rename(home / "gone")
    offline = report(home, "prefetch", "good.jsonl", "--offline")
    assert (offline["cached"], offline["fetched"], offline["missing"]) == (12, 0, 0)
    (home / "gone").rename(home / "mirror")
    again = report(home, "prefetch", "good.jsonl")
    assert (again["cached"], again["fetched"], again["bytes"]) == (12, 0, 0)
    assert again["from_cache"] == 0


def test_prefetch_lists_what_the_mirror_has_not_and_fetches_the_rest(home: Path) -> None:
    found = report(home, "prefetch", "some.jsonl", "--lacking", "lacking.txt", status=3)
    assert (found["fetched"], found["missing"]) == (12, 2)
    assert (found["flagged"], found["not_mirrored"]) == (1, 1)
    assert {one["url"] for one in found["failures"]} == {url_of(BLANK), url_of(UNKNOWN)}
    lacking = (home / "lacking.txt").read_text().splitlines()
    assert sorted(lacking) == sorted([url_of(BLANK), url_of(UNKNOWN)])


def test_offline_fails_before_the_work_with_what_is_missing(home: Path) -> None:
    dataset(home / "half.jsonl", *range(6))
    report(home, "prefetch", "half.jsonl")
    found = report(home, "prefetch", "good.jsonl", "--offline", status=3)
    assert (found["cached"], found["missing"], found["fetched"]) == (6, 6, 0)
    assert {one["url"] for one in found["failures"]} == {url_of(n) for n in range(6, 12)}


def test_check_fetches_nothing(home: Path) -> None:
    found = report(home, "prefetch", "some.jsonl", "--check", status=3)
    assert (found["missing"], found["absent"], found["fetched"]) == (14, 12, 0)
    assert not [path for path in (home / "fetch").rglob("*") if len(path.name) == 32]


def test_prefetch_stops_fetching_when_the_cache_is_full(home: Path) -> None:
    found = report(home, "prefetch", "good.jsonl", "--cache-bytes", "5K")
    assert found["no_room"] > 0
    assert found["fetched"] + found["no_room"] >= 12
    kept = [path for path in (home / "fetch" / "objects").rglob("*") if path.is_file()]
    assert 1 <= len(kept) <= 5
    assert b"cache is full" in run(home, "prefetch", "good.jsonl", "--cache-bytes", "5K").stdout


def test_prefetch_counts_what_is_there_before_it_calls_a_cache_full(home: Path) -> None:
    """Its files may be deleted at any time, and by anybody."""
    dataset(home / "a.jsonl", *range(6))
    dataset(home / "b.jsonl", *range(6, 12))
    room = max(sum(len(photo(n)) for n in part) for part in (range(6), range(6, 12)))
    assert report(home, "prefetch", "a.jsonl", "--cache-bytes", str(room))["no_room"] == 0
    for path in (home / "fetch" / "objects").iterdir():
        shutil.rmtree(path)
    found = report(home, "prefetch", "b.jsonl", "--cache-bytes", str(room))
    assert (found["fetched"], found["no_room"]) == (6, 0)
    assert report(home, "prefetch", "b.jsonl", "--offline")["cached"] == 6


def test_what_there_was_no_room_for_is_listed_and_what_is_no_url_is_not(home: Path) -> None:
    with (home / "good.jsonl").open("a") as file:
        file.write('{"n": 1}\n')
    limits = ("--cache-bytes", "5K", "--lacking", "lacking.txt")
    found = report(home, "prefetch", "good.jsonl", *limits, status=3)
    assert found["invalid"] == 1
    lacking = (home / "lacking.txt").read_text().splitlines()
    assert len(lacking) == found["no_room"] > 0
    again = report(home, "prefetch", "good.jsonl", "--offline", status=3)
    absent = {one["url"] for one in again["failures"] if one["url"].startswith("http")}
    assert set(lacking) == absent


def test_prefetch_counts_a_urls_record_that_is_none(home: Path) -> None:
    with (home / "good.jsonl").open("a") as file:
        file.write('{"n": 1}\nnot JSON\n')
    found = report(home, "prefetch", "good.jsonl", status=3)
    assert (found["fetched"], found["invalid"]) == (12, 2)


def test_prefetch_takes_several_datasets_and_any_field(home: Path) -> None:
    dataset(home / "other.jsonl", 1, 2, field="url")
    found = report(home, "prefetch", "other.jsonl", "other.jsonl", "--url-field", "url")
    assert (found["urls"], found["fetched"] + found["cached"]) == (4, 4)


def test_prefetch_takes_a_cache_that_is_there_for_what_it_is(home: Path) -> None:
    found = report(home, "prefetch", "good.jsonl", "--cache", "cache")
    assert (found["cached"], found["from_cache"], found["fetched"]) == (12, 12, 0)


def test_prefetch_needs_somewhere_to_keep_images(home: Path) -> None:
    text = (home / "mirror.toml").read_text()
    (home / "mirror.toml").write_text(text.partition("[fetch]")[0])
    done = run(home, "prefetch", "good.jsonl", status=78)
    assert b"fetch.cache_dir" in done.stderr
    report(home, "prefetch", "good.jsonl", "--check", status=3)


def test_prefetch_says_which_dataset_is_not_there(home: Path) -> None:
    assert b"none.jsonl" in run(home, "prefetch", "none.jsonl", status=2).stderr
