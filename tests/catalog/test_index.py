"""The index against a model of plain dicts."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.catalog.arrow_rows import batch_from_arrow, to_arrow
from mirror.catalog.index import FORMAT_NAMES, SNAPSHOT, Batch, Index, Sighting
from mirror.catalog.row import UNKNOWN_SOURCE, Row, RowSource
from mirror.content.image import VERDICTS, Verdict
from mirror.content.photo import photo_key
from mirror.layout import FORMATS

# Halves that collide: equal high halves, zero bytes at either end, the greatest numbers.
HALVES = [bytes(8), b"\0" * 7 + b"\1", b"\1" + bytes(7), b"\x7f" + b"\xff" * 7, b"\xff" * 8]
KEYS = [high + low for high in HALVES for low in HALVES]

PHOTOS = [
    f"https://static.inaturalist.org/photos/{number}/{size}.jpg"
    for number in (1, 2)
    for size in ("medium", "large")
]
URLS = [None, "https://example.org/x", *PHOTOS]


class Seen(NamedTuple):
    url: bytes
    content: bytes
    verdict: Verdict
    format: str
    width: int
    source: str | None


SEEN = st.builds(
    Seen,
    st.sampled_from(KEYS),
    st.sampled_from(KEYS),
    st.sampled_from(VERDICTS),
    st.sampled_from(sorted(FORMATS)),
    st.integers(0, 2**31 - 1),
    st.sampled_from(URLS),
)


def sha256_of(content: bytes) -> bytes:
    """One for each content; the first one's begins and ends with zeros."""
    return bytes(32) if content == KEYS[0] else hashlib.sha256(content).digest()


def row_of(seen: Seen, seen_at: int) -> Row:
    source = RowSource(seen.source) if seen.source else UNKNOWN_SOURCE
    sha256, size = sha256_of(seen.content), seen.width * 1000
    return Row(
        seen.url, seen.content, sha256, size, seen.format, seen.width, 7,
        seen.verdict, "", source, seen_at,
    )  # fmt: skip


def batch(rows: Sequence[Row]) -> Batch:
    (one,) = to_arrow(rows).to_batches()
    return batch_from_arrow(one)


def index_of(rows: Sequence[Row], version: int = 0) -> Index:
    return Index.empty().merged([batch(rows)] if rows else [], version, frozenset())


def save(index: Index, folder: Path) -> Index:
    return index.merged([], index.version, index.files, folder)


def the_one_in(folder: Path) -> Path:
    """The only snapshot in a folder that has nothing else but its lock."""
    (found,) = (path for path in folder.iterdir() if path.name != ".lock")
    return found


def agrees(index: Index, rows: Sequence[Row]) -> None:
    """Every look-up in the index agrees with a dict of the latest rows."""
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
    finds(index, KEYS, sorted(latest))
    agrees_on_photos(index, rows, latest)


def finds(index: Index, wanted: Sequence[bytes], known: Sequence[bytes]) -> None:
    """Many keys at once are found at their positions among the sorted known ones."""
    position = {key: at for at, key in enumerate(known)}
    expected = [position.get(key, -1) for key in wanted]
    digests = np.frombuffer(b"".join(wanted), "u1").reshape(-1, 16)
    for form in (b"".join(wanted), digests, np.asfortranarray(digests)):
        assert index.find(form).tolist() == expected


def agrees_on_photos(index: Index, rows: Sequence[Row], latest: dict[bytes, Row]) -> None:
    """A photo that any row of a URL has given is kept, and its best sighting is found."""
    photos: dict[bytes, int] = {}
    for one in sorted(rows, key=lambda one: one.seen_at):
        key = photo_key(one.source.url or "")
        photos[one.url_md5] = key or photos.get(one.url_md5, 0)
    known = sorted(latest)
    assert index.sightings["photo"].tolist() == [photos[url] for url in known]
    wanted = [0, *map(photo_key, PHOTOS), 2**64 - 1]
    best = []
    for key in wanted:
        those = [latest[url] for url in known if photos[url] == key != 0]
        those.sort(key=lambda one: (one.verdict != "ok", -one.seen_at, one.url_md5))
        best.append(known.index(those[0].url_md5) if those else -1)
    assert index.find_photos(np.array(wanted, "u8")).tolist() == best


