"""Walks of a cache, and plans from their comparison with the state."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mirror.cache.scan import Entries, Entry, ScanCount, signature, walk
from mirror.catalog.delta_table import COMMIT_PUTS
from mirror.catalog.row import UNKNOWN_SOURCE, Row
from mirror.config.settings import IMAGE_EXTENSIONS, PriceSettings
from mirror.content.digest import Identity
from mirror.errors import CacheError
from mirror.sync import plan as plan_module
from mirror.sync.plan import FileSelection, SyncPlan, estimate, make_plan
from mirror.sync.state import SeenFile, State

Files = dict[bytes, Identity]
EVERYTHING = FileSelection()


def path_of(number: int) -> bytes:
    return (b"sub/" if number % 3 == 0 else b"") + b"%032x.jpg" % (number * 0x1234567 << 100)


def planned(
    files: Files, state: State, selection: FileSelection = EVERYTHING, ignored: int = 0
) -> SyncPlan:
    walked = ((path, *identity) for path, identity in files.items())
    return make_plan(walked, ScanCount(ignored), state, selection)


def carry_out(plan: SyncPlan, state: State) -> None:
    """Record files in the state as a successful sync does."""
    state.mark(vanished=plan.vanished_signatures, returned=plan.returned_signatures)
    state.record(
        SeenFile(entry, Row(entry.url_md5, bytes(16), bytes(32), 0, "jpeg", 0, 0, "ok", "",
                            UNKNOWN_SOURCE, 0), None)
        for entry in (plan.pending[at] for at in plan.order)
    )  # fmt: skip


def counts(plan: SyncPlan) -> tuple[int, int, int, int, int]:
    """Scanned, new, changed, unchanged, vanished."""
    return plan.scanned, plan.new, plan.changed, plan.unchanged, plan.vanished


def paths(plan: SyncPlan) -> set[bytes]:
    return {plan.pending[at].path for at in plan.order}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path)
    yield made
    made.close()


@pytest.fixture
def synced(state: State) -> Files:
    """Ten files that the state knows."""
    files = {path_of(n): Identity(100 + n, 1_000, n) for n in range(10)}
    carry_out(planned(files, state), state)
    return files


def edited(identity: Identity, **change: int) -> Identity:
    return identity._replace(**change)


# --- the table ---


def test_a_known_file_in_place_is_unchanged(state: State, synced: Files) -> None:
    assert counts(planned(synced, state)) == (10, 0, 0, 10, 0)


@pytest.mark.parametrize("change", [{"size": 1}, {"mtime_ns": 1}, {"inode": 2**64 - 1}])
def test_a_known_path_with_another_identity_is_changed(
    change: dict[str, int], state: State, synced: Files
) -> None:
    files = synced | {path_of(4): edited(synced[path_of(4)], **change)}
    plan = planned(files, state)
    assert counts(plan) == (10, 0, 1, 9, 0)
    assert paths(plan) == {path_of(4)}


def test_an_unknown_path_is_new(state: State, synced: Files) -> None:
    plan = planned(synced | {path_of(99): Identity(1, 1, 1)}, state)
    assert counts(plan) == (11, 1, 0, 10, 0)
    assert paths(plan) == {path_of(99)}


def test_a_file_that_is_not_there_has_vanished_and_one_that_returns_as_it_was_is_unchanged(
    state: State, synced: Files
) -> None:
    fewer = {path: identity for path, identity in synced.items() if path != path_of(4)}
    plan = planned(fewer, state)
    assert counts(plan) == (9, 0, 0, 9, 1)
    carry_out(plan, state)
    assert counts(planned(fewer, state)) == (9, 0, 0, 9, 0)
    plan = planned(synced, state)
    assert counts(plan) == (10, 0, 0, 10, 0)
    assert len(plan.returned_signatures) == 1
    carry_out(plan, state)
    assert counts(planned(fewer, state)) == (9, 0, 0, 9, 1)


def test_a_vanished_file_that_returns_with_another_content_is_read(
    state: State, synced: Files
) -> None:
    carry_out(planned({}, state), state)
    plan = planned({path_of(4): edited(synced[path_of(4)], size=1)}, state)
    assert plan.new + plan.changed == 1
    assert paths(plan) == {path_of(4)}


def test_a_file_that_moved_is_new_there_and_vanished_here(state: State, synced: Files) -> None:
    files = dict(synced)
    files[b"moved/" + path_of(4)] = files.pop(path_of(4))
    assert counts(planned(files, state)) == (10, 1, 0, 9, 1)


def test_planning_changes_nothing(state: State, synced: Files) -> None:
    first, second = (planned({path_of(99): Identity(1, 1, 1)}, state) for _ in range(2))
    assert counts(first) == counts(second) == (1, 1, 0, 0, 10)


def test_the_order_is_that_of_inodes(state: State) -> None:
    inodes = [5, 2**63 - 1, 3, 0, 4]
    plan = planned({path_of(n): Identity(1, 1, inode) for n, inode in enumerate(inodes)}, state)
    order = [plan.pending[at].identity.inode for at in plan.order]
    assert order == sorted(inodes)


# --- the selection of files ---


def hexes(prefix: str) -> bytes:
    return prefix.encode().ljust(32, b"0") + b".jpg"


SOME = {
    hexes("ab01"): Identity(1, 1, 1),
    hexes("AB02"): Identity(2, 1, 2),
    b"ab/" + hexes("ac03"): Identity(3, 1, 3),
    hexes("0004"): Identity(4, 1, 4),
}


@pytest.mark.parametrize(
    ("prefix", "sizes"),
    [("", {1, 2, 3, 4}), ("a", {1, 2, 3}), ("ab", {1, 2}), ("ab01", {1}), ("f", set())],
)
def test_a_prefix_selects_by_the_urls_md5_in_any_case_and_folder(
    prefix: str, sizes: set[int], state: State
) -> None:
    plan = planned(SOME, state, FileSelection(prefix=prefix))
    assert {plan.pending[at].identity.size for at in plan.order} == sizes
    assert plan.scanned == len(sizes)


def test_members_are_looked_up_by_the_urls_md5(state: State) -> None:
    wanted = {bytes.fromhex("ab02".ljust(32, "0")), bytes.fromhex("0004".ljust(32, "0"))}
    plan = planned(SOME, state, FileSelection(members=wanted.__contains__))
    assert paths(plan) == {hexes("AB02"), hexes("0004")}
    plan = planned(SOME, state, FileSelection(prefix="ab", members=wanted.__contains__))
    assert paths(plan) == {hexes("AB02")}


def test_a_run_of_some_files_reports_nothing_about_the_others(state: State) -> None:
    carry_out(planned(SOME, state), state)
    for selection in (FileSelection(prefix="a"), FileSelection(members=lambda _: False)):
        assert planned({}, state, selection).vanished == 0
    assert planned({}, state, FileSelection(max_files=1)).vanished == 4


@pytest.mark.parametrize("most", [0, 1, 4, 9, None])
def test_a_limit_counts_files_to_read_and_leaves_the_rest_to_the_next_run(
    most: int | None, state: State
) -> None:
    files = {path_of(n): Identity(10, 1, n) for n in range(5)}
    done = 0
    for _ in range(2):
        plan = planned(files, state, FileSelection(max_files=most))
        begun = min(5 - done, 5 if most is None else most)
        assert counts(plan) == (5, 5 - done, 0, done, 0)
        assert (len(plan.order), plan.pending_bytes) == (begun, 10 * begun)
        carry_out(plan, state)
        done += begun


# --- any changes of a cache ---

NUMBERS = st.integers(0, 30)
INODES = st.integers(0, 2**64 - 1)
IDENTITIES = st.builds(
    Identity, st.integers(0, 2**40), st.integers(-(2**62), 2**62), INODES
)  # fmt: skip


class Cache(RuleBasedStateMachine):
    """A cache that is added to, edited and lost, and its state, against a model of sets."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.state = State(Path(self._folder.name))
        self.files: Files = {}
        self.known: Files = {}
        self.gone: Files = {}

    def teardown(self) -> None:
        self.state.close()
        self._folder.cleanup()

    @initialize(numbers=st.sets(NUMBERS))
    def begin(self, numbers: set[int]) -> None:
        self.files = {path_of(n): Identity(n, n, n) for n in sorted(numbers)}

    @rule(number=NUMBERS, identity=IDENTITIES)
    def put(self, number: int, identity: Identity) -> None:
        self.files[path_of(number)] = identity

    @rule(number=NUMBERS)
    def lose(self, number: int) -> None:
        self.files.pop(path_of(number), None)

    @rule()
    def lose_all(self) -> None:
        self.files = {}

    @rule()
    def restore(self) -> None:
        self.files |= self.gone

    @rule()
    def sync(self) -> None:
        plan = planned(self.files, self.state)
        carry_out(plan, self.state)
        self.gone |= {p: i for p, i in self.known.items() if p not in self.files}
        self.known = dict(self.files)
        self.gone = {p: i for p, i in self.gone.items() if p not in self.files}
        assert counts(planned(self.files, self.state)) == (
            len(self.files), 0, 0, len(self.files), 0,
        )  # fmt: skip

    @rule(most=st.integers(0, 3))
    def sync_a_few(self, most: int) -> None:
        plan = planned(self.files, self.state, FileSelection(max_files=most))
        carry_out(plan, self.state)
        gone = self.known | self.gone
        returned = {p for p, i in self.gone.items() if self.files.get(p) == i}
        self.known = {
            p: self.files[p] if p in paths(plan) | returned else self.known[p]
            for p in self.files
            if p in paths(plan) | returned | set(self.known)
        }
        self.gone = {p: i for p, i in gone.items() if p not in self.known}

    @invariant()
    def the_plan_counts_what_has_happened(self) -> None:
        known_or_back = set(self.known.items()) | set(self.gone.items())
        unchanged = set(self.files.items()) & known_or_back
        read = {path for path, _ in set(self.files.items()) - unchanged}
        changed = read & set(self.known)
        plan = planned(self.files, self.state)
        assert counts(plan) == (
            len(self.files), len(read - changed), len(changed), len(unchanged),
            len(set(self.known) - set(self.files)),
        )  # fmt: skip
        assert paths(plan) == read
        assert {plan.pending[at] for at in plan.order} == {
            Entry(path, self.files[path]) for path in read
        }


