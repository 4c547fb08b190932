"""Each key is sufficient for its commands, and a refusal is one sentence.

The server enforces the policies of terraform/s3 for its keys.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from deltalake import DeltaTable

from mirror.cli.main import COMMANDS, run
from mirror.store.s3_access import S3Access
from tests.cli.test_bad_input import assert_said, flags
from tests.conftest import MakePlace, Place
from tests.servers import GC, READER, WRITER, Identity
from tests.servers.process import eventually
from tests.support.mirror_setup import MirrorSetup, key_of
from tests.support.photos import blank, fill, photo, url_of

Run = Callable[..., subprocess.CompletedProcess[str]]
ActAs = Callable[[Identity], None]

S3 = ["seaweedfs-obstore", "seaweedfs-aioboto3"]

# The least key that each command needs; "" if it does not use the bucket.
LEAST = {
    "init": "writer", "sync": "writer", "rewrite": "reader", "export": "", "backfill": "reader",
    "verify": "reader", "repair": "repairer", "rebuild-state": "reader", "gc": "gc",
    "pull": "reader", "inspect": "", "duplicates": "", "quarantine": "", "fetch": "reader", "prefetch": "reader",
    "schedule": "", "status": "reader", "doctor": "reader", "config": "", "completion": "", "help": "", "demo": "",
}  # fmt: skip


def test_every_command_has_its_least_key() -> None:
    assert LEAST.keys() == COMMANDS.keys()


@pytest.fixture
def mirror(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `mirror` in this process, which is faster than a process for each run."""

    def called(*words: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        status = run(list(words))
        return subprocess.CompletedProcess(words, status, *capsys.readouterr())

    return called


@pytest.fixture
def act_as(monkeypatch: pytest.MonkeyPatch) -> ActAs:
    def act(identity: Identity) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", identity.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", identity.secret_key)

    return act


@pytest.fixture(params=S3)
def place(request: pytest.FixtureRequest, make_place: MakePlace) -> Place:
    return make_place(request.param)


@pytest.fixture
def mirror_setup(place: Place, tmp_path: Path) -> MirrorSetup:
    mirror_setup = MirrorSetup(place, tmp_path)
    fill(mirror_setup.cache, {url_of(n): photo(n) for n in range(4)} | {url_of(9): blank()})
    return mirror_setup


def in_bucket(mirror_setup: MirrorSetup) -> list[str]:
    return [
        flag
        for flag in flags(mirror_setup.cache, mirror_setup.place)
        if not flag.startswith("--cache")
    ]


def deletes(mirror_setup: MirrorSetup) -> bool:
    """True if the key of the environment may delete an object."""
    client = S3Access(mirror_setup.place.url, mirror_setup.settings().bucket).client()
    key = f"{mirror_setup.place.url.path}/{key_of(photo(0))}"
    answer = client.delete_objects(
        Bucket=mirror_setup.place.url.bucket, Delete={"Objects": [{"Key": key}]}
    )
    return "Errors" not in answer


def test_sync_needs_no_key_that_deletes(
    mirror: Run, mirror_setup: MirrorSetup, act_as: ActAs
) -> None:
    act_as(WRITER)
    where = flags(mirror_setup.cache, mirror_setup.place)
    first = mirror("--json", "sync", *where)
    assert (first.returncode, json.loads(first.stdout)["uploaded"]) == (0, 4), first.stderr
    again = mirror("--json", "sync", *where)
    assert (again.returncode, json.loads(again.stdout)["unchanged"]) == (0, 5), again.stderr
    fill(mirror_setup.cache, {url_of(5): photo(5), url_of(6): photo(1)})
    more = json.loads(mirror("--json", "sync", *where).stdout)
    assert (more["uploaded"], more["deduplicated"], more["failed"]) == (1, 1, 0)
    # A lost object is uploaded again, and a damaged one is overwritten. Neither needs a deletion.
    assert mirror("repair", *where).returncode == 0
    assert not deletes(mirror_setup)
    assert len(mirror_setup.objects()) == 5


