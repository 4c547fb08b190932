"""Inspection of a cache: a verdict for each file, and placeholders once all are counted."""

from __future__ import annotations

import csv
import io
import os
import random
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.cache import prepare
from mirror.cache.scan import Entry, ScanCount, walk
from mirror.content.digest import Identity, digest_of
from mirror.content.image import Level
from mirror.errors import CacheError, StateError
from mirror.inspection import inspect_cache
from mirror.inspection.csv_report import COLUMNS, write_csv
from mirror.inspection.inspect_cache import shown
from mirror.system.display_text import printable
from tests.cli.test_bad_input import OBEYING
from tests.support.damaged_caches import inspected, judged, make, put
from tests.support.photos import blank, encoded, fill, name_of, photo, url_of
from tests.support.progress_hooks import Advances


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_every_file_gets_its_verdict(cache: Path) -> None:
    expected = make(cache)
    with inspected(cache) as findings:
        found = {os.fsdecode(one.path): one.verdict for one in findings.files()}
        assert found == expected
        assert findings.counts == {
            "ok": 10, "blank": 3, "corrupt": 2, "not_image": 4, "placeholder": 6
        }  # fmt: skip
        assert (findings.checked, findings.flagged, findings.ignored) == (25, 15, 1)
        assert findings.bytes == sum((cache / name).stat().st_size for name in expected)
        assert findings.failures == []


def test_the_facts_about_a_file(cache: Path) -> None:
    path = put(cache, 1, photo(1, side=60), "sub/folder")
    one = judged(cache)[os.fsdecode(path)]
    digest = digest_of(photo(1, side=60))
    assert (one.size, one.format, one.width, one.height) == (digest.size, "jpeg", 60, 60)
    assert (one.content_hash, one.sha256) == (digest.content_hash, digest.sha256)
    assert (one.verdict, one.reason) == ("ok", "")


@pytest.mark.parametrize(("names", "verdict"), [(4, "ok"), (5, "placeholder"), (6, "placeholder")])
def test_one_content_under_many_urls_is_a_placeholder(
    cache: Path, names: int, verdict: str
) -> None:
    fill(cache, {url_of(n): photo(1) for n in range(names)} | {url_of(99): photo(2)})
    found = judged(cache, placeholder_photos=5)
    assert {one.verdict for one in found.values() if one.size == len(photo(1))} == {verdict}
    assert found[name_of(url_of(99))].verdict == "ok"
    if verdict == "placeholder":
        assert found[name_of(url_of(0))].reason == f"one content under {names} URLs"


def test_names_of_one_url_count_once(cache: Path) -> None:
    for n, (below, extension) in enumerate([("", "jpg"), ("a", "jpg"), ("b", "jpeg"), ("", "png")]):
        folder = cache / below
        folder.mkdir(parents=True, exist_ok=True)
        name = name_of(url_of(1), extension)
        (folder / (name.upper() if n == 1 else name)).write_bytes(photo(1))
    assert {one.verdict for one in judged(cache, placeholder_photos=2).values()} == {"ok"}
    put(cache, 2, photo(1))
    assert {one.verdict for one in judged(cache, placeholder_photos=2).values()} == {"placeholder"}


def test_a_flat_frame_stays_blank_however_many_there_are(cache: Path) -> None:
    fill(cache, {url_of(n): blank() for n in range(20)})
    assert {one.verdict for one in judged(cache).values()} == {"blank"}


@pytest.mark.parametrize("which", ["sha256", "content_hash"])
def test_a_known_bad_content_is_a_placeholder_at_once(cache: Path, which: str) -> None:
    fill(cache, {url_of(1): photo(1), url_of(2): photo(2), url_of(3): blank()})
    bad = frozenset(getattr(digest_of(body), which) for body in (photo(1), blank()))
    found = judged(cache, known_bad=bad)
    verdicts = [found[name_of(url_of(n))].verdict for n in (1, 2, 3)]
    assert verdicts == ["placeholder", "ok", "blank"]


def test_level_header_finds_less(cache: Path) -> None:
    fill(cache, {url_of(1): photo(1)[:-200], url_of(2): blank(), url_of(3): b"<html>"})
    found = judged(cache, level="header")
    assert [found[name_of(url_of(n))].verdict for n in (1, 2, 3)] == ["ok", "ok", "not_image"]


def test_groups_gather_reasons_that_differ_by_numbers(cache: Path) -> None:
    from PIL import Image

    grey = encoded(Image.new("RGB", (64, 64), "#808080"))
    fill(cache, {url_of(n): blank(40 + n) for n in range(3)} | {url_of(9): grey, url_of(8): b""})
    with inspected(cache) as findings:
        flat, empty = findings.groups()
        assert (flat.verdict, flat.files, flat.contents) == ("blank", 4, 4)
        assert "N" in flat.reason
        assert (empty.verdict, empty.reason, empty.files, empty.size) == (
            "not_image",
            "empty",
            1,
            0,
        )
        assert findings.paths(empty) == [name_of(url_of(8)).encode()]


