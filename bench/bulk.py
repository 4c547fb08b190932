# ruff: noqa: INP001 - for the scripts beside it, not a package
"""A first run: uploads every file of a cache to an empty mirror, beside the peers' copy of these files."""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.parse
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import peers
import xxhash
from caches import Cache, photographs
from measure import BENCH, ROOT, Contender, Runs, alternately
from results import Part
from servers import BUCKET, Place, seaweedfs, sink

SAMPLE = 50
IN_FLIGHT = 64  # uploads at once, for every program
_numbers = count()
Who = Callable[["Target"], list["Contender | None"]]


@dataclass
class Target:
    """The target of one run's uploads: its own prefix, in a place that may be new for each run."""

    cache: Cache
    place_now: Place | None = None
    prefix: str = ""
    state: str = field(default_factory=lambda: str(BENCH / "state"))

    def renew(self) -> None:
        self.prefix = f"run-{next(_numbers)}"
        shutil.rmtree(self.state, ignore_errors=True)
        self.cache.warm()

    @property
    def place(self) -> Place:
        assert self.place_now is not None
        return self.place_now

    def environment(self) -> dict[str, str]:
        return self.place.environment | {"PYTHONPATH": str(ROOT)}


def mirror_sync(target: Target, *words: str) -> list[str]:
    return [
        sys.executable, "-m", "mirror", "--json", "sync", "--cache", str(target.cache.folder),
        "--bucket", f"s3://{BUCKET}/{target.prefix}", "--endpoint", target.place.endpoint,
        "--region", "us-east-1", "--state", target.state, "-q",
        "--concurrency", str(IN_FLIGHT), *words,
    ]  # fmt: skip


def mirror(target: Target, *words: str) -> Contender:
    """Run `mirror sync` of everything, and check its report and the uploads."""
    name = " ".join(["mirror sync", *words])

    def check(printed: str) -> None:
        report = json.loads(printed)
        expected = {
            "new": target.cache.files,
            "uploaded": target.cache.contents,
            "deduplicated": target.cache.files - target.cache.contents,
            "failed": 0,
        }
        found = {key: report[key] for key in expected}
        if found != expected:
            raise RuntimeError(f"{name} reports {found}, not {expected}")
        arrived(target, "objects", target.cache.contents)

    return Contender(
        name,
        lambda: mirror_sync(target, *words),
        before=target.renew,
        check=check,
        environment=target.environment,
    )


def s5cmd(target: Target) -> Contender:
    return Contender(
        "s5cmd",
        lambda: [
            peers.s5cmd(), "--endpoint-url", target.place.endpoint, "--numworkers", str(IN_FLIGHT),
            "--log", "error", "cp", f"{target.cache.folder}/", f"s3://{BUCKET}/{target.prefix}/flat/",
        ],
        before=target.renew,
        check=lambda _: arrived(target, "flat", target.cache.files),
        environment=target.environment,
    )  # fmt: skip


def aws(target: Target) -> Contender:
    settings = BENCH / "aws.ini"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(
        f"[default]\ns3 =\n  max_concurrent_requests = {IN_FLIGHT}\n  addressing_style = path\n"
    )
    return Contender(
        "aws-cli",
        lambda: [
            peers.aws(), "--endpoint-url", target.place.endpoint, "s3", "cp", "--recursive",
            "--only-show-errors", str(target.cache.folder), f"s3://{BUCKET}/{target.prefix}/flat/",
        ],
        before=target.renew,
        check=lambda _: arrived(target, "flat", target.cache.files),
        environment=lambda: target.environment() | {"AWS_CONFIG_FILE": str(settings)},
    )  # fmt: skip


def rclone_environment(place: Place) -> dict[str, str]:
    return {
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_BENCH_TYPE": "s3",
        "RCLONE_CONFIG_BENCH_PROVIDER": "Other",
        "RCLONE_CONFIG_BENCH_ENDPOINT": place.endpoint,
        "RCLONE_CONFIG_BENCH_ENV_AUTH": "true",
        "RCLONE_CONFIG_BENCH_REGION": "us-east-1",
    }


def rclone(target: Target) -> Contender | None:
    program = peers.rclone()
    if program is None:
        return None
    return Contender(
        "rclone",
        lambda: [
            program, "copy", "--quiet", "--transfers", str(IN_FLIGHT), "--checkers", str(IN_FLIGHT),
            "--s3-no-check-bucket", "--s3-no-head", "--no-traverse", str(target.cache.folder),
            f"bench:{BUCKET}/{target.prefix}/flat",
        ],
        before=target.renew,
        check=lambda _: arrived(target, "flat", target.cache.files),
        environment=lambda: target.environment() | rclone_environment(target.place),
    )  # fmt: skip