Cache.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
test_whatever_happens_to_a_cache_the_plan_counts_it = Cache.TestCase


def test_a_walk_is_compared_in_pieces(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "_CHUNK", 7)
    files = {path_of(n): Identity(n, 1, n) for n in range(50)}
    carry_out(planned(files, state), state)
    carry_out(planned({p: i for p, i in files.items() if i.size < 40}, state), state)
    files |= {path_of(n): Identity(n, 2, n) for n in (3, 8)}
    files |= {path_of(n): Identity(n, 1, n) for n in range(50, 60)}
    del files[path_of(0)]
    assert counts(planned(files, state)) == (59, 10, 2, 47, 1)


# --- entries ---


PATHS = st.binary(max_size=20).map(lambda name: name.replace(b"\0", b"/"))
ENTRIES = st.lists(st.tuples(PATHS, IDENTITIES))


@given(ENTRIES)
def test_entries_come_back_as_they_were_put(many: list[tuple[bytes, Identity]]) -> None:
    entries = Entries()
    for path, identity in many:
        entries.append(path, *identity)
    assert len(entries) == len(many)
    assert list(entries) == [Entry(*one) for one in many]
    assert entries.total_bytes == sum(identity.size for _, identity in many)
    assert sorted(entries.by_inode()) == list(range(len(many)))