def test_contents_of_a_group_come_with_the_most_frequent_first(cache: Path) -> None:
    bodies = {url_of(n): blank(50 + n % 2) for n in range(4)} | {url_of(9): blank(50)}
    fill(cache, bodies)
    with inspected(cache) as findings:
        (group,) = findings.groups()
        contents = list(findings.contents(group))
        assert [content.files for content in contents] == [3, 2]
        first = contents[0].example
        mine = sorted(name_of(url).encode() for url, body in bodies.items() if body == blank(50))
        assert first.path == mine[0]
        assert findings.paths(group, first.sha256) == mine
        assert findings.paths(group, first.sha256, limit=2) == mine[:2]
        assert len(list(findings.contents(group, 1))) == 1


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25
)
@given(
    contents=st.lists(st.integers(0, 4), max_size=40),
    least=st.integers(2, 8),
    readers=st.integers(1, 4),
    chunk=st.integers(1, 50),
)
def test_placeholders_do_not_depend_on_the_order_of_files(
    contents: list[int],
    least: int,
    readers: int,
    chunk: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    fill(folder, {url_of(n): photo(content) for n, content in enumerate(contents)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect_cache, "_CHUNK_FILES", chunk)
        patch.setattr(prepare, "BATCH_FILES", 3)
        found = judged(folder, placeholder_photos=least, readers=readers)
    expected = {
        name_of(url_of(n)): "placeholder" if contents.count(content) >= least else "ok"
        for n, content in enumerate(contents)
    }
    assert {path: one.verdict for path, one in found.items()} == expected


def test_no_more_files_are_read_than_a_window(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk waits for slow readers."""
    fill(cache, {url_of(n): b"x" for n in range(600)})
    monkeypatch.setattr(inspect_cache, "_CHUNK_FILES", 10)
    handed = 0
    most = 0
    done = 0
    guard = threading.Lock()
    entries, judge = inspect_cache._entries, inspect_cache._judge

    def counted(files):
        nonlocal handed, most
        for entry in entries(files):
            with guard:
                handed += 1
                most = max(most, handed - done)
            yield entry

    def slow(*arguments):
        nonlocal done
        batch = judge(*arguments)
        with guard:
            done += len(batch[0])
        return batch

    monkeypatch.setattr(inspect_cache, "_entries", counted)
    monkeypatch.setattr(inspect_cache, "_judge", slow)
    with inspected(cache, readers=2) as findings:
        assert findings.checked == 600
    window = (2 * prepare._BATCHES_A_READER + 1) * prepare.BATCH_FILES
    assert most <= window


MEMORY = """
import os, resource, sys
from mirror.inspection.inspect_cache import inspect_cache
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with inspect_cache(os.fsencode(sys.argv[1]), ["jpg"]) as found: pass
before = peak()
with inspect_cache(os.fsencode(sys.argv[2]), ["jpg"]) as found:
    assert found.checked == 20_000, found.checked
    for _ in found.files(): pass
    groups = found.groups()
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_cache(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    fill(small, {url_of(n): b"<html>%d" % n for n in range(1000)})
    fill(large, {url_of(0): b"<html>"})
    for n in range(1, 20_000):
        os.link(large / name_of(url_of(0)), large / name_of(url_of(n)))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, small, large], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 24_000, "kB; 20,000 files as Python objects take more than that"


def test_unreadable_files_are_listed_and_the_rest_is_judged(cache: Path, tmp_path: Path) -> None:
    fill(cache, {url_of(n): photo(n) for n in range(4)})
    put(cache, 9, photo(9), "closed")
    (cache / name_of(url_of(2))).chmod(0)
    (cache / "closed").chmod(0)
    script = (
        "import os, sys, json\nfrom mirror.inspection.inspect_cache import inspect_cache\n"
        "with inspect_cache(os.fsencode(sys.argv[1]), ['jpg']) as f:\n"
        "    print(json.dumps([f.checked, f.failed, f.failures]))"
    )
    done = subprocess.run(
        [*OBEYING, sys.executable, "-c", script, cache], capture_output=True, text=True, check=True
    )
    import json

    checked, failed, failures = json.loads(done.stdout)
    assert (checked, failed) == (3, 2)
    assert dict(failures).keys() == {name_of(url_of(2)), "closed"}
    assert all("Permission denied" in reason for _, reason in failures)


def test_a_missing_cache(cache: Path) -> None:
    with pytest.raises(CacheError, match="does not exist"), inspected(cache):
        pass


def test_an_empty_cache(cache: Path) -> None:
    cache.mkdir()
    with inspected(cache) as findings:
        assert (findings.checked, findings.groups(), list(findings.files())) == (0, [], [])


def test_progress_counts_every_file(cache: Path) -> None:
    expected = make(cache)
    told: list[tuple[int, int]] = []
    with inspected(
        cache, progress=Advances(lambda files, size: told.append((files, size)))
    ) as findings:
        assert sum(files for files, _ in told) == len(expected)
        assert sum(size for _, size in told) == findings.bytes


def test_no_room_for_the_findings_is_one_sentence(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(cache)
    real = sqlite3.connect

    def cramped(*arguments, **options):
        db = real(*arguments, **options)
        db.execute("PRAGMA max_page_count = 3")
        return db

    monkeypatch.setattr(sqlite3, "connect", cramped)
    with pytest.raises(StateError, match="make room"), inspected(cache):
        pass


def test_an_error_in_the_block_propagates_and_leaves_no_thread(cache: Path) -> None:
    make(cache)
    threads = threading.active_count()
    with pytest.raises(ZeroDivisionError), inspected(cache):
        _ = 1 / 0
    assert threading.active_count() == threads


def test_a_csv_has_all_files_and_no_formulas(cache: Path) -> None:
    expected = make(cache)
    odd = put(cache, 500, photo(500), '=cmd|" /C calc"!A0,\n')
    out = io.StringIO()
    with inspected(cache) as findings:
        write_csv(out, findings)
    out.seek(0)
    rows = list(csv.DictReader(out))
    assert tuple(rows[0]) == COLUMNS
    by_path = {row["path"]: row for row in rows}
    assert by_path.keys() == {*expected, f"./{os.fsdecode(odd)}"}
    assert {path: by_path[path]["verdict"] for path in expected} == expected
    body = (cache / os.fsdecode(odd)).read_bytes()
    assert by_path[f"./{os.fsdecode(odd)}"]["content_hash"] == xxhash.xxh3_128_hexdigest(body)
    paths = [path.removeprefix("./") for path in by_path]
    assert paths == sorted(paths)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain name.jpg", "plain name.jpg"),
        ("Zürich 植物", "Zürich 植物"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines", "two\\nlines"),
        ("right\u202eleft", "right\\u202eleft"),
        ("\ud800", "\\ud800"),
    ],
)
def test_text_that_moves_the_cursor_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


@given(st.binary())
def test_any_path_can_be_shown(path: bytes) -> None:
    text = shown(path)
    assert text.isprintable()
    text.encode()


def test_large_files_are_judged_without_their_pixels(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = photo(1) + random.Random(1).randbytes(3000)
    fill(cache, {url_of(1): body})
    monkeypatch.setattr("mirror.cache.prepare.WHOLE_UP_TO", 1000)
    (one,) = judged(cache).values()
    assert one.verdict == "ok"
    assert "too large" in one.reason
    assert one.sha256 == digest_of(body).sha256


@pytest.mark.parametrize(
    ("body", "verdict", "reason"),
    [
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "not_image", "unknown magic"),
        (b"<!doctype html><html>", "not_image", "html"),
        (b'{"error": 429}', "not_image", "json"),
        (b"", "not_image", "unknown magic"),
        (b"\xff\x0a", "corrupt", "no decoder for jxl here"),
        (b"\xff\xd8\xff\xe0", "ok", "not inspected: too large"),
    ],
)
def test_the_first_bytes_of_a_large_file_decide_its_verdict(
    cache: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, verdict: str, reason: str
) -> None:
    body += bytes(3000)
    fill(cache, {url_of(1): body})
    monkeypatch.setattr("mirror.cache.prepare.WHOLE_UP_TO", 1000)
    entry = entry_of(cache)
    runs: list[tuple[Level, set[bytes]]] = [
        ("decode", set()), ("header", set()), ("off", {digest_of(body).content_hash}),
    ]  # fmt: skip
    for level, flagged in runs:
        found = prepare.prepare(os.fsencode(cache), entry, level, flagged=flagged)
        assert isinstance(found, prepare.Prepared)
        assert (found.inspection.verdict, found.inspection.reason) == (verdict, reason)
    found = prepare.prepare(os.fsencode(cache), entry, "off")
    assert isinstance(found, prepare.Prepared)
    assert found.inspection.verdict == "ok"


def entry_of(cache: Path) -> Entry:
    ((path, *identity),) = walk(os.fsencode(cache), ["jpg"], ScanCount())
    return Entry(path, Identity(*identity))
