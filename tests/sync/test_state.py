"""The local state: what it keeps, and its errors."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.cache.scan import SIGNATURE_BYTES, Entry
from mirror.catalog.row import UNKNOWN_SOURCE, Row, RowSource
from mirror.content.digest import Identity
from mirror.content.image import VERDICTS
from mirror.errors import StateDamaged, StateError
from mirror.run.run_log import RunRecord
from mirror.sync.state import FILE_NAME, SCHEMA_VERSION, SeenFile, State, set_aside


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path)
    yield made
    made.close()


def seen(number: int, *, size: int = 7, inode: int = 1, folder: bytes = b"") -> SeenFile:
    path = folder + b"%032x.jpg" % number
    entry = Entry(path, Identity(size, 1_000 + number, inode))
    verdict = VERDICTS[number % len(VERDICTS)]
    row = Row(
        number.to_bytes(16, "big"), bytes(16), bytes(32), size, "jpeg", 3, 4,
        verdict, "why", RowSource("https://example.org"), 9,
    )  # fmt: skip
    return SeenFile(entry, row, b"12345678" if number % 2 else None)


def signatures(state: State, *, gone: bool = False) -> list[bytes]:
    joined = state.signatures(gone=gone)
    return [joined[at : at + SIGNATURE_BYTES] for at in range(0, len(joined), SIGNATURE_BYTES)]


def remembered(state: State) -> dict[bytes, tuple[Row, bytes | None]]:
    return {path: (row, digest) for path, row, digest in state.files()}


FILES = [seen(n, folder=b"\xff sub/" if n % 2 else b"") for n in range(40)]


def expected(files: list[SeenFile]) -> dict[bytes, tuple[Row, bytes | None]]:
    return {
        one.entry.path: (one.row._replace(source=UNKNOWN_SOURCE, seen_at=0), one.source_digest)
        for one in files
    }


@pytest.mark.parametrize("count", [0, 1, 75, 76, 77, 152, 400])
def test_any_number_of_files_is_recorded_at_once(state: State, count: int) -> None:
    files = [seen(n) for n in range(count)]
    state.record(files)
    assert remembered(state) == expected(files)
    again = [seen(n, size=8) for n in range(count)]
    state.record(again)
    assert remembered(state) == expected(again)


def test_recorded_files_are_known_to_the_next_run(tmp_path: Path) -> None:
    first = State(tmp_path)
    first.record(FILES)
    first.set("mirror_id", "abc")
    first.close()
    again = State(tmp_path)
    assert remembered(again) == expected(FILES)
    assert signatures(again) == sorted(one.entry.signature for one in FILES)
    assert (again.get("mirror_id"), again.get("other")) == ("abc", None)
    again.close()


def test_a_file_recorded_again_replaces_its_row(state: State) -> None:
    state.record(FILES)
    changed = seen(0, size=99)
    state.record([changed])
    assert remembered(state) == expected(FILES) | expected([changed])
    assert len(signatures(state)) == len(FILES)
    assert changed.entry.signature in signatures(state)


def test_only_known_paths_have_signatures(state: State) -> None:
    many = [seen(n) for n in range(1200)]  # more than one look-up takes
    state.record(many)
    state.mark(vanished=[many[3].entry.signature])
    asked = [one.entry.path for one in many] + [b"never-seen.jpg"]
    known = {one.entry.path: one.entry.signature for one in many if one is not many[3]}
    assert dict(state.signatures_of(asked)) == known
    assert list(state.signatures_of([])) == []


def test_files_are_recorded_all_or_none(state: State) -> None:
    state.record(FILES[:2])
    bad = seen(9)._replace(source_digest=object())  # type: ignore[arg-type]
    with pytest.raises(StateError):
        state.record([*FILES, bad])
    assert remembered(state) == expected(FILES[:2])
    state.record(FILES)  # and the state is usable after it
    assert remembered(state) == expected(FILES)


@given(st.lists(st.tuples(st.sampled_from(range(12)), st.booleans()), max_size=30))
@settings(deadline=None, max_examples=40)
def test_files_vanish_and_return_by_their_signature(steps: list[tuple[int, bool]]) -> None:
    files, gone = FILES[:12], set[int]()
    with tempfile.TemporaryDirectory() as name:
        state = State(Path(name))
        state.record(files)
        for number, leaves in steps:
            signature = files[number].entry.signature
            if leaves:
                state.mark(vanished=[signature, bytes(16)])  # an unknown one says nothing
                gone.add(number)
            else:
                state.mark(returned=[signature])
                gone.discard(number)
            here = [one for n, one in enumerate(files) if n not in gone]
            away = [one for n, one in enumerate(files) if n in gone]
            assert signatures(state) == sorted(one.entry.signature for one in here)
            assert signatures(state, gone=True) == sorted(one.entry.signature for one in away)
            assert remembered(state) == expected(here)
        state.close()


def test_a_look_up_costs_no_more_where_more_files_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise planning would take quadratic time. Steps are those of SQLite's virtual machine."""
    steps = 0

    def stepped() -> None:
        nonlocal steps
        steps += 1

    def counting(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.set_progress_handler(stepped, 10)
        return connection

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", counting)
    wanted = [seen(n).entry.path for n in range(0, 200, 2)]
    costs = []
    for number, files in enumerate([200, 4000]):
        folder = tmp_path / str(number)
        folder.mkdir()
        state = State(folder)
        state.record(map(seen, range(files)))
        state.mark(vanished=[seen(0).entry.signature])
        steps = 0
        found = list(state.signatures_of(wanted))
        costs.append(steps)
        assert sorted(found) == [
            (one.path, one.signature) for one in (seen(n).entry for n in range(2, 200, 2))
        ]
        state.close()
    assert costs[0] > 0
    assert costs[1] <= 1.5 * costs[0]


def test_a_vanished_file_that_is_recorded_is_present_again(state: State) -> None:
    state.record(FILES)
    state.mark(vanished=[FILES[0].entry.signature])
    state.record([seen(0, size=8)])
    assert signatures(state, gone=True) == []
    assert len(signatures(state)) == len(FILES)


def test_forgetting_forgets_files_and_nothing_else(state: State) -> None:
    state.record(FILES)
    state.mark(vanished=[FILES[0].entry.signature])
    state.set("mirror_id", "abc")
    assert state.forget_all_files() == len(FILES)
    assert (state.signatures(gone=False), state.signatures(gone=True)) == (b"", b"")
    assert state.get("mirror_id") == "abc"


def test_sources_are_recorded_with_their_files(state: State) -> None:
    state.record(FILES[:2])
    state.set_sources([(b"ABCDEFGH", FILES[0].entry.path), (b"ABCDEFGH", b"unknown.jpg")])
    digests = {path: digest for path, _, digest in state.files()}
    assert digests == {FILES[0].entry.path: b"ABCDEFGH", FILES[1].entry.path: b"12345678"}


def test_the_last_runs_come_newest_first_and_old_ones_are_dropped(state: State) -> None:
    for number in range(1005):
        state.runs.add(RunRecord(f"run-{number}", float(number), 1.0, 0, f"report {number}"))
    assert [run.report for run in state.runs.last(2)] == ["report 1004", "report 1003"]
    assert len(state.runs.last(5000)) == 1000


def make(folder: Path, count: int = 400) -> Path:
    state = State(folder)
    state.record(seen(n) for n in range(count))
    state.set("mirror_id", "abc")
    state.close()  # what stands in the write-ahead log goes into the file
    return folder / FILE_NAME


def use(folder: Path) -> None:
    """Every operation of a run on a state."""
    state = State(folder)
    try:
        state.get("mirror_id")
        signatures(state)
        list(state.signatures_of([one.entry.path for one in FILES]))
        remembered(state)
        state.runs.last(5)
        state.record([seen(7, size=8)])
        state.mark(vanished=[seen(8).entry.signature])
        state.forget_all_files()
    finally:
        state.close()


def overwrite(path: Path, start: int, body: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(body)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "garbage from the start": lambda path: path.write_bytes(b"garbage" * 5000),
    "a garbled header": lambda path: overwrite(path, 0, b"not a database!!"),
    "cut in the middle": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut in the first page": lambda path: os.truncate(path, 1000),
    "zeros from the second page": lambda path: overwrite(
        path, 4096, bytes(path.stat().st_size - 4096)
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_reported_and_can_be_replaced(damage: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    DAMAGES[damage](path)
    with pytest.raises(StateDamaged, match=FILE_NAME):
        use(tmp_path)
    damaged = path.read_bytes()
    aside = set_aside(tmp_path)
    assert aside.read_bytes() == damaged
    use(tmp_path)


@pytest.mark.parametrize(
    "read", [lambda state: list(state.files()), lambda state: state.runs.last(5)]
)
def test_every_read_of_a_damaged_state_reports_the_damage(
    read: Callable[[State], object], tmp_path: Path
) -> None:
    path = make(tmp_path)
    state = State(tmp_path)
    overwrite(path, 4096, b"\xff" * (path.stat().st_size - 4096))
    try:
        with pytest.raises(StateDamaged):
            read(state)
    finally:
        state.close()


def test_setting_aside_twice_keeps_both(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / FILE_NAME).write_bytes(b"%d" % number)
        set_aside(tmp_path)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"0", b"1"}


def test_setting_aside_takes_the_log_along(tmp_path: Path) -> None:
    make(tmp_path)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"{FILE_NAME}{suffix}").write_bytes(b"of the damaged one")
    aside = set_aside(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {aside.name}


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, -1])
def test_a_state_of_another_version_is_refused_and_left_alone(version: int, tmp_path: Path) -> None:
    path = make(tmp_path)
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    with pytest.raises(StateError, match="another version") as caught:
        State(tmp_path)
    assert not isinstance(caught.value, StateDamaged)
    assert path.exists()


def test_a_foreign_database_is_not_taken_for_a_state(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.executescript("CREATE TABLE files (name TEXT); INSERT INTO files VALUES ('theirs');")
    database.close()
    with pytest.raises(StateError):
        State(tmp_path)
    database = sqlite3.connect(tmp_path / FILE_NAME)
    assert database.execute("SELECT * FROM files").fetchall() == [("theirs",)]
    database.close()


@pytest.mark.parametrize("known", [False, True])
def test_a_read_only_folder_is_a_state_error(known: bool) -> None:
    me = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        if known:
            make(Path(name), 3)
        os.chmod(name, 0o555)
        os.seteuid(65534 if me == 0 else me)  # permissions mean nothing to root
        try:
            with pytest.raises(StateError, match=r"state\.dir") as caught:
                use(Path(name))
        finally:
            os.seteuid(me)
            os.chmod(name, 0o755)
        assert not isinstance(caught.value, StateDamaged)


def test_a_missing_folder_is_a_state_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"state\.dir"):
        State(tmp_path / "absent")