@given(PATHS, IDENTITIES, PATHS, IDENTITIES)
def test_signatures_are_equal_only_for_equal_files(
    path: bytes, identity: Identity, other_path: bytes, other: Identity
) -> None:
    one, two = (path, *identity), (other_path, *other)
    assert (signature(one) == signature(two)) is (one == two)


# --- what it costs ---


# One dollar for each request.
PRICES = PriceSettings(storage_gb_month=1.0, write_million=1e6, read_million=1e6, egress_gb=0.0)


def test_an_estimate_counts_objects_and_commits(state: State) -> None:
    plan = planned({path_of(n): Identity(10**9, 1, n) for n in range(5)}, state)
    three, one = (estimate(plan, PRICES, commit_rows=rows, rate=1e9) for rows in (2, 5))
    assert three.puts - one.puts == 2 * COMMIT_PUTS
    assert one.puts >= 5 + COMMIT_PUTS
    for cost in (three, one):
        assert (cost.bytes, cost.storage_usd_month, cost.seconds) == (5 * 10**9, 5.0, 5.0)
        assert cost.request_usd == cost.requests
    assert estimate(plan, PRICES, commit_rows=2, rate=None).seconds is None


def test_a_run_with_nothing_to_do_costs_one_request(state: State, synced: Files) -> None:
    cost = estimate(planned(synced, state), PRICES, commit_rows=2, rate=1.0)
    assert (cost.puts, cost.requests, cost.bytes, cost.seconds) == (0, 1, 0, 0.0)