@given(st.lists(SEEN, max_size=60), st.data())
@settings(deadline=None)
def test_batches_in_any_split_and_order_give_the_latest_row_of_every_url(
    seen: list[Seen], data: st.DataObject
) -> None:
    rows = [row_of(one, seen_at) for seen_at, one in enumerate(seen)]
    # A compaction repeats rows, and so does an append whose answer was lost.
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
            files = frozenset({f"f{number}"})
            index = index.merged(batches, number, files, folder)
            for one in (index, Index.load(folder)):
                agrees(one, arriving[:end])
                assert (one.version, one.files) == (number, files)
            assert the_one_in(folder).name.startswith(f"v{number}-")


@given(st.lists(SEEN, max_size=20))
@settings(deadline=None, max_examples=25)
def test_a_saved_index_is_loaded_unchanged(seen: list[Seen]) -> None:
    rows = [row_of(one, seen_at) for seen_at, one in enumerate(seen)]
    index = Index.empty().merged([batch(rows)] if rows else [], 3, frozenset({"a", "b"}))
    with TemporaryDirectory() as name:
        save(index, Path(name))
        loaded = Index.load(Path(name))
        agrees(loaded, rows)
        assert (loaded.version, loaded.files) == (3, frozenset({"a", "b"}))
        agrees(loaded.merged([batch(rows)] if rows else [], 4, frozenset()), rows)


@given(st.lists(SEEN, max_size=40), st.data())
@settings(deadline=None, max_examples=60)
def test_a_url_is_first_seen_when_it_began_to_have_its_content(
    seen: list[Seen], data: st.DataObject
) -> None:
    rows = [row_of(one._replace(url=KEYS[at % 3]), at) for at, one in enumerate(seen)]
    arriving: list[Row] = []
    for at, one in enumerate(rows):  # in the order of the commits, some of them again
        arriving += [one, *data.draw(st.lists(st.sampled_from(rows[: at + 1]), max_size=1))]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(arriving)), max_size=4)))
    index = Index.empty()
    for begin, end in pairwise([0, *cuts, len(arriving)]):
        index = index.merged([batch(arriving[begin:end])] if end > begin else [], end, frozenset())
    first: dict[bytes, int] = {}
    content: dict[bytes, bytes] = {}
    for one in rows:
        if content.get(one.url_md5) != one.content_hash:
            content[one.url_md5], first[one.url_md5] = one.content_hash, one.seen_at
    assert index.sightings["first_seen"].tolist() == [first[url] for url in sorted(first)]


def near(number: int) -> bytes:
    return bytes([1]) + number.to_bytes(34, "big")


def stored_near(index: Index, content: bytes) -> bytes:
    at = index.objects["hash_lo"].tolist().index(int.from_bytes(content[8:]))
    found: bytes = index.objects["near"][at].tobytes()
    return found


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
def test_a_row_without_a_hash_leaves_the_contents_hash_as_it_is(
    turned: bool, at_once: bool
) -> None:
    content = KEYS[-1]
    rows = [
        row_of(Seen(KEYS[1], content, "ok", "jpeg", 5, None), 1)._replace(near=near(2)),
        row_of(Seen(KEYS[1], content, "ok", "jpeg", 5, "https://example.org/x"), 2),
        row_of(Seen(KEYS[2], content, "ok", "jpeg", 5, None), 3)._replace(near=near(1 << 200)),
        row_of(Seen(KEYS[3], content, "blank", "jpeg", 5, None), 4)._replace(near=near(0)),
    ]
    if turned:
        rows.reverse()
    index = Index.empty()
    for part in [rows] if at_once else [[one] for one in rows]:
        index = index.merged([batch(part)], index.version + 1, frozenset())
    assert stored_near(index, content) == near(2)
    stored = index.stored_object(content)
    assert stored is not None
    assert stored.hashed


