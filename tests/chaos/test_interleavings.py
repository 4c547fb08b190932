"""Commands of three machines that come between the steps of one another, at random.

A story stocks a mirror and lets some of its objects grow old. Then the machines run sync, gc, repair,
verify, pull and rebuild-state, and at drawn steps another machine runs a whole command. Requests are
refused or lose their answers, machines stand still for days, and clocks are wrong.

After every command of the outermost machine, and at the end, separate code reads the mirror
(tests/support/invariants.py). `CHAOS_SEED` chooses the stories, and a failure prints the steps of each
story that lost something. `CHAOS_TIMES=4 INTERLEAVING=1004` plays story 1004 of `make chaos` alone.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mirror.config.settings import Settings
from mirror.errors import MirrorError
from mirror.layout import url_md5
from mirror.sync.rebuild import rebuild_state
from mirror.sync.run_sync import SyncOptions, sync
from mirror.upkeep.change_limit import ChangeLimit
from mirror.upkeep.gc import GcOptions, gc
from mirror.upkeep.pull import PullOptions, pull
from mirror.upkeep.repair import LOST, RepairOptions, repair
from mirror.upkeep.verify import VerifyOptions, verify
from tests.conftest import MakePlace, Place
from tests.support import invariants
from tests.support.chaos_tally import SEED, TIMES, count
from tests.support.interleaving import DAY, Frame, Story, World, in_a_thread, install
from tests.support.mirror_setup import SOON, MirrorSetup, key_of
from tests.support.photos import blank, flipped, name_of, photo, url_of

GOOD = {number: photo(number) for number in range(7)}
BAD = {10: blank(64), 11: photo(11)[:-300], 12: b"<!DOCTYPE html><title>429</title>"}
CONTENTS = {**GOOD, **BAD}
URLS = range(9)
MACHINES = ("a", "b", "c")
ALL = ChangeLimit(share=1.0)
FULL = VerifyOptions(share=1.0, retry=SOON)
# Days by which a machine's clock is wrong.
CLOCKS = (0.0, 0.0, 0.0, 0.0, -2.0, 2.0, -400.0, 400.0)
# A machine that stands still: for hours, nearly a day, or days. One outer command may take so long in
# all, because gc promises nothing to a sync that is longer than the grace period of seven days.
STANDSTILLS = (0.1, 0.8, 3.0)
LONGEST = 4.0
COMMANDS_OF_A_STORY = 1 if TIMES == 1 else 3

# Stories of one test, and tests, by place: few in `make test`.
BATCHES = {
    "file": (5, 4) if TIMES == 1 else (25, 5 * TIMES),
    "seaweedfs-obstore": (2, 1) if TIMES == 1 else (5, TIMES),
    "miniflare-obstore": (2, 1) if TIMES == 1 else (5, TIMES),
}


class Loss(AssertionError):
    """A promise was broken. `dangling` counts `ok` rows without their object."""

    def __init__(self, what: str, dangling: int = 0) -> None:
        super().__init__(what)
        self.dangling = dangling


@dataclass
class Machine:
    """A machine with a cache and a state of its own."""

    name: str
    setup: MirrorSetup
    settings: Settings
    images: dict[int, int] = field(default_factory=dict)

    def path(self, url: int) -> Path:
        return self.setup.cache / name_of(url_of(url))


class Interleaving(Story):
    """One story.

    Attributes:
        orphans: contents that had an object and no row when the story began.
        ever: the contents that any cache has had, by URL.
        damaged: keys of objects that the story damaged and no later repair has dealt with.
        ever_damaged: all keys that the story damaged.
    """

    def __init__(self, place: Place, folder: Path, seed: int) -> None:
        super().__init__(World(place), seed)
        self.place = place
        self.ever: defaultdict[int, set[int]] = defaultdict(set)
        self.damaged: dict[str, int] = {}
        self.ever_damaged: set[str] = set()
        self.orphans: list[int] = []
        self._damages = 0
        self._stood_still = 0.0
        self._number = 0
        self.machines = {name: self._machine(folder / name) for name in MACHINES}
        self.commands: dict[str, Callable[[Frame, Machine, random.Random], str]] = {
            "sync": self._sync,
            "gc": self._gc,
            "repair": self._repair,
            "verify": self._verify,
            "pull": self._pull,
            "rebuild-state": self._rebuild_state,
        }

    def _machine(self, folder: Path) -> Machine:
        folder.mkdir(parents=True)
        setup = MirrorSetup(self.place, folder)
        # One task at a time, so that the seed decides the order. Few URLs may all show one content.
        usual = setup.settings(commit_rows=2, concurrency=1)
        inspect = msgspec.structs.replace(usual.inspect, placeholder_photos=100)
        return Machine(folder.name, setup, msgspec.structs.replace(usual, inspect=inspect))

    # --- the story ---

    def play(self) -> None:
        """Play the story. Raises Loss when a promise is broken."""
        chance = random.Random(f"{self.seed}/story")
        self._stock(chance)
        for _ in range(COMMANDS_OF_A_STORY):
            self._stood_still = 0.0
            machine = self.machines[chance.choice(MACHINES)]
            name = chance.choice(("sync", "sync", *self.commands, "gc"))
            self._run(name, machine, None, chance)
            if self.place.server is None:
                self._check()
        self._end()

    def _stock(self, chance: random.Random) -> None:
        a, b, c = self.machines.values()
        self._put(None, a, {url: chance.choice(list(GOOD)) for url in range(5)})
        self._put(None, b, {url: chance.choice(list(GOOD)) for url in range(3, 7)})
        for machine in (a, b):
            assert sync(machine.settings, now=self.world.now).exit_status == 0
        self.orphans = chance.sample(list(GOOD), 2)
        for content in self.orphans:
            self._orphan(content)
        # These contents lose their last name.
        self._put(None, a, {url: chance.choice(list(GOOD)) for url in range(2)})
        assert sync(a.settings, now=self.world.now).exit_status == 0
        days = chance.choice((3.0, 8.0, 8.0, 30.0))
        self.say(None, f"{days:g} days pass")
        self.world.advance(days)
        for machine in (b, c):
            self._put(None, machine, self._drawn_files(chance))

    def _orphan(self, content: int) -> None:
        """An object that was acknowledged and never catalogued."""
        key = key_of(GOOD[content])
        self.say(None, f"a writer that died left {key}, which is content {content}")
        self.world.put(key, GOOD[content])

    def _drawn_files(self, chance: random.Random) -> dict[int, int]:
        # A content that had no name is the one that gc is about to delete.
        contents = list(GOOD) * 2 + self.orphans * 5 + list(BAD)
        return {url: chance.choice(contents) for url in chance.sample(URLS, chance.randint(1, 3))}

    def _put(self, frame: Frame | None, machine: Machine, files: dict[int, int]) -> None:
        """Put files into a cache, each whole at once."""
        self.say(frame, f"into cache {machine.name}: {_listed(files)}")
        for url, content in files.items():
            path = machine.path(url)
            other = machine.setup.cache.with_name("new-file")
            other.write_bytes(CONTENTS[content])
            other.rename(path)
            machine.images[url] = content
            self.ever[url].add(content)

    # --- what comes between ---

    def come_between(self, frame: Frame, chance: random.Random) -> None:
        free = [name for name in MACHINES if name not in frame.holders]
        event = chance.choice(("command",) * 8 + ("stand still", "damage") * 2 + ("files",))
        if event == "stand still":
            self._stand_still(frame, chance)
        elif event == "files":
            self._put(frame, self.machines[chance.choice(MACHINES)], self._drawn_files(chance))
        elif event == "damage":
            self._damage(frame, chance)
        if event != "files":
            weights = ("sync",) * 4 + ("gc",) * 4 + ("repair", "verify", "pull", "rebuild-state")
            machine = self.machines[chance.choice(free)]
            name = "repair" if event == "damage" else chance.choice((*weights, frame.name))
            self.let_in += 1
            self._run(name, machine, frame, chance)

    def _stand_still(self, frame: Frame, chance: random.Random) -> None:
        days = chance.choice(STANDSTILLS)
        if self._stood_still + days <= LONGEST:
            self._stood_still += days
            self.say(frame, f"    {days:g} days pass")
            self.world.advance(days)

    def _damage(self, frame: Frame, chance: random.Random) -> None:
        """Damage an object that the catalog offers, as only other programs and disks do."""
        rows = in_a_thread(lambda: invariants.read(self.place))
        offered = sorted(
            key
            for row in rows.latest.values()
            if (key := _key(row)) is not None and key in rows.objects
        )
        if not offered:
            return
        held = {key_of(CONTENTS[n]) for n in self.machines[frame.holder].images.values()}
        known_here = [key for key in offered if key in held]
        key = chance.choice(known_here or offered)
        self._damages += 1
        self.damaged[key] = self._damages
        self.ever_damaged.add(key)
        if chance.random() < 0.5:
            self.say(frame, f"    {key} is lost")
            self.world.delete(key)
        else:
            self.say(frame, f"    {key} is damaged")
            self.world.put(key, flipped(rows.objects[key]))

    def _run(self, name: str, machine: Machine, outer: Frame | None, chance: random.Random) -> None:
        self._number += 1
        path = f"{outer.path}/" if outer else ""
        inner = 0 if outer is None else outer.let_in
        frame = Frame(self, f"{path}{inner or self._number}", machine.name, name, outer)
        own = random.Random(f"{self.seed}/{frame.path}/command")
        if name == "sync" and own.random() < 0.8:
            self._put(frame, machine, self._drawn_files(own))
        self.say(frame, f"{machine.name}: {name}")

        def command() -> str:
            try:
                return self.commands[name](frame, machine, own)
            except MirrorError as error:
                return f"{type(error).__name__}: {error}"

        told = self.run(frame, command)
        self.say(frame, f"{machine.name}: {name} ended: {told}")

    # --- commands ---

    def _clock(self, frame: Frame, chance: random.Random) -> Callable[[], float]:
        wrong = chance.choice(CLOCKS) * DAY
        if wrong:
            self.say(frame, f"    its clock is {wrong / DAY:+g} days wrong")
        return lambda: self.world.now() + wrong

    def _sync(self, frame: Frame, machine: Machine, chance: random.Random) -> str:
        options = SyncOptions(retry=SOON)
        report = sync(machine.settings, options, now=self._clock(frame, chance))
        return _told(report, "uploaded", "deduplicated", "failed")

    def _gc(self, frame: Frame, machine: Machine, chance: random.Random) -> str:
        options = GcOptions(limit=ALL, flagged=chance.random() < 0.3, retry=SOON)
        now = self._clock(frame, chance)
        report = gc(machine.settings, options, now=now, clock=self.world.since_boot)
        return _told(report, "planned", "deleted", "spared")

    def _repair(self, frame: Frame, machine: Machine, chance: random.Random) -> str:
        before = self._damages
        folders = [
            m.setup.cache for m in self.machines.values() if m.images and chance.random() < 0.5
        ]
        options = RepairOptions(verify=FULL, limit=ALL, folders=folders)
        report = repair(machine.settings, options, now=self._clock(frame, chance))
        if report.error is None and not report.failed:
            self.damaged = {key: at for key, at in self.damaged.items() if at > before}
        return _told(report, "repaired", "healed", "lost", "failed")

    def _verify(self, frame: Frame, machine: Machine, chance: random.Random) -> str:
        report = verify(machine.settings, FULL, now=self._clock(frame, chance))
        return _told(report, "checked", "missing", "mismatched")

    def _pull(self, frame: Frame, machine: Machine, chance: random.Random) -> str:
        """Pull into the machine's own cache, or into another's over a shared folder."""
        target = self.machines[chance.choice(MACHINES)] if chance.random() < 0.5 else machine
        if frame.outer is not None and frame.outer.name == "pull":
            target = self.machines[frame.outer.holder]
        for url in chance.sample(sorted(target.images), min(2, len(target.images))):
            target.path(url).unlink(missing_ok=True)
            target.images.pop(url, None)
            self.say(frame, f"    out of cache {target.name}: url {url}")
        cache = msgspec.structs.replace(machine.settings.cache, dir=str(target.setup.cache))
        settings = msgspec.structs.replace(machine.settings, cache=cache)
        report = pull(settings, PullOptions(retry=SOON))
        self._look_at_caches()
        return _told(report, "pulled", "already", "failed") + f", into cache {target.name}"

    def _rebuild_state(self, frame: Frame, machine: Machine, chance: random.Random) -> str:
        return _told(rebuild_state(machine.settings, retry=SOON), "known", "unknown", "failed")

    # --- promises ---

    def _look_at_caches(self) -> None:
        """Every file of a cache is whole, and of a content that its URL has had."""
        for machine in self.machines.values():
            for url in URLS:
                try:
                    body = machine.path(url).read_bytes()
                except FileNotFoundError:
                    machine.images.pop(url, None)
                    continue
                found = [number for number in self.ever[url] if CONTENTS[number] == body]
                if not found:
                    raise Loss(
                        f"cache {machine.name} has other bytes for url {url}: {len(body)} bytes"
                    )
                machine.images[url] = found[0]

    def _check(self) -> invariants.Mirrored:
        mirrored = invariants.read(self.place)
        named = {key for row in mirrored.latest.values() if (key := _key(row)) is not None}
        dangling = sorted(named - mirrored.objects.keys() - self.damaged.keys())
        if dangling:
            raise Loss(f"the catalog names {dangling}, and there is no such object", len(dangling))
        for key, body in mirrored.objects.items():
            # gc removes a damaged object that no row offers any more, when it is old.
            is_excused = key in self.damaged if key in named else key in self.ever_damaged
            if not is_excused and invariants.key_of(body) != key:
                raise Loss(f"{key} holds other bytes")
        self._no_good_row_was_superseded(mirrored)
        self._look_at_caches()
        return mirrored

    def _no_good_row_was_superseded(self, mirrored: invariants.Mirrored) -> None:
        was_good: set[bytes] = set()
        for row in sorted(mirrored.rows, key=lambda row: row["seen_at"]):
            if row["verdict"] == "ok":
                was_good.add(row["url_md5"])
            elif row["url_md5"] in was_good:
                lost = row["reason"] in LOST.values() and _key_of_hash(row) in self.ever_damaged
                if not lost:
                    raise Loss(f"a good row was superseded by {row['verdict']}: {row['reason']}")
                was_good.discard(row["url_md5"])

    def _end(self) -> None:
        """One more sync of each machine, and everything is there."""
        self._check()
        self.world.advance(0.1)  # a lease that gc could not give back lapses
        machines = [machine for machine in self.machines.values() if machine.images]
        caches = [machine.setup.cache for machine in machines]
        if self.damaged:
            options = RepairOptions(verify=FULL, limit=ALL, folders=caches)
            report = repair(machines[0].settings, options, now=self.world.now)
            self.say(None, "the last repair: " + _told(report, "repaired", "lost", "failed"))
            self.damaged.clear()
        for machine in machines:
            synced = sync(machine.settings, SyncOptions(retry=SOON), now=self.world.now)
            self.say(
                None, f"the last sync of {machine.name}: " + _told(synced, "uploaded", "failed")
            )
            if synced.error is not None or synced.failed:
                raise Loss(f"the last sync of {machine.name}: {synced.error} {synced.failures}")
        mirrored = self._check()
        self._all_files_are_mirrored(mirrored)
        told = verify(machines[0].settings, FULL, now=self.world.now)
        if told.error is not None or told.missing or told.mismatched:
            raise Loss(f"verify: {told.error}, {_told(told, 'missing', 'mismatched')}")

    def _all_files_are_mirrored(self, mirrored: invariants.Mirrored) -> None:
        rows = mirrored.latest
        for machine in self.machines.values():
            for url, content in machine.images.items():
                row = rows.get(url_md5(url_of(url)))
                if row is None:
                    raise Loss(f"url {url} of cache {machine.name} is not in the catalog")
                good = {key_of(GOOD[number]) for number in self.ever[url] if number in GOOD}
                if content in GOOD and _key(row) not in good:
                    raise Loss(f"url {url} of cache {machine.name} is not offered: {row['reason']}")


def _key_of_hash(row: dict[str, Any]) -> str:
    digits = row["content_hash"].hex()
    return f"objects/{digits[:2]}/{digits}.jpg"


def _key(row: dict[str, Any]) -> str | None:
    """The key of the object that a row offers; None for a flagged row."""
    return _key_of_hash(row) if row["verdict"] == "ok" else None


def _listed(files: dict[int, int]) -> str:
    return ", ".join(f"url {url} = content {content}" for url, content in sorted(files.items()))


def _told(report: Any, *names: str) -> str:
    counts = ", ".join(f"{name} {getattr(report, name)}" for name in names)
    return counts if report.error is None else f"{counts}; {report.error}"


def _failed(story: Interleaving, error: BaseException) -> str:
    title = f"CHAOS_TIMES={TIMES} INTERLEAVING={story.seed} ({story.place.name}): {type(error).__name__}: {error}"
    return "\n".join([title, *(f"    {line}" for line in story.lines)])


def _batches() -> list[tuple[str, int, int]]:
    """Place, first seed and number of stories of each test."""
    if alone := os.environ.get("INTERLEAVING"):
        return [(name, int(alone), 1) for name in BATCHES]
    return [
        (name, SEED * 1000 + number * stories, stories)
        for name, (stories, tests) in BATCHES.items()
        for number in range(tests)
    ]


@pytest.mark.chaos("interleavings")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "first", "stories"), _batches())
def test_commands_that_come_between_the_steps_of_others_lose_nothing(
    name: str,
    first: int,
    stories: int,
    make_place: MakePlace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch)
    losses: list[str] = []
    for seed in range(first, first + stories):
        place = make_place(name)
        if place.server is None:
            place = Place(name, {"url": f"file://{tmp_path}/{seed}/mirror"})
        story = Interleaving(place, tmp_path / str(seed), seed)
        try:
            story.play()
        except Exception as error:  # noqa: BLE001 - each story is told, and the others go on
            losses.append(_failed(story, error))
            count(f"lost {name}")
            count(f"dangling {name}", getattr(error, "dangling", 0))
        count(f"story {name}")
        count(f"let in {name}", story.let_in)
        count(f"disturbed {name}", story.faults)
        shutil.rmtree(tmp_path / str(seed))
    assert not losses, "\n\n" + "\n\n".join(losses)