def arrived(target: Target, below: str, expected: int) -> None:
    """Check the uploads. Raises RuntimeError if an object is missing or a sample differs."""
    if target.place.log is not None:
        _arrived_at_the_sink(target, below, expected)
        return
    client = _client(target.place)
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix=f"{target.prefix}/{below}/"
    )
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    if len(keys) != expected:
        raise RuntimeError(f"{len(keys):,} objects, not {expected:,}")
    digests = {path.name: path.read_bytes() for path in target.cache.sample(SAMPLE)}
    if below == "flat":
        for name, body in digests.items():
            key = f"{target.prefix}/{below}/{name}"
            if client.get_object(Bucket=BUCKET, Key=key)["Body"].read() != body:
                raise RuntimeError(f"{key} has other bytes than the file")
        return
    for body in digests.values():
        digest = xxhash.xxh3_128_hexdigest(body)
        key = f"{target.prefix}/objects/{digest[:2]}/{digest}.jpg"
        if client.get_object(Bucket=BUCKET, Key=key)["Body"].read() != body:
            raise RuntimeError(f"{key} has other bytes than the file")


def _arrived_at_the_sink(target: Target, below: str, expected: int) -> None:
    noted = target.place.noted(f"{target.prefix}/{below}", expected)
    stored = {one.path for one in noted}
    if len(stored) != expected:
        raise RuntimeError(f"{len(stored):,} objects, not {expected:,}")
    known = {urllib.parse.unquote(one.sha256) for one in noted}
    # A program that signs without a hash of the body is checked by sizes.
    if known != {"UNSIGNED-PAYLOAD"} and not any(k.startswith("STREAMING") for k in known):
        missing = target.cache.digests(SAMPLE) - known
        if missing:
            raise RuntimeError(f"{len(missing)} of {SAMPLE} sampled files did not arrive")
    if below == "flat":
        total = sum(one.size for one in noted)
        there = sum(entry.stat().st_size for entry in os.scandir(target.cache.folder))
        if total != there:
            raise RuntimeError(f"{total:,} bytes, not {there:,}")


def _client(place: Place) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=place.endpoint,
        region_name="us-east-1",
        aws_access_key_id=place.server.access_key,
        aws_secret_access_key=place.server.secret_key,
        config=Config(s3={"addressing_style": "path"}, proxies={}),
    )


def _in_one_place(
    rounds: int, where: Callable[[], AbstractContextManager[Place]], who: Who, cache: Cache
) -> Runs:
    with where() as place:
        target = Target(cache, place)
        return alternately([one for one in who(target) if one is not None], rounds)


def _in_new_places(rounds: int, who: Who, cache: Cache) -> Runs:
    """Start a new SeaweedFS for every run, so that no run pays for the data of earlier runs."""
    target = Target(cache)
    with ExitStack() as places:

        def renewed(contender: Contender) -> Contender:
            def before() -> None:
                places.pop_all().close()
                target.place_now = places.enter_context(seaweedfs())
                contender.before()

            return replace(contender, before=before)

        return alternately([renewed(one) for one in who(target) if one is not None], rounds)


def _part(name: str, title: str, cache: Callable[[], Cache], who: Who, *, stored: bool) -> Part:
    def run(rounds: int) -> Runs:
        if stored:
            return _in_new_places(rounds, who, cache())
        return _in_one_place(rounds, sink, who, cache())

    kept = "SeaweedFS" if stored else "a sink"
    return Part(name, f"{title}, to {kept}", run, PACKAGES)


def _medium() -> Cache:
    return photographs(20_000, 45_000)


def _large() -> Cache:
    return photographs(2_000, 1_400_000)


def _repeated() -> Cache:
    return photographs(20_000, 45_000, duplicates=0.3)


def _everyone(target: Target) -> list[Contender | None]:
    return [mirror(target, "--inspect", "off"), mirror(target), s5cmd(target), rclone(target)]


def _both(target: Target) -> list[Contender | None]:
    return [mirror(target, "--inspect", "off"), mirror(target), s5cmd(target)]


def _beside_aws(target: Target) -> list[Contender | None]:
    return [mirror(target, "--inspect", "off"), aws(target)]


PACKAGES = ("obstore", "deltalake", "s5cmd", "rclone", "nginx")
_MEDIUM = "20,000 photographs of 45 kB"
_LARGE = "2,000 photographs of 1.4 MB"
PARTS = [
    _part("bulk", _MEDIUM, _medium, _everyone, stored=False),
    _part("bulk-aws", _MEDIUM, _medium, _beside_aws, stored=False),
    _part("bulk-large", _LARGE, _large, _both, stored=False),
    _part("bulk-duplicates", f"{_MEDIUM}, 30 % of them duplicates", _repeated, _both, stored=False),
    _part("bulk-stored", _MEDIUM, _medium, _both, stored=True),
    _part("bulk-large-stored", _LARGE, _large, _both, stored=True),
]