@pytest.mark.parametrize(
    "foreign", [b"", b"\1", near(5)[:-1], near(5) + b"\0", b"\2" + near(5)[1:]]
)
def test_a_hash_of_another_length_or_version_counts_as_none(foreign: bytes) -> None:
    index = index_of([ROWS[0]._replace(near=foreign)])
    assert stored_near(index, ROWS[0].content_hash) == bytes(35)
    stored = index.stored_object(ROWS[0].content_hash)
    assert stored is not None
    assert not stored.hashed


ROWS = [row_of(Seen(key, key, "ok", "jpeg", 5, None), at) for at, key in enumerate(KEYS)]


def test_an_empty_index_has_no_rows_and_can_be_saved(tmp_path: Path) -> None:
    agrees(Index.empty(), [])
    assert Index.empty().version == -1
    agrees(Index.load(tmp_path / "absent"), [])
    save(index_of([], version=0), tmp_path)
    assert Index.load(tmp_path).version == 0
    agrees(Index.load(tmp_path), [])


def test_flagged_rows_name_no_object(tmp_path: Path) -> None:
    flagged = [one._replace(verdict="blank") for one in ROWS]
    save(index_of(flagged), tmp_path)
    agrees(Index.load(tmp_path), flagged)


def test_of_two_rows_with_one_time_one_wins_and_the_index_stays_sorted() -> None:
    twice = [ROWS[0], ROWS[0]._replace(size=9), *ROWS[1:]]
    index = index_of(twice)
    assert len(index) == len(ROWS)
    assert index.sighting(KEYS[-1]) is not None


@given(st.data())
@settings(deadline=None)
def test_each_of_many_urls_is_found_at_its_position(data: st.DataObject) -> None:
    # Few high halves, so that most are shared by several, and runs of equal ones end the index.
    key = st.builds(bytes.__add__, st.sampled_from(HALVES), st.binary(min_size=8, max_size=8))
    known = sorted(data.draw(st.sets(key, max_size=40)))
    strangers = st.one_of(key, st.binary(min_size=16, max_size=16), st.sampled_from(KEYS))
    wanted = data.draw(st.lists(st.sampled_from(known) | strangers if known else strangers))
    index = index_of([ROWS[0]._replace(url_md5=url) for url in known])
    finds(index, wanted, known)


@given(st.lists(SEEN, min_size=1, max_size=30), st.lists(st.sampled_from(KEYS), max_size=8))
@settings(deadline=None)
def test_each_of_many_contents_is_found_in_an_ok_row_if_there_is_one(
    seen: list[Seen], contents: list[bytes]
) -> None:
    index = index_of([row_of(one, at) for at, one in enumerate(seen)])
    latest = {one.url: one for one in seen}.values()
    at = index.find_contents(b"".join(contents)).tolist()
    assert at == [int(index.find_contents(content)[0]) for content in contents]
    for content, where in zip(contents, at, strict=True):
        verdicts = {one.verdict for one in latest if one.content == content}
        assert (where >= 0) == bool(verdicts)
        if verdicts:
            assert index.content_hashes(np.array([where])).tobytes() == content
            found = VERDICTS[index.sightings["verdict"][where]]
            assert found == "ok" if "ok" in verdicts else found in verdicts


@given(st.lists(SEEN, min_size=1, max_size=30))
@settings(deadline=None)
def test_rows_have_the_md5_of_their_url(seen: list[Seen]) -> None:
    index = index_of([row_of(one, at) for at, one in enumerate(seen)])
    everywhere = np.arange(len(index))
    urls = index.url_md5s(everywhere).tobytes()
    assert index.find(urls).tolist() == everywhere.tolist()
    assert {urls[at : at + 16] for at in range(0, len(urls), 16)} == {one.url for one in seen}