def test_a_month_of_commits_needs_no_key_that_deletes(
    make_place: MakePlace, tmp_path: Path, act_as: ActAs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """deltalake deletes old entries of the log, here all of them, when it writes a checkpoint."""
    mirror_setup = MirrorSetup(make_place("seaweedfs-obstore"), tmp_path)
    monkeypatch.setattr("mirror.catalog.delta_table.COMPACT_AFTER", 11)
    create = DeltaTable.create

    def with_a_short_memory(*arguments: object, **options: object) -> DeltaTable:
        options["configuration"] = {  # as in older tables
            "delta.appendOnly": "true",
            "delta.checkpointInterval": "10",
            "delta.logRetentionDuration": "interval 0 seconds",
        }
        return create(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(DeltaTable, "create", with_a_short_memory)
    act_as(WRITER)
    for number in range(100, 113):
        fill(mirror_setup.cache, {url_of(number): photo(number % 3)})
        report = mirror_setup.sync()
        assert (report.error, report.exit_status) == (None, 0)


# The arguments and settings of the commands that need only a reader's key.
CACHE, BUCKET = ["cache"], ["bucket", "endpoint", "region", "engine", "state"]
READS: list[tuple[Sequence[str], Sequence[str]]] = [
    (["verify", "--full"], BUCKET),
    (["rebuild-state"], [*CACHE, *BUCKET]),
    (["pull", "--cache={folder}/pulled"], BUCKET),
    (["status"], [*CACHE, *BUCKET]),
    (["doctor", "--read-only"], [*CACHE, *BUCKET]),
    (["rewrite", "{folder}/in.jsonl", "-o", "{folder}/out.jsonl"], BUCKET),
    (["fetch", url_of(1), "-o", "{folder}/fetched"], BUCKET),
    (["prefetch", "{folder}/in.jsonl", "--fetch-cache={folder}/fetch"], BUCKET),
    (["backfill", "{folder}/in.jsonl", "--dry-run", "--contact=a@example.org"], [*CACHE, *BUCKET]),
    (["gc", "--dry-run"], BUCKET),
]


def test_a_readers_key_is_enough_for_commands_that_read(
    mirror: Run, mirror_setup: MirrorSetup, act_as: ActAs, tmp_path: Path
) -> None:
    reading = {words[0] for words, _ in READS}
    assert reading == {name for name, key in LEAST.items() if key == "reader"} | {"gc"}
    mirror_setup.sync()
    lines = [json.dumps({"image_url": url_of(n)}) for n in range(4)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    act_as(READER)
    where = dict(flag.split("=", 1) for flag in flags(mirror_setup.cache, mirror_setup.place))
    for words, settings in READS:
        placed = [word.format(folder=tmp_path) for word in words]
        done = mirror(*placed, *(f"--{name}={where[f'--{name}']}" for name in settings))
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    assert "may not list uploads" in done.stderr, "a reader cannot list uploads"


def test_gc_needs_no_key_that_writes_objects(
    mirror: Run, mirror_setup: MirrorSetup, act_as: ActAs, place: Place
) -> None:
    mirror_setup.sync()
    leftover = "catalog/part-00000-00000000-0000-0000-0000-000000000000-c000.snappy.parquet"
    mirror_setup.put({key_of(photo(70)): photo(70), leftover: b"of a commit that failed"})
    act_as(WRITER)
    where = {"Bucket": place.url.bucket, "Key": f"{place.url.path}/{key_of(photo(71))}"}
    S3Access(place.url, mirror_setup.settings().bucket).client().create_multipart_upload(**where)

    act_as(GC)
    client = S3Access(place.url, mirror_setup.settings().bucket).client()
    for key in (key_of(photo(72)), "format.json", "catalog/_delta_log/x.json"):
        with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
            client.put_object(Bucket=place.url.bucket, Key=f"{place.url.path}/{key}", Body=b"x")
    gone: Counter[str] = Counter()

    def all_is_gone() -> bool:
        # The store's clock counts seconds, so an object of this second is not old yet.
        done = mirror("--json", "gc", *in_bucket(mirror_setup), "--grace-days=0")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        gone.update({name: report[name] for name in ("deleted", "catalog_files", "uploads")})
        return gone.total() == 3

    assert eventually(all_is_gone, within=30)
    assert gone == {"deleted": 1, "catalog_files": 1, "uploads": 1}
    assert mirror_setup.objects().keys() == {key_of(photo(n)) for n in range(4)}


REFUSED = [
    (READER, ["sync", "--cache={folder}/more"], 1),
    (READER, ["gc", "--grace-days=0"], 1),
    (WRITER, ["gc", "--grace-days=0"], 1),
    (GC, ["sync", "--cache={folder}/more"], 1),
]


@pytest.mark.parametrize("place", S3[:1], indirect=True)
@pytest.mark.parametrize(
    ("identity", "words", "status"),
    REFUSED,
    ids=lambda v: v.name if isinstance(v, Identity) else "",
)
def test_a_missing_permission_is_one_sentence(
    mirror: Run,
    mirror_setup: MirrorSetup,
    act_as: ActAs,
    tmp_path: Path,
    identity: Identity,
    words: list[str],
    status: int,
) -> None:
    mirror_setup.sync()
    mirror_setup.put({key_of(photo(70)): photo(70)})
    fill(tmp_path / "more", {url_of(80): photo(80)})
    act_as(identity)
    placed = [word.format(folder=tmp_path) for word in words]

    def refused() -> bool:
        done = mirror(*placed, *in_bucket(mirror_setup))
        if done.returncode == 0:
            return False
        assert_said(done, status, "may not do that", "permission")
        assert ("a bucket lock" in done.stderr) == (identity is WRITER)
        assert sum("may not do that" in line for line in done.stderr.splitlines()) == 1
        return True

    assert eventually(refused, within=30)
