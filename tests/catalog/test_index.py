"""The index against a model of plain dicts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.catalog.index import SNAPSHOT, Batch, Index, Sighting, batch_from_arrow
from mirror.catalog.row import UNKNOWN_SOURCE, Row, Source
from mirror.catalog.table import _to_arrow
from mirror.content.image import VERDICTS, Verdict
from mirror.layout import FORMATS

# Halves that meet: equal high ones, zero bytes at either end, the greatest numbers.
HALVES = [bytes(8), b"\0" * 7 + b"\1", b"\1" + bytes(7), b"\x7f" + b"\xff" * 7, b"\xff" * 8]
KEYS = [high + low for high in HALVES for low in HALVES]


class Seen(NamedTuple):
    url: bytes
    content: bytes
    verdict: Verdict
    format: str
    width: int
    sourced: bool


SEEN = st.builds(
    Seen,
    st.sampled_from(KEYS),
    st.sampled_from(KEYS),
    st.sampled_from(VERDICTS),
    st.sampled_from(sorted(FORMATS)),
    st.integers(0, 2**31 - 1),
    st.booleans(),
)


def sha256_of(content: bytes) -> bytes:
    """Of each content one; the first one's begins and ends with zeros."""
    return bytes(32) if content == KEYS[0] else hashlib.sha256(content).digest()


def row_of(seen: Seen, seen_at: int) -> Row:
    source = Source("https://example.org/x") if seen.sourced else UNKNOWN_SOURCE
    sha256, size = sha256_of(seen.content), seen.width * 1000
    return Row(
        seen.url, seen.content, sha256, size, seen.format, seen.width, 7,
        seen.verdict, "", source, seen_at,
    )  # fmt: skip


def batch(rows: Sequence[Row]) -> Batch:
    (one,) = _to_arrow(rows).to_batches()
    return batch_from_arrow(one)


def index_of(rows: Sequence[Row], version: int = 0) -> Index:
    return Index.empty().merged([batch(rows)] if rows else [], version, frozenset())


def save(index: Index, folder: Path) -> Index:
    return index.merged([], index.version, index.files, folder)


def agrees(index: Index, rows: Sequence[Row]) -> None:
    """Every look-up of the index is that of a dict of the latest rows."""
    latest: dict[bytes, Row] = {}
    for one in sorted(rows, key=lambda one: one.seen_at):
        latest[one.url_md5] = one
    assert len(index) == len(latest)
    live = {one.content_hash for one in latest.values() if one.verdict == "ok"}
    for key in KEYS:
        row = latest.get(key)
        expected = row and Sighting(
            row.content_hash, row.size, row.width, row.height, row.format, row.verdict,
            row.source.url is not None, row.seen_at,
        )  # fmt: skip
        assert index.sighting(key) == expected
        assert index.object_sha256(key) == (sha256_of(key) if key in live else None)


@given(st.lists(SEEN, max_size=60), st.data())
@settings(deadline=None)
def test_batches_in_any_split_and_order_give_the_latest_row_of_every_url(
    seen: list[Seen], data: st.DataObject
) -> None:
    rows = [row_of(one, seen_at) for seen_at, one in enumerate(seen)]
    # A compaction brings rows again; an append whose answer was lost brings them twice.
    again = data.draw(st.lists(st.sampled_from(rows), max_size=10)) if rows else []
    arriving = data.draw(st.permutations(rows + again))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(arriving)), max_size=4)))
    index = Index.empty()
    for begin, end in pairwise([0, *cuts, len(arriving)]):
        merging = arriving[begin:end]
        middle = len(merging) // 2
        batches = [batch(part) for part in (merging[:middle], merging[middle:]) if part]
        index = index.merged(batches, end, frozenset({str(end)}))
        agrees(index, arriving[:end])
    assert (index.version, index.files) == (len(arriving), frozenset({str(len(arriving))}))


@given(st.lists(SEEN, max_size=30), st.data())
@settings(deadline=None, max_examples=40)
def test_an_index_kept_in_a_folder_answers_as_one_in_memory(
    seen: list[Seen], data: st.DataObject
) -> None:
    rows = [row_of(one, seen_at) for seen_at, one in enumerate(seen)]
    arriving = data.draw(st.permutations(rows))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=2)))
    with TemporaryDirectory() as name:
        folder, index = Path(name), Index.empty()
        for number, (begin, end) in enumerate(pairwise([0, *cuts, len(rows)])):
            batches = [batch(arriving[begin:end])] if end > begin else []
            index = index.merged(batches, number, frozenset({"f"}), folder)
            for one in (index, Index.load(folder)):
                agrees(one, arriving[:end])
                assert (one.version, one.files) == (number, frozenset({"f"}))
            assert [path.name for path in folder.iterdir()] == [f"v{number}"]


