"""Paths into records, and records after their URLs are replaced."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.dataset.fields import (
    MISSING,
    BadRecord,
    FieldPath,
    holds_other,
    parse_path,
    replace_urls,
    sites_of,
    url_bytes,
    value_at,
)
from mirror.errors import UsageError

U = ("image_url",)
NESTED = ("photos", "url")
DEEP = ("a", "b", "url")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("image_url", ("image_url",)),
        ("photos.url", ("photos", "url")),
        (" a . b ", (" a ", " b ")),
        ("ñ.€", ("ñ", "€")),
        ("a[0]", ("a[0]",)),
    ],
)
def test_a_dotted_text_is_a_path(text: str, path: FieldPath) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b"])
def test_a_piece_between_dots_is_not_empty(text: str) -> None:
    with pytest.raises(UsageError, match="has an empty piece"):
        parse_path(text)


def test_a_path_is_utf_8() -> None:
    with pytest.raises(UsageError, match=r"'a\\udcff' is not UTF-8"):
        parse_path("a\udcff")


@pytest.mark.parametrize(
    ("record", "path", "value"),
    [
        ({"a": 1}, ("a",), 1),
        ({"a": None}, ("a",), None),
        ({"b": 1}, ("a",), MISSING),
        ({}, ("a",), MISSING),
        ({"a": {"b": {"c": 0}}}, ("a", "b", "c"), 0),
        ({"a": {"b": 1}}, ("a",), {"b": 1}),
        ({"a": "b"}, ("a", "b"), MISSING),
        ({"a": None}, ("a", "b"), MISSING),
        ({"a": [{"x": 1}, {"b": 2}, {"b": 3}]}, ("a", "b"), 2),
        ({"a": [[{"b": 2}]]}, ("a", "b"), 2),
        ({"a": []}, ("a", "b"), MISSING),
        ({"a": []}, ("a",), []),
        ({"a.b": 1}, ("a", "b"), MISSING),
        ("text", ("a",), MISSING),
    ],
)
def test_a_value_is_found_along_a_path(record: Any, path: FieldPath, value: Any) -> None:
    assert value_at(record, path) == value
    assert not MISSING


@pytest.mark.parametrize(
    ("record", "path", "urls"),
    [
        ({"image_url": "u"}, U, ["u"]),
        ({"image_url": ["u", "v"]}, U, ["u", "v"]),
        ({"photos": {"url": "u"}}, NESTED, ["u"]),
        ({"photos": [{"url": "u"}, {"x": 1}, {"url": ["v", "w"]}, None, 5]}, NESTED, ["u", "v", "w"]),
        ({"photos": [[{"url": "u"}], [[{"url": "v"}]]]}, NESTED, ["u", "v"]),
        ({"photos": [{"url": []}, {"url": "v"}]}, NESTED, ["v"]),
        ({"a": [{"b": [{"url": "u"}]}, {"b": {"url": "v"}}, {"b": 1}]}, DEEP, ["u", "v"]),
        ({"image_url": " "}, U, [" "]),
    ],
)  # fmt: skip
def test_urls_of_a_record_in_order(
    record: dict[str, Any], path: FieldPath, urls: list[str]
) -> None:
    assert [url for site in sites_of(record, path) for url in site.urls] == urls


@pytest.mark.parametrize(
    ("record", "path", "reason"),
    [
        ({}, U, "no field 'image_url'"),
        ({"image_URL": "u"}, U, "no field 'image_url'"),
        ({"photos": {"image_url": "u"}}, U, "no field 'image_url'"),
        ({"photos.url": "u"}, NESTED, "no field 'photos.url'"),
        ({"photos": "u"}, NESTED, "no field 'photos.url'"),
        ({"photos": None}, NESTED, "no field 'photos.url'"),
        ({"photos": []}, NESTED, "no field 'photos.url'"),
        ({"photos": [{"x": 1}]}, NESTED, "no field 'photos.url'"),
        ({"image_url": None}, U, "'image_url' is null, not text"),
        ({"image_url": 5}, U, "'image_url' is a number, not text"),
        ({"image_url": 5.5}, U, "'image_url' is a number, not text"),
        ({"image_url": True}, U, "'image_url' is a boolean, not text"),
        ({"image_url": {"x": 1}}, U, "'image_url' is an object, not text"),
        ({"image_url": [["u"]]}, U, "'image_url' is a list, not text"),
        ({"image_url": ["u", None]}, U, "'image_url' is null, not text"),
        ({"image_url": b"u"}, U, "'image_url' is of type bytes, not text"),
        ({"image_url": ""}, U, "'image_url' is empty"),
        ({"image_url": ["u", ""]}, U, "'image_url' is empty"),
        ({"image_url": []}, U, "'image_url' is an empty list"),
        ({"photos": [{"url": []}, {"url": []}]}, NESTED, "'photos.url' is an empty list"),
        ({"photos": [{"url": "u"}, {"url": None}]}, NESTED, "'photos.url' is null, not text"),
    ],
)
def test_what_is_no_url_is_said(record: dict[str, Any], path: FieldPath, reason: str) -> None:
    with pytest.raises(BadRecord) as bad:
        sites_of(record, path)
    assert str(bad.value) == reason


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"image_url": "u"}, False),
        ({"image_url": "u", "source_url": None}, False),
        ({"image_url": "u", "source_url": ""}, False),
        ({"image_url": "u", "source_url": []}, False),
        ({"image_url": "u", "source_url": {}}, False),
        ({"image_url": "u", "source_url": "u"}, False),
        ({"image_url": ["u"], "source_url": ["u"]}, False),
        ({"image_url": "u", "source_url": "v"}, True),
        ({"image_url": ["u"], "source_url": "u"}, True),
        # A class label, for whoever names the wrong field.
        ({"image_url": "u", "source_url": 0}, True),
        ({"image_url": "u", "source_url": False}, True),
    ],
)
def test_does_the_source_field_hold_something_else(record: dict[str, Any], expected: bool) -> None:
    (site,) = sites_of(record, U)
    assert holds_other(site, "source_url") is expected


# record, path, a new URL for each old one, what comes out
REPLACEMENTS: list[tuple[str, Any, FieldPath, list[bytes | None], Any]] = [
    (
        "one: the original goes right after it",
        {"id": 1, "image_url": "u", "x": 2}, U, [b"U"],
        {"id": 1, "image_url": "U", "source_url": "u", "x": 2},
    ),
    (
        "the same: nothing changes",
        {"id": 1, "image_url": "u", "x": 2}, U, [b"u"],
        {"id": 1, "image_url": "u", "x": 2},
    ),
    (
        "a source that is there and holds nothing keeps its place",
        {"source_url": None, "image_url": "u", "x": 2}, U, [b"U"],
        {"source_url": "u", "image_url": "U", "x": 2},
    ),
    (
        "the original's original stays",
        {"image_url": "u", "source_url": "first"}, U, [b"U"],
        {"image_url": "U", "source_url": "first"},
    ),
    (
        "a list of them",
        {"image_url": ["u", "v"], "x": 1}, U, [b"U", b"V"],
        {"image_url": ["U", "V"], "source_url": ["u", "v"], "x": 1},
    ),
    (
        "one of a list",
        {"image_url": ["u", "v"]}, U, [b"u", b"V"],
        {"image_url": ["u", "V"], "source_url": ["u", "v"]},
    ),
    (
        "taken out of its list, and so is its original",
        {"image_url": ["u", "v", "w"]}, U, [b"U", None, b"W"],
        {"image_url": ["U", "W"], "source_url": ["u", "w"]},
    ),
    (
        "only taken out: there is no original",
        {"image_url": ["u", "v"]}, U, [None, b"v"],
        {"image_url": ["v"]},
    ),
    (
        "originals stay with their URLs",
        {"image_url": ["u", "v", "w"], "source_url": ["1", "2", "3"]}, U, [b"U", None, b"W"],
        {"image_url": ["U", "W"], "source_url": ["1", "3"]},
    ),
    (
        "what is no list of originals stays",
        {"image_url": ["u", "v"], "source_url": ["1", "2", "3"]}, U, [b"U", None],
        {"image_url": ["U"], "source_url": ["1", "2", "3"]},
    ),
    (
        "in a list of objects",
        {"photos": [{"url": "u", "x": 1}, {"x": 2}, {"url": "v"}]}, NESTED, [b"U", b"V"],
        {"photos": [{"url": "U", "source_url": "u", "x": 1}, {"x": 2},
                    {"url": "V", "source_url": "v"}]},
    ),
    (
        "an object that lost its URL leaves the list; one that had none stays",
        {"photos": [{"url": "u"}, {"x": 2}, {"url": "v"}]}, NESTED, [None, b"V"],
        {"photos": [{"x": 2}, {"url": "V", "source_url": "v"}]},
    ),
    (
        "an object that lost some stays",
        {"photos": [{"url": ["u", "v"]}, {"url": ["w"]}]}, NESTED, [None, b"v", None],
        {"photos": [{"url": ["v"]}]},
    ),
    (
        "a list that was empty before is nobody's loss",
        {"photos": [{"url": []}, {"url": ["w", "x"]}]}, NESTED, [None, b"X"],
        {"photos": [{"url": []}, {"url": ["X"], "source_url": ["x"]}]},
    ),
    (
        "what holds the object leaves its list with it",
        {"a": [{"b": {"url": "u"}}, {"b": {"url": "v"}}]}, DEEP, [None, b"V"],
        {"a": [{"b": {"url": "V", "source_url": "v"}}]},
    ),
    (
        "and what holds nothing else but such",
        {"a": [{"b": [{"url": "u"}, {"url": "v"}]}, {"b": [{"url": "w"}]}]}, DEEP,
        [None, None, b"W"],
        {"a": [{"b": [{"url": "W", "source_url": "w"}]}]},
    ),
    (
        "lists of lists",
        {"photos": [[{"url": "u"}], [{"url": "v"}, {"url": "w"}]]}, NESTED, [None, None, b"W"],
        {"photos": [[{"url": "W", "source_url": "w"}]]},
    ),
    (
        "half a surrogate pair is the same as before",
        {"image_url": "u\ud800"}, U, [b"u\\ud800"],
        {"image_url": "u\ud800"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "path", "urls", "expected"),
    [case[1:] for case in REPLACEMENTS],
    ids=[case[0] for case in REPLACEMENTS],
)
def test_new_urls(record: Any, path: FieldPath, urls: list[bytes | None], expected: Any) -> None:
    record = copy.deepcopy(record)
    tally = replace_urls(record, path, "source_url", iter(urls))
    assert record == expected
    assert list(record) == list(expected)
    for changed, wanted in zip(record.get("photos", []), expected.get("photos", []), strict=True):
        assert list(changed) == list(wanted)
    assert tally == (urls.count(None), len(urls) - urls.count(None))


leaves = st.none() | st.integers(0, 3) | st.text("uvw", min_size=1, max_size=2)
trees = st.recursive(
    leaves | st.lists(st.text("uvw", min_size=1, max_size=2), max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "url", "source_url", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["a", "url", "x"]), trees), st.data())
def test_whatever_the_record(record: dict[str, Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([("url",), ("a", "url"), ("a", "a", "url")]))
    try:
        sites = sites_of(record, path)
    except BadRecord:
        return
    old = [url_bytes(url) for site in sites for url in site.urls]
    changes = st.sampled_from(["same", "new", "none"])
    plan = data.draw(st.lists(changes, min_size=len(old), max_size=len(old)))
    new = [
        {"same": url, "new": b"NEW" + url, "none": None}[change]
        for change, url in zip(plan, old, strict=True)
    ]
    if not any(new):
        return
    before = copy.deepcopy(record)
    replace_urls(record, path, "source_url", iter(new))
    # What is kept is there, in its order; what is not is gone.
    after = [url_bytes(url) for site in sites_of(record, path) for url in site.urls]
    assert after == [url for url in new if url is not None]
    if new == old:
        assert record == before
