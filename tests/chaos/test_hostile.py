"""Hostile input for every reader: names in a cache, keys, URLs, datasets, configuration.

tests/content/test_image.py has hostile images, tests/test_urls.py the URLs of a mirror, and
tests/dataset/formats/test_jsonl.py single lines.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from mirror.cache.scan import ScanCount, walk
from mirror.config.loading import known_keys, load
from mirror.config.settings import IMAGE_EXTENSIONS
from mirror.errors import ConfigError
from mirror.layout import BucketUrl, parse_content_hash, parse_object_key
from mirror.urls import ObjectUrls, content_hash_in
from tests.labelled.impossible import IMPOSSIBLE
from tests.support.chaos_tally import count
from tests.support.mirror_setup import MirrorSetup
from tests.support.mirrored_dataset import Mirror, plants
from tests.support.photos import fill, photo, url_of

__all__ = ["plants"]

quick = settings(suppress_health_check=list(HealthCheck), deadline=None)

HEX = b"0123456789abcdef"
NAMES = st.one_of(
    st.binary(min_size=1, max_size=60),
    st.builds(
        lambda stem, dot, rest: stem + dot + rest,
        st.lists(st.sampled_from(list(HEX + b"ABCDEFg.\n\xff")), min_size=30, max_size=34).map(
            bytes
        )
        | st.lists(st.sampled_from(list(HEX)), min_size=32, max_size=32).map(bytes),
        st.sampled_from([b".", b"", b"..", b"\n."]),
        st.sampled_from(
            [b"jpg", b"JPG", b"png", b"jpg\n", b"jpg.part", b"", b"gif", b"jp\xc4\xa7"]
        ),
    ),
).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))


@pytest.mark.chaos("hostile input")
@quick
@given(st.lists(NAMES, max_size=8, unique=True))
def test_a_cache_with_any_names_is_walked_and_only_images_are_taken(
    tmp_path_factory: pytest.TempPathFactory, names: list[bytes]
) -> None:
    count("inputs names of files in a cache", len(names))
    root = os.fsencode(tmp_path_factory.mktemp("names"))
    made = set()
    for name in names:
        if name not in (b".", b".."):
            with open(root + b"/" + name, "wb"):
                made.add(name)
    allowed = {extension.encode() for extension in IMAGE_EXTENSIONS}
    expected = set()
    for name in made:
        stem, dot, extension = name.partition(b".")
        is_hex = len(stem) == 32 and all(byte in HEX + b"ABCDEF" for byte in stem)
        if is_hex and dot and extension.isascii() and extension.lower() in allowed:
            expected.add(name)
    counted = ScanCount()
    found = {path for path, *_ in walk(root, IMAGE_EXTENSIONS, counted)}
    assert found == expected
    assert (counted.ignored, counted.unreadable) == (len(made) - len(expected), [])


@pytest.mark.chaos("hostile input")
def test_no_header_of_a_file_stops_a_sync(folder_setup: MirrorSetup) -> None:
    count("inputs images of a size that none can have", len(IMPOSSIBLE))
    fill(folder_setup.cache, {url_of(n): body for n, body in enumerate(IMPOSSIBLE.values())})
    fill(folder_setup.cache, {url_of(100): photo(100)})
    report = folder_setup.sync()
    assert (report.exit_status, report.failed, report.uploaded) == (0, 0, 1)
    assert report.flagged["corrupt"] == len(IMPOSSIBLE)
    assert folder_setup.sync().unchanged == len(IMPOSSIBLE) + 1


PIECES = [
    "s3:",
    "file:",
    "https:",
    "//",
    "/",
    "[",
    "]",
    "::1",
    "%",
    "%2F",
    "@",
    ":",
    "?",
    "#",
    "..",
    "plants",
    "objects/ab/",
    ".jpg",
    "٣",
    ":99999999",
]
URLS = st.one_of(
    st.text(),
    st.from_regex(r"(s3|file|https?)://[^\x00]{0,40}", fullmatch=True),
    st.lists(
        st.sampled_from([*PIECES, "ab" * 16, "\ud800", "\0", " "]),
        max_size=10,
    ).map("".join),
)


@pytest.mark.chaos("hostile input")
@quick
@given(URLS)
@example("https://[::1")
@example("s3://plants/%2e%2e")
def test_any_text_is_a_url_or_key_or_is_refused_in_a_sentence(text: str) -> None:
    count("inputs keys and URLs")
    with suppress(ConfigError):
        assert BucketUrl.parse(str(BucketUrl.parse(text))) == BucketUrl.parse(text)
    with suppress(ConfigError):
        ObjectUrls(BucketUrl("s3", "plants", "inat"), text, "auto", text)
    parse_content_hash(text)
    for one in (text, f"https://plants.s3.amazonaws.com/inat/{text}", f"s3://plants/{text}"):
        content = content_hash_in(one.encode(errors="surrogatepass"))
        assert content is None or content.hex() in one
    parsed = parse_object_key(text)
    assert parsed is None or text == f"objects/{parsed[0].hex()[:2]}/{parsed[0].hex()}.{parsed[1]}"


VALUES = st.recursive(
    st.one_of(
        st.text(st.characters(codec="utf-8"), max_size=12).map(json.dumps),
        st.integers(-(2**70), 2**70).map(str),
        st.sampled_from(
            ["true", "inf", "nan", "-1.5", "1e400", "0", "1979-05-27", "07:32:00", '"0"']
        ),
        st.sampled_from(['"s3://b"', '"file:///x"', '"https://[::1"', '"\\u0000"', '"~nobody/x"']),
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda many: f"[{', '.join(many)}]")
        | inner.map(lambda one: f"{{ x = {one} }}")
    ),
    max_leaves=4,
)
KEYS = st.sampled_from(known_keys()) | st.sampled_from(["cache", "bucket", "x", "cache.dir.x"])
LINES = st.builds(lambda key, value: f"{key} = {value}", KEYS, VALUES)


@pytest.mark.chaos("hostile input")
@quick
@given(
    st.lists(LINES, max_size=4, unique=True).map(lambda lines: "\n".join(lines).encode())
    | st.binary(max_size=80)
)
@example(b'bucket.url = "s3://b"\nbucket.endpoint = "https://[::1"')
@example(b'cache.dir = "~nobody-has-this-name/x"')
def test_any_configuration_is_read_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    count("inputs configuration files")
    path = tmp_path_factory.getbasetemp() / "mirror.toml"
    path.write_bytes(text)
    with suppress(ConfigError):
        load(config=path, environ={"XDG_CONFIG_HOME": "/nonexistent"}, cwd=Path("/nonexistent"))


# Text that follows a URL in a line.
RESTS = [
    b"", b', "a": 1', b', "a": NaN', b', "a": "\xff"', b', "a": "\\ud800"', b",", b'}{"b":1',
    b', "image_url": null', b', "a": ' + b"[" * 600, b', "a": 1e999', b"\r", b"\0",
]  # fmt: skip
RECORDS = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda name, number, rest: b'{"%s": "%s"%s}' % (name, url_of(number).encode(), rest),
        st.sampled_from([b"image_url", b"image_url", b"image\\u005furl", b"url", b"\xff"]),
        st.sampled_from([1, 1001, 100, 103, 500]),
        st.sampled_from(RESTS),
    ),
).map(lambda line: line.replace(b"\n", b" "))


@pytest.mark.chaos("hostile input")
@quick
@given(st.lists(RECORDS, max_size=12), st.sampled_from([b"\n", b""]))
@example([b"", b"["], b"\n")
@example([b"{", b'"image_url": "https://a/b"}'], b"\n")
def test_any_dataset_is_rewritten_to_valid_json_and_every_record_is_accounted_for(
    plants: Mirror, tmp_path_factory: pytest.TempPathFactory, records: list[bytes], end: bytes
) -> None:
    count("inputs lines of datasets", len(records))
    folder = tmp_path_factory.mktemp("hostile")
    body = b"\n".join(records) + end
    assume(not body.startswith((b"\xff\xfe", b"\xfe\xff")))  # marks of UTF-16
    (folder / "raw.jsonl").write_bytes(body)
    report = plants.rewrite(folder / "raw.jsonl", folder / "out.jsonl", allow_empty=True)
    # A byte order mark does not belong to the first line.
    body = body.removeprefix(b"\xef\xbb\xbf")
    # An array, or an object that goes on in the next line, is divided by its brackets.
    if not re.match(rb"\s*(\[|\{[ \t\r]*\n)", body):
        assert report.records == len(body.removesuffix(b"\n").split(b"\n")) - (not body)
    assert report.records == report.written + sum(report.dropped.values())
    lines = (folder / "out.jsonl").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == report.written
    for line in lines:
        url = json.loads(line.decode())["image_url"]
        assert url.startswith(plants.base)
