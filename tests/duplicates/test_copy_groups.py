"""Groups of contents in an index: by hashes, by photos, and led by what was seen first."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.catalog.arrow_rows import batch_from_arrow, to_arrow
from mirror.catalog.index import Index
from mirror.catalog.row import UNKNOWN_SOURCE, Row, RowSource
from mirror.content.image import Verdict
from mirror.content.perceptual_hash import LEAST_CONTRAST, stored
from mirror.duplicates import copy_groups as module
from mirror.duplicates.copy_groups import DROPPED, CopyGroups, copy_groups

RANDOM = np.random.default_rng(11)
CENTRES = [RANDOM.bytes(32) for _ in range(4)]


def near(centre: int, flips: int, contrast: int = 500) -> bytes:
    """A hash that differs from the centre in its first `flips` bits."""
    bits = int.from_bytes(CENTRES[centre]) ^ (((1 << flips) - 1) << (256 - flips))
    return stored(contrast, bits.to_bytes(32))


def row(
    content: int,
    seen_at: int,
    hashed: bytes | None = None,
    url: int | None = None,
    photo: str | None = None,
    verdict: Verdict = "ok",
) -> Row:
    number = content if url is None else url
    source = UNKNOWN_SOURCE if photo is None else RowSource(photo)
    return Row(
        number.to_bytes(16), content.to_bytes(8) + bytes(8), bytes(32), 9, "jpeg", 4, 4, verdict,
        "", source, seen_at, hashed,
    )  # fmt: skip


def index_of(rows: list[Row], index: Index | None = None, folder: Path | None = None) -> Index:
    batches = [batch_from_arrow(one) for one in to_arrow(rows).to_batches()] if rows else []
    before = index or Index.empty()
    version = before.version + 1
    return before.merged(batches, version, frozenset({str(version)}), folder)


def leaders(groups: CopyGroups) -> dict[int, int]:
    """The content of the leader of each content."""
    hashes = groups.hash_hi.tolist()
    return {hashes[at]: hashes[leader] for at, leader in enumerate(groups.leader.tolist())}


def test_hashes_within_the_threshold_are_one_group() -> None:
    rows = [row(1, 1, near(0, 0)), row(2, 2, near(0, 23)), row(3, 3, near(1, 0))]
    assert leaders(copy_groups(index_of(rows))) == {1: 1, 2: 1, 3: 3}
    assert leaders(copy_groups(index_of(rows), DROPPED)) == {1: 1, 2: 2, 3: 3}


def test_a_group_is_a_chain() -> None:
    rows = [row(9, 1, near(0, 0)), row(2, 2, near(0, 46)), row(3, 3, near(0, 23))]
    assert leaders(copy_groups(index_of(rows))) == {9: 9, 2: 9, 3: 9}


def test_the_content_seen_first_leads_whatever_its_hash() -> None:
    rows = [row(7, 5, near(0, 0)), row(2, 9, near(0, 1)), row(4, 5, near(0, 2))]
    assert leaders(copy_groups(index_of(rows))) == {7: 4, 2: 4, 4: 4}


@pytest.mark.parametrize(
    "hashed", [None, b"", b"\1", near(0, 0)[:-1], b"\2" + near(0, 0)[1:],
               near(0, 0, LEAST_CONTRAST - 1)],
    ids=["none", "empty", "short", "shorter", "another version", "no contrast"],
)  # fmt: skip
def test_what_is_no_hash_joins_nothing(hashed: bytes | None) -> None:
    rows = [row(1, 1, hashed), row(2, 2, hashed), row(3, 3, near(0, 0)), row(4, 4, near(0, 1))]
    assert leaders(copy_groups(index_of(rows))) == {1: 1, 2: 2, 3: 3, 4: 3}


def test_rows_of_one_photo_are_one_group_in_any_size() -> None:
    base = "https://static.inaturalist.org/photos/12"
    rows = [
        row(1, 2, photo=f"{base}/square.jpg"),
        row(2, 1, photo=f"{base}/original.jpg"),
        row(3, 3, photo=f"{base}3/original.jpg"),
    ]
    assert leaders(copy_groups(index_of(rows))) == {1: 2, 2: 2, 3: 3}


def test_flagged_rows_lead_and_join_nothing() -> None:
    rows = [
        row(1, 1, near(0, 0), verdict="placeholder"),
        row(2, 2, near(0, 1)),
        row(3, 3, near(0, 2)),
    ]
    assert leaders(copy_groups(index_of(rows))) == {2: 2, 3: 2}


def test_an_index_without_contents_has_no_groups() -> None:
    groups = copy_groups(Index.empty())
    assert list(groups.members()) == []


def test_the_members_begin_with_the_leader_and_the_largest_group() -> None:
    rows = [row(1, 4, near(0, 0)), row(2, 2, near(0, 1))]
    rows += [row(5, 9, near(1, 0)), row(6, 8, near(1, 1)), row(7, 7, near(1, 2)), row(8, 1)]
    groups = copy_groups(index_of(rows))
    contents = groups.hash_hi
    assert [contents[members].tolist() for members in groups.members()] == [[7, 6, 5], [2, 1]]


def test_groups_are_kept_beside_the_snapshot_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_of([row(1, 1, near(0, 0)), row(2, 2, near(0, 1))], folder=tmp_path)
    expected = leaders(copy_groups(index))

    def never(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(module, "near_components", never)
    assert leaders(copy_groups(Index.load(tmp_path))) == expected
    with pytest.raises(AssertionError, match="computed again"):
        copy_groups(Index.load(tmp_path), DROPPED)


@pytest.mark.parametrize("damage", [b"", b"\0" * 9, b"\xff" * 16, (5).to_bytes(8, "little") * 2])
def test_damaged_groups_are_computed_again(tmp_path: Path, damage: bytes) -> None:
    index = index_of([row(1, 1, near(0, 0)), row(2, 2, near(0, 1))], folder=tmp_path)
    expected = leaders(copy_groups(index))
    assert index.path is not None
    (kept,) = index.path.glob("copies-*")
    kept.write_bytes(damage)
    assert leaders(copy_groups(index)) == expected
    assert kept.stat().st_size == 16


def test_a_snapshot_that_is_gone_or_not_writable_only_costs_time(tmp_path: Path) -> None:
    index = index_of([row(1, 1, near(0, 0)), row(2, 2, near(0, 1))], folder=tmp_path)
    assert index.path is not None
    os.rename(index.path, tmp_path / "elsewhere")
    assert leaders(copy_groups(index)) == {1: 1, 2: 1}


COPIES = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 3), st.integers(0, 11)),
    min_size=1,
    max_size=25,
    unique_by=lambda copy: copy[0],
)


@given(COPIES, st.data())
@settings(deadline=None, max_examples=60)
def test_copies_that_come_later_change_no_leader(
    copies: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    rows = [row(content, at, near(*which)) for at, (content, *which) in enumerate(copies)]
    cut = data.draw(st.integers(0, len(rows)))
    before = index_of(rows[:cut])
    after = index_of(rows[cut:], before)
    old, new = leaders(copy_groups(before)), leaders(copy_groups(after))
    assert old.items() <= new.items()
    assert new == leaders(copy_groups(index_of(data.draw(st.permutations(rows)))))