@pytest.mark.parametrize("nbytes", [1, 8, 15, 24])
def test_half_a_digest_is_refused(nbytes: int) -> None:
    with pytest.raises(ValueError):
        index_of(ROWS).find(bytes(nbytes))


def test_columns_have_the_values_of_the_sightings(tmp_path: Path) -> None:
    rows = [
        one._replace(verdict=VERDICTS[at % 5], format=sorted(FORMATS)[at % 14], width=at)
        for at, one in enumerate(ROWS)
    ]
    for index in (index_of(rows), save(index_of(rows), tmp_path)):
        at = index.find(b"".join(KEYS[::3]))
        hashes = index.content_hashes(at)
        assert hashes.shape == (len(at), 16)
        verdicts, formats = (index.sightings[name][at] for name in ("verdict", "format"))
        for key, *found in zip(KEYS[::3], hashes, verdicts, formats, strict=True):
            one = index.sighting(key)
            assert one is not None
            content, verdict, format_code = found
            assert content.tobytes() == one.content_hash
            assert (VERDICTS[verdict], FORMAT_NAMES[format_code]) == (one.verdict, one.format)
        assert index.sightings["width"][at].tolist() == list(range(0, 25, 3))


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"seen_at": 1}, {"seen_at": 9, "verdict": "corrupt"}),
        ({"seen_at": 1}, {"seen_at": 9, "verdict": "placeholder"}),
        ({"seen_at": 9}, {"seen_at": 8}),
        ({"seen_at": 9, "verdict": "blank"}, {"seen_at": 8, "verdict": "corrupt"}),
        ({"seen_at": 9, "url_md5": KEYS[3]}, {"seen_at": 9, "url_md5": KEYS[4]}),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_better_sighting_of_a_photo_is_found(
    better: dict[str, Any], worse: dict[str, Any], turned: bool
) -> None:
    urls = {"url_md5": KEYS[7]}, {"url_md5": KEYS[5]}
    if turned:
        urls = urls[::-1]
    one = row_of(Seen(KEYS[0], KEYS[0], "ok", "jpeg", 5, PHOTOS[0]), 0)
    rows = [one._replace(**{**url, **how}) for url, how in zip(urls, (better, worse), strict=True)]
    index = index_of(rows)
    (at,) = index.find_photos(np.array([photo_key(PHOTOS[0])], "u8"))
    assert at == index.find(rows[0].url_md5)[0]


def test_photos_that_differ_in_their_last_bit_are_distinguished() -> None:
    number = 10**18 - 1  # beyond what a float can tell from its neighbours
    medium, large = (
        photo_key(f"https://static.inaturalist.org/photos/{number}/{size}.jpg")
        for size in ("medium", "large")
    )
    url = f"https://static.inaturalist.org/photos/{number}/medium.jpg"
    index = index_of([row_of(Seen(KEYS[0], KEYS[0], "ok", "jpeg", 5, url), 0)])
    for kind in ("u8", "i8"):
        assert index.find_photos(np.array([medium, large], kind)).tolist() == [0, -1]


def test_a_photo_that_a_row_has_given_is_kept(tmp_path: Path) -> None:
    told = row_of(Seen(KEYS[3], KEYS[0], "ok", "jpeg", 5, PHOTOS[0]), 5)
    later = told._replace(source=UNKNOWN_SOURCE, seen_at=9)
    index = save(index_of([told], 1), tmp_path)
    for version, new in ((2, [later]), (3, [later._replace(seen_at=11)]), (4, ROWS[:3])):
        index = index.merged([batch(new)], version, frozenset({str(version)}), tmp_path)
        assert index.find_photos(np.array([photo_key(PHOTOS[0])], "u8")) == index.find(KEYS[3])
    found = index.sighting(KEYS[3])
    assert found is not None
    assert (found.seen_at, found.sourced) == (11, False)