@given(st.lists(SEEN, max_size=20))
@settings(deadline=None, max_examples=25)
def test_a_saved_index_is_loaded_as_it_was(seen: list[Seen]) -> None:
    rows = [row_of(one, seen_at) for seen_at, one in enumerate(seen)]
    index = Index.empty().merged([batch(rows)] if rows else [], 3, frozenset({"a", "b"}))
    with TemporaryDirectory() as name:
        save(index, Path(name))
        loaded = Index.load(Path(name))
        agrees(loaded, rows)
        assert (loaded.version, loaded.files) == (3, frozenset({"a", "b"}))
        agrees(loaded.merged([batch(rows)] if rows else [], 4, frozenset()), rows)


ROWS = [row_of(Seen(key, key, "ok", "jpeg", 5, False), at) for at, key in enumerate(KEYS)]


def test_an_empty_index_knows_nothing_and_is_kept_too(tmp_path: Path) -> None:
    agrees(Index.empty(), [])
    assert Index.empty().version == -1
    agrees(Index.load(tmp_path / "absent"), [])
    save(index_of([], version=0), tmp_path)
    assert Index.load(tmp_path).version == 0
    agrees(Index.load(tmp_path), [])


def test_flagged_rows_alone_name_no_object(tmp_path: Path) -> None:
    flagged = [one._replace(verdict="blank") for one in ROWS]
    save(index_of(flagged), tmp_path)
    agrees(Index.load(tmp_path), flagged)


def test_of_two_rows_of_one_instant_one_wins_and_the_index_stays_sorted() -> None:
    twice = [ROWS[0], ROWS[0]._replace(size=9), *ROWS[1:]]
    index = index_of(twice)
    assert len(index) == len(ROWS)
    assert index.sighting(KEYS[-1]) is not None


def test_a_new_snapshot_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    save(index_of(ROWS[:1], 1), tmp_path)
    reader = Index.load(tmp_path)
    save(index_of(ROWS, 2), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["v2"]
    agrees(reader, ROWS[:1])  # who has mapped the old one keeps it
    agrees(Index.load(tmp_path), ROWS)


def test_a_snapshot_of_a_killed_run_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".writing-killed").mkdir()
    (tmp_path / ".writing-killed" / "sightings.size.npy").write_bytes(b"half")
    save(index_of(ROWS, 1), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


def test_the_newest_snapshot_is_by_number(tmp_path: Path) -> None:
    for version in (9, 10):
        save(index_of(ROWS, version), tmp_path / str(version))
        (tmp_path / str(version) / f"v{version}").rename(tmp_path / f"v{version}")
    assert Index.load(tmp_path).version == 10


def empty(path: Path) -> None:
    os.truncate(path, 0)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def scribble(path: Path) -> None:
    path.write_bytes(b"\xff\x00garbage" * 20)


def shorten(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


ARRAY, META = "sightings.url_lo.npy", "meta.json"
NOT_OURS = ["[]", "{}", f'{{"snapshot": {SNAPSHOT + 1}, "version": 2, "files": []}}']
DAMAGES: list[tuple[str, Callable[[Path], object]]] = [
    *((name, damage) for name in (ARRAY, META) for damage in (Path.unlink, empty, cut, scribble)),
    ("objects.sha256.npy", shorten),
    *((META, partial(Path.write_text, data=text)) for text in NOT_OURS),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_damaged_snapshot_is_passed_over(
    name: str, damage: Callable[[Path], object], tmp_path: Path
) -> None:
    save(index_of(ROWS, 2), tmp_path)
    damage(tmp_path / "v2" / name)
    agrees(Index.load(tmp_path), [])
    assert Index.load(tmp_path).version == -1


def test_a_damaged_snapshot_is_made_anew_by_the_next_one(tmp_path: Path) -> None:
    save(index_of(ROWS, 2), tmp_path)
    cut(tmp_path / "v2" / ARRAY)
    save(index_of(ROWS, 2), tmp_path)
    agrees(Index.load(tmp_path), ROWS)


@pytest.mark.parametrize("stranger", ["v", "v2.bak", "vacation"])
def test_a_stranger_among_the_snapshots_is_passed_over(stranger: str, tmp_path: Path) -> None:
    save(index_of(ROWS, 2), tmp_path)
    (tmp_path / stranger).mkdir()
    assert Index.load(tmp_path).version == 2
