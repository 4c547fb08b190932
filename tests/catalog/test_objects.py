"""The objects of a catalog, against a model of plain dicts."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.catalog.objects import KeyRange, key_ranges, named_objects
from mirror.layout import object_key, parse_object_key
from tests.catalog.test_index import KEYS, SEEN, Seen, index_of, row_of


def model_of(seen: list[Seen]) -> dict[str, dict[bytes, str]]:
    """For each key the URLs whose latest row has its content and format, with their verdicts."""
    latest = {one.url: one for one in seen}
    keys: dict[str, dict[bytes, str]] = defaultdict(dict)
    for url, one in latest.items():
        keys[object_key(one.content, one.format)][url] = one.verdict
    return keys


@given(st.lists(SEEN, max_size=30), st.sampled_from([1, 16]))
def test_keys_come_sorted_with_the_rows_that_name_them(seen: list[Seen], parts: int) -> None:
    index = index_of([row_of(one, at) for at, one in enumerate(seen)])
    model = model_of(seen)
    found: list[str] = []
    for number in range(parts):
        named = named_objects(index, KeyRange(number, parts))
        keys = [named.key(at) for at in range(len(named))]
        found += keys
        for at, key in enumerate(keys):
            ok = {url for url, verdict in model[key].items() if verdict == "ok"}
            rows = index.url_md5s(named.rows_of(at)).tobytes()
            assert {rows[n : n + 16] for n in range(0, len(rows), 16)} == ok
            assert named.ok[at] == bool(ok)
            assert named.content_hash(at) == parse_object_key(key)[0]  # type: ignore[index]
            assert named.after(key) == at + 1
        parsed = [parse_object_key(key) for key in keys]
        assert named.find([one for one in parsed if one]).tolist() == list(range(len(keys)))
    assert found == sorted(model)


@given(st.lists(SEEN, max_size=20), st.sampled_from(KEYS), st.sampled_from(["jpg", "png", "exe"]))
def test_keys_without_rows_are_not_found(seen: list[Seen], content: bytes, ext: str) -> None:
    index = index_of([row_of(one, at) for at, one in enumerate(seen)])
    named = named_objects(index, KeyRange(0, 1))
    keys = [named.key(at) for at in range(len(named))]
    digits = content.hex()
    wanted = f"objects/{digits[:2]}/{digits}.{ext}"
    (at,) = named.find([(content, ext)]).tolist()
    assert at == (keys.index(wanted) if wanted in keys else -1)


def test_the_parts_of_the_key_space_meet_and_leave_nothing_out() -> None:
    parts = [KeyRange(number, 16) for number in range(16)]
    assert (parts[0].after, parts[-1].until) == ("", None)
    assert [key_range.until for key_range in parts[:-1]] == [
        key_range.after for key_range in parts[1:]
    ]
    assert [key_range.after for key_range in parts[1:3]] == ["objects/0f/~", "objects/1f/~"]


def test_a_small_catalog_is_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of([])
    assert key_ranges(index) == [KeyRange(0, 1)]
    monkeypatch.setattr("mirror.catalog.objects._WHOLE_UP_TO", -1)
    assert len(key_ranges(index)) == 16
