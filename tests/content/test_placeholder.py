"""Photos are counted rather than URLs; the list of known bad hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.content.digest import digest_of
from mirror.content.placeholder import (
    distinct_photos,
    is_known_bad,
    load_known_bad,
    parse_known_bad,
)
from mirror.errors import ConfigError
from tests.content.test_photo import ONE_PHOTO, OTHERS


def test_photos_are_counted_and_not_urls() -> None:
    assert distinct_photos(ONE_PHOTO) == 1
    assert distinct_photos([*ONE_PHOTO, *OTHERS]) == 1 + len(OTHERS)
    assert distinct_photos(iter([])) == 0


HASH = st.one_of(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32))
NOISE = st.sampled_from(["", "   ", "# a comment", "\t# another", "\r"])


@given(st.lists(st.tuples(HASH, NOISE, st.booleans(), st.sampled_from(["", " ", " # why", "\r"]))))
def test_a_list_is_parsed_into_its_hashes(
    rows: list[tuple[bytes, str, bool, str]],
) -> None:
    lines = []
    for value, noise, upper, after in rows:
        digits = value.hex()
        lines += [noise, f"  {digits.upper() if upper else digits}{after}"]
    assert parse_known_bad("\n".join(lines)) == {value for value, *_ in rows}


@pytest.mark.parametrize(
    "line",
    ["abc", "g" * 32, "0" * 31, "0" * 33, "0" * 63, "0" * 65, "0" * 16 + " " + "0" * 16, "\u0661" * 32,
     "0" * 64 + "  file.jpg"],
)  # fmt: skip
def test_a_bad_line_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(f"# bad ones\n{'a' * 64}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.txt, line 4: .*is not a hash"):
        load_known_bad(path)


def test_no_file_means_no_hashes() -> None:
    assert load_known_bad(None) == frozenset()


def test_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b"\xef\xbb\xbf" + b"a" * 32 + b"\r\n")
    assert load_known_bad(str(path)) == {b"\xaa" * 16}


@pytest.mark.parametrize("make", [lambda _: None, Path.mkdir, lambda p: p.write_bytes(b"\xff\xfe")])
def test_a_list_that_cannot_be_read_says_what_to_do(make, tmp_path: Path) -> None:
    make(tmp_path / "bad.txt")
    with pytest.raises(ConfigError, match=r"bad\.txt .*(inspect\.known_bad|is not text)"):
        load_known_bad(tmp_path / "bad.txt")


def test_a_content_is_known_by_either_hash() -> None:
    body = b"a placeholder"
    digest = digest_of(body)
    assert is_known_bad(digest, frozenset({hashlib.sha256(body).digest()}))
    assert is_known_bad(digest, frozenset({digest.content_hash}))
    assert not is_known_bad(digest, frozenset({b"\0" * 16, b"\0" * 32}))
