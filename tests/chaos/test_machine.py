"""Any operation in any order: edits of a cache, syncs, killed syncs, gc, repairs, days that pass.

A small model describes the expected mirror. After every step, separate code reads the mirror
(tests/support/invariants.py) and compares it with the model.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mirror.layout import url_md5
from mirror.sync.rebuild import rebuild_state
from mirror.sync.run_sync import SyncOptions, sync
from mirror.upkeep.change_limit import ChangeLimit
from mirror.upkeep.gc import GcOptions, gc
from mirror.upkeep.pull import pull
from mirror.upkeep.repair import RepairOptions, repair
from mirror.upkeep.verify import VerifyOptions, verify
from tests.conftest import Place
from tests.support import invariants
from tests.support.chaos_tally import SEED, TIMES, count
from tests.support.killing import dying
from tests.support.mirror_setup import Workshop, aged, key_of
from tests.support.photos import blank, name_of, photo, url_of

DAY = 86_400.0
GRACE_DAYS = 7
ALL = ChangeLimit(share=1.0)

# Contents by number; the even ones are good. Their sizes differ. Otherwise a file that is rewritten
# within a tick of the clock, with the same size and inode, would look unchanged.
CONTENTS = {
    0: photo(0),
    1: blank(64),
    2: photo(2),
    3: photo(3)[:-300],
    4: photo(4),
    5: b"<!DOCTYPE html><title>429</title>",
    6: photo(6),
    8: photo(8),
}
GOOD = frozenset(CONTENTS) & frozenset(range(0, 10, 2))
assert len(set(map(len, CONTENTS.values()))) == len(CONTENTS)

# The places where a sync may die: from reading a file to recording the end.
CODE = ",".join(
    f"mirror.{module}"
    for module in (
        "sync.commit", "sync.state", "sync.transfer", "catalog.upload", "store.engines.file",
        "system.files", "catalog.delta_table", "system.database",
    )
)  # fmt: skip
# The number of these lines that a sync of a few files runs.
LINES = 1000

urls = st.integers(0, 7)
contents = st.sampled_from(sorted(CONTENTS))
clocks = st.sampled_from(
    [0.0, 0.0, 0.0, -400.0, -2.0, 2.0, 400.0]
)  # days by which the clock is wrong


class Chaos(RuleBasedStateMachine):
    """The model.

    Attributes:
        cache: content of the files by URL.
        offered: content by URL of the latest good row.
        told: URLs with any row.
        days: days that have passed.
        unnamed_since: the day since which a formerly offered content is not offered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        self.shop = Workshop(Place("file", {"url": f"file://{self.folder}/mirror"}), self.folder)
        usual = self.shop.settings(commit_rows=2, concurrency=2)
        # The model has no placeholders: a few URLs may all show one content.
        inspect = msgspec.structs.replace(usual.inspect, placeholder_photos=100)
        self.settings = msgspec.structs.replace(usual, inspect=inspect)
        self.config = self.folder / "mirror.toml"
        self.config.write_text("[inspect]\nplaceholder_photos = 100\n")
        self.root = self.folder / "mirror"
        self.cache: dict[int, int] = {}
        self.offered: dict[int, int] = {}
        self.told: set[int] = set()
        self.days = 0.0
        self.unnamed_since: dict[int, float] = {}
        self.files = invariants.contents(self.shop.cache)

    def teardown(self) -> None:
        count("examples")
        shutil.rmtree(self.folder)

    # --- steps of a user and the world ---

    @initialize(files=st.dictionaries(urls, contents, min_size=3))
    def begin(self, files: dict[int, int]) -> None:
        self.put(files)
        self.sync(0.0)
        self.put({url: 8 - content for url, content in files.items() if content in GOOD})
        self.sync(0.0)

    @rule(files=st.dictionaries(urls, contents, min_size=1, max_size=4))
    def put(self, files: dict[int, int]) -> None:
        """Add or replace files: good, blank, corrupt, or not an image."""
        for url, content in files.items():
            self._path(url).write_bytes(CONTENTS[content])
        self.cache |= files
        self._look("put")

    @rule(content=st.sampled_from(sorted(GOOD)))
    def a_writer_dies_elsewhere(self, content: int) -> None:
        """An object that was acknowledged and never catalogued."""
        path = self.root / key_of(CONTENTS[content])
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(CONTENTS[content])
            count("step orphan")

    @precondition(lambda self: self.cache)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        url = data.draw(st.sampled_from(sorted(self.cache)))
        self._path(url).unlink()
        del self.cache[url]
        self._look("remove")

    @rule(days=st.sampled_from([0.5, 3.0, 8.0, 8.0, 30.0]))
    def days_pass(self, days: float) -> None:
        aged(self.root, days)
        self.days += days
        count("step days pass")

    @rule()
    def the_state_is_lost(self) -> None:
        shutil.rmtree(self.shop.state, ignore_errors=True)
        count("step state lost")

    # --- steps of mirror ---

    @rule(clock=clocks)
    def sync(self, clock: float) -> None:
        report = sync(self.settings, SyncOptions(), now=lambda: time.time() + clock * DAY)
        assert (report.exit_status, report.failed) == (0, 0), (report.error, report.failures)
        assert report.scanned == len(self.cache)
        self.told |= set(self.cache)
        self._offer({url: content for url, content in self.cache.items() if content in GOOD})
        again = sync(self.settings)
        assert (again.unchanged, again.catalog_commits) == (len(self.cache), 0)
        self._unchanged("sync")

    @rule(
        files=st.dictionaries(urls, contents, min_size=1, max_size=4),
        line=st.integers(1, LINES),
    )
    def sync_and_be_killed(self, files: dict[int, int], line: int) -> None:
        """Kill a sync that has work to do."""
        self.put(files)
        words = [
            "--json",
            f"--config={self.config}",
            "sync",
            f"--bucket={self.shop.place.url}",
            f"--state={self.shop.state}",
        ]
        words += [f"--cache={self.shop.cache}", "--concurrency=2"]
        status = dying(CODE, words, line).returncode
        assert status in (0, -signal.SIGKILL)
        # The sync reports how much it did. The test checks that this is a part of the work.
        rows = invariants.read(self.shop.place).latest
        wanted = {url: c for url, c in self.cache.items() if c in GOOD}
        done = {
            url: content
            for url, content in wanted.items()
            if (row := rows.get(url_md5(url_of(url)))) is not None
            and row["verdict"] == "ok"
            and row["content_hash"].hex() in key_of(CONTENTS[content])
        }
        assert status == -signal.SIGKILL or done == wanted
        self.told |= {url for url in self.cache if url_md5(url_of(url)) in rows}
        self._offer(done)
        self._unchanged("killed sync")

    @precondition(lambda self: self.told)
    @rule(clock=clocks, flagged=st.booleans(), days=st.sampled_from([0.0, 8.0, 8.0, 30.0]))
    def gc(self, clock: float, flagged: bool, days: float) -> None:
        self.days_pass(days)
        before = {key: self._age(key) for key in self._keys()}
        options = GcOptions(limit=ALL, flagged=flagged)
        report = gc(self.settings, options, now=lambda: time.time() + clock * DAY)
        assert report.error is None
        removed = before.keys() - self._keys()
        assert len(removed) == report.deleted
        for key in removed:
            assert before[key] >= GRACE_DAYS, "it was young"
            content = next(c for c, body in CONTENTS.items() if key_of(body) == key)
            assert content not in self.offered.values(), "a live row names it"
            assert self.days - self.unnamed_since.get(content, -1e9) >= GRACE_DAYS, "it was named"
        count("step removed by gc", len(removed))
        self._unchanged("gc")

    @precondition(lambda self: self.cache and self.told)
    @rule()
    def rebuild_the_state(self) -> None:
        report = rebuild_state(self.settings)
        assert (report.error, report.failed) == (None, 0)
        self._unchanged("rebuild-state")

    @precondition(lambda self: self.told)
    @rule()
    def pull(self) -> None:
        report = pull(self.settings)
        lost = {url: c for url, c in self.offered.items() if url not in self.cache}
        assert (report.error, report.failed, report.pulled) == (None, 0, len(lost))
        for path, stood in self.files.items():
            assert invariants.contents(self.shop.cache)[path] == stood
        self.cache |= lost
        self._look("pull")

    @precondition(lambda self: self.offered and self.cache)
    @rule(data=st.data(), damage=st.sampled_from(["gone", "flipped", "cut"]))
    def lose_an_object_and_repair(self, data: st.DataObject, damage: str) -> None:
        content = data.draw(st.sampled_from(sorted(set(self.offered.values()))))
        path, body = self.root / key_of(CONTENTS[content]), CONTENTS[content]
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(body[:-1] if damage == "cut" else body[:-1] + bytes([body[-1] ^ 1]))
        options = RepairOptions(verify=VerifyOptions(share=1.0), limit=ALL)
        report = repair(self.settings, options)
        assert (report.error, report.failed) == (None, 0)
        found = content in self.cache.values()
        assert (report.repaired, report.lost) == ((1, 0) if found else (0, 1))
        if not found:
            self.offered = {url: c for url, c in self.offered.items() if c != content}
            self.unnamed_since[content] = self.days
            path.unlink(missing_ok=True)  # a damaged one stays, which the invariant ignores
        self._unchanged("repair")

    @precondition(lambda self: self.told)
    @rule()
    def verify(self) -> None:
        report = verify(self.settings, VerifyOptions(share=1.0))
        assert (report.error, report.missing, report.mismatched) == (None, 0, 0)
        self._unchanged("verify")

    # --- invariants ---

    @invariant()
    def every_image_is_there_and_nothing_flagged(self) -> None:
        mirrored = invariants.read(self.shop.place)
        invariants.promise_kept(mirrored)
        rows = mirrored.latest
        offered = {url: rows[url_md5(url_of(url))] for url in self.offered}
        for url, row in offered.items():
            assert row["verdict"] == "ok"
            body = CONTENTS[self.offered[url]]
            assert mirrored.objects[key_of(body)] == body
            assert row["content_hash"].hex() in key_of(body)
        good = {key_of(CONTENTS[content]) for content in GOOD}
        assert set(mirrored.objects) <= good, "a flagged content has an object"
        assert rows.keys() == {url_md5(url_of(url)) for url in self.told}
        assert sum(row["verdict"] == "ok" for row in rows.values()) == len(offered)

    def _offer(self, done: dict[int, int]) -> None:
        before = set(self.offered.values())
        self.offered |= done
        now = set(self.offered.values())
        self.unnamed_since |= dict.fromkeys(before - now, self.days)

    def _path(self, url: int) -> Path:
        return self.shop.cache / name_of(url_of(url))

    def _keys(self) -> set[str]:
        return set(invariants.read(self.shop.place).objects)

    def _age(self, key: str) -> float:
        return (time.time() - os.stat(self.root / key).st_mtime) / DAY

    def _look(self, step: str) -> None:
        """Check that files changed as the model says."""
        self.files = invariants.contents(self.shop.cache)
        expected = {name_of(url_of(url)): CONTENTS[c] for url, c in self.cache.items()}
        assert {name: body for name, (body, _) in self.files.items()} == expected
        count(f"step {step}")

    def _unchanged(self, step: str) -> None:
        assert invariants.contents(self.shop.cache) == self.files
        count(f"step {step}")


MANY = settings(
    max_examples=4 if TIMES == 1 else 10 * TIMES,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.chaos("machine")
def test_the_mirror_keeps_its_promise_in_any_order_of_steps() -> None:
    run_state_machine_as_test(seed(SEED)(Chaos), settings=MANY)