def test_a_new_snapshot_replaces_the_old_one(tmp_path: Path) -> None:
    save(index_of(ROWS[:1], 1), tmp_path)
    reader = Index.load(tmp_path)
    save(index_of(ROWS, 2), tmp_path)
    assert the_one_in(tmp_path).name.startswith("v2-")
    agrees(reader, ROWS[:1])  # a process that has mapped the old one keeps it
    agrees(reader.merged([batch(ROWS)], 3, frozenset({"new"}), tmp_path), ROWS)  # and goes on
    agrees(Index.load(tmp_path), ROWS)


def test_the_newest_snapshot_is_by_number(tmp_path: Path) -> None:
    for version in (9, 10):
        save(index_of(ROWS, version), tmp_path / str(version))
        made = the_one_in(tmp_path / str(version))
        made.rename(tmp_path / made.name)
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
def test_a_damaged_snapshot_is_skipped(
    name: str, damage: Callable[[Path], object], tmp_path: Path
) -> None:
    save(index_of(ROWS, 2), tmp_path)
    damage(the_one_in(tmp_path) / name)
    agrees(Index.load(tmp_path), [])
    assert Index.load(tmp_path).version == -1


def test_a_snapshot_is_mapped_without_pythons_parser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11's parser may fail where two threads use it at once."""
    save(index_of(ROWS, 2), tmp_path)

    def fail(*_: object) -> None:
        raise SystemError

    monkeypatch.setattr("ast.literal_eval", fail)
    agrees(Index.load(tmp_path), ROWS)


def test_of_two_snapshots_the_damaged_one_is_skipped(tmp_path: Path) -> None:
    for version, rows in ((1, ROWS[:2]), (2, ROWS)):
        save(index_of(rows, version), tmp_path / str(version))
        made = the_one_in(tmp_path / str(version))
        made.rename(tmp_path / made.name)
        if version == 2:
            cut(tmp_path / made.name / ARRAY)
    agrees(Index.load(tmp_path), ROWS[:2])


def test_a_damaged_snapshot_is_replaced_by_the_next_one(tmp_path: Path) -> None:
    save(index_of(ROWS, 2), tmp_path)
    cut(the_one_in(tmp_path) / ARRAY)
    save(index_of(ROWS, 2), tmp_path)
    assert the_one_in(tmp_path).name.startswith("v2-")
    agrees(Index.load(tmp_path), ROWS)


@pytest.mark.parametrize("stranger", ["v", "v3", "v3.bak", "v3-", "vacation-1"])
def test_a_foreign_file_among_the_snapshots_is_skipped(stranger: str, tmp_path: Path) -> None:
    save(index_of(ROWS, 2), tmp_path)
    (tmp_path / stranger).mkdir()
    assert Index.load(tmp_path).version == 2


def test_rows_that_are_merged_are_not_in_memory_twice(tmp_path: Path) -> None:
    """At ten million rows the first index of a machine took 3.4 GB: its rows are 1 GB of that."""
    chance = np.random.default_rng(1)
    rows, parts = 200_000, 5

    def made(count: int) -> Batch:
        one: Batch = {
            name: np.frombuffer(chance.bytes(8 * count), "u8").copy()
            for name in ("url_hi", "url_lo", "hash_hi", "hash_lo", "photo")
        }
        one |= {name: np.ones(count, "i8") for name in ("size", "seen_at", "first_seen")}
        one |= {name: np.ones(count, "i4") for name in ("width", "height")}
        one |= {name: np.zeros(count, "u1") for name in ("format", "verdict")}
        return one | {
            "sourced": np.ones(count, "?"),
            "sha256": np.frombuffer(chance.bytes(32 * count), "V32"),
            "near": np.frombuffer(chance.bytes(35 * count), "V35"),
        }

    tracemalloc.start()
    try:
        batches = [made(rows // parts) for _ in range(parts)]
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        index = Index.empty().merged(batches, 1, frozenset({"a"}), tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(index) == len(index.objects["hash_hi"]) == rows
    assert peak < 2.5 * held