# --- the walk ---


def name(number: int, extension: str = "jpg") -> str:
    return f"{number:032x}.{extension}"


def walked(root: Path, count: ScanCount | None = None) -> dict[bytes, Identity]:
    found = walk(os.fsencode(root), IMAGE_EXTENSIONS, count or ScanCount())
    return {path: Identity(*numbers) for path, *numbers in found}


def test_a_walk_finds_images_in_the_folder_and_below_as_they_are(tmp_path: Path) -> None:
    names = [name(1), name(2, "JPEG"), name(3, "webp"), f"ab/{name(4)}", f"ab/cd/{name(5, 'PnG')}"]
    names.append(name(0xABCDEF).upper())
    (tmp_path / "ab" / "cd").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for size, one in enumerate(names):
        (tmp_path / one).write_bytes(bytes(size))
    count = ScanCount()
    expected = {one.encode(): Identity.of((tmp_path / one).stat()) for one in names}
    assert walked(tmp_path, count) == expected
    assert (count.ignored, count.unreadable) == (0, [])


STRANGERS = [
    name(1, "part"),
    name(1, "jpg.part"),
    name(1, "json"),
    name(1) + "~",
    name(1)[1:],
    "0" + name(1),
    "g" + name(1)[1:],
    "." + name(1),
    "0" * 32,
    "cat.jpg",
    ".DS_Store",
]


def test_other_files_are_ignored_and_counted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for stranger in STRANGERS:
        (tmp_path / stranger).touch()
        (tmp_path / "sub" / stranger).touch()
    count = ScanCount()
    assert walked(tmp_path, count) == {}
    assert (count.ignored, count.unreadable) == (2 * len(STRANGERS), [])


def test_anything_but_regular_files_is_ignored(tmp_path: Path) -> None:
    outside, cache = tmp_path / "outside", tmp_path / "cache"
    for folder in (outside, cache / ".hidden", cache / name(1)):
        folder.mkdir(parents=True)
        (folder / name(2)).touch()
    (cache / name(3)).symlink_to(outside / name(2))
    (cache / name(4)).symlink_to("nowhere")
    (cache / "folder").symlink_to(outside)
    (cache / "round").symlink_to(cache)
    os.mkfifo(cache / name(5))
    count = ScanCount()
    assert walked(cache, count) == {}
    assert (count.ignored, count.unreadable) == (7, [])


def test_a_cache_that_is_itself_a_link_is_walked(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / name(1)).touch()
    (tmp_path / "link").symlink_to("cache")
    assert set(walked(tmp_path / "link")) == {name(1).encode()}


def test_names_of_folders_may_be_any_bytes(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\xff\xfe caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/" + name(1).encode(), "wb"):
        pass
    assert set(walked(tmp_path)) == {b"\xff\xfe caf\xe9/" + name(1).encode()}


def too_deep(root: Path, piece: bytes) -> None:
    """Folders with a path too long for the system: unreadable even for root."""
    here = os.open(root, os.O_RDONLY)
    for _ in range(4096 // len(piece) + 1):
        os.mkdir(piece, dir_fd=here)
        below = os.open(piece, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


@pytest.mark.parametrize("piece", [b"d" * 250, b"\xff" * 250])
def test_a_folder_that_cannot_be_read_is_reported_and_the_rest_is_walked(
    piece: bytes, tmp_path: Path
) -> None:
    too_deep(tmp_path, piece)
    (tmp_path / name(1)).touch()
    (tmp_path / os.fsdecode(piece) / name(2)).touch()
    count = ScanCount()
    assert len(walked(tmp_path, count)) == 2
    assert count.ignored == 0
    ((path, why),) = count.unreadable
    assert why == "File name too long"
    assert (path + why).encode()  # it goes into a report: JSON takes no lone surrogates


def test_a_missing_cache_is_an_error_that_says_what_to_check(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="does not exist; check that its disk is mounted"):
        walked(tmp_path / "absent")


def test_a_cache_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="not a folder"):
        walked(tmp_path / "file")


def test_an_unreadable_cache_is_an_error() -> None:
    me = os.geteuid()
    with tempfile.TemporaryDirectory() as closed:
        os.chmod(closed, 0)
        os.seteuid(65534 if me == 0 else me)  # permissions mean nothing to root
        try:
            with pytest.raises(CacheError, match="give this user access"):
                walked(Path(closed))
        finally:
            os.seteuid(me)
            os.chmod(closed, 0o700)
