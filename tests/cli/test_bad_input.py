"""What goes wrong at a user's: one sentence that says what to do, the right status, no traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakePlace, Place
from tests.servers import READER
from tests.support.http_servers import answering
from tests.support.mirror_setup import IS_ROOT, MOUNTS
from tests.support.photos import fill, name_of, photo, url_of

Run = Callable[..., subprocess.CompletedProcess[str]]
# Root reads whatever it likes, unless it gives up the capability to.
_CAPABILITIES = "-dac_override,-dac_read_search"
OBEYING = (
    ["setpriv", f"--bounding-set={_CAPABILITIES}", f"--inh-caps={_CAPABILITIES}"] if IS_ROOT else []
)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    fill(folder, {url_of(n): photo(n) for n in range(3)})
    return folder


@pytest.fixture
def mirror(tmp_path: Path, clean_environment: None) -> Run:
    """Runs `mirror` as a user would, in a folder of its own."""
    work = tmp_path / "work"
    work.mkdir()

    def run(*arguments: str, within: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*within, sys.executable, "-m", "mirror", *arguments],
            capture_output=True,
            text=True,
            cwd=work,
            check=False,
            timeout=120,
        )

    return run


def flags(cache: Path, place: Place | None = None, **more: str) -> list[str]:
    state = cache.parent / "state"
    given = {"cache": str(cache), "state": str(state), "bucket": f"file://{cache.parent}/mirror"}
    if place is not None:
        given |= {"bucket": place.layer["url"]}
        given |= {k: place.layer[k] for k in ("endpoint", "region", "engine") if k in place.layer}
    given |= more
    return [f"--{name}={value}" for name, value in given.items()]


def assert_said(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("mirror: ")]
    assert said, done.stderr
    for word in words:
        assert word in done.stderr


def test_a_missing_cache_folder(mirror: Run, cache: Path) -> None:
    done = mirror("sync", *flags(cache / "nowhere"))
    assert_said(done, 1, "does not exist", "mounted")


def test_a_cache_that_is_a_file(mirror: Run, cache: Path) -> None:
    done = mirror("sync", *flags(cache / name_of(url_of(1))))
    assert_said(done, 1, "is not a folder", "cache.dir")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[bucket]\nurll = 's3://b'\n", ("Unknown key bucket.urll", "bucket.url?", "mirror.toml")),
        ("[sync]\nconcurrency = 'many'\n", ("sync.concurrency", "mirror.toml")),
        ("[bucket\n", ("not valid TOML",)),
        ("[bucket]\nurl = 'http://b'\n", ("s3://BUCKET",)),
        ("", ("No bucket is configured", "bucket.url")),
    ],
    ids=["unknown key", "wrong type", "not TOML", "bad url", "nothing configured"],
)
def test_bad_configuration(mirror: Run, cache: Path, text: str, words: tuple[str, ...]) -> None:
    config = cache.parent / "mirror.toml"
    config.write_text(text)
    done = mirror("--config", str(config), "sync", f"--cache={cache}")
    assert_said(done, 78, *words)


def test_a_configuration_file_that_is_not_there(mirror: Run) -> None:
    assert_said(mirror("--config", "nowhere.toml", "sync"), 78, "nowhere.toml", "cannot be read")


@pytest.mark.parametrize(
    "story",
    [
        "mkdir d && cd d && chmod 0 . && ",
        "mkdir d && cd d && rmdir ../d && ",
        "mkdir d && chmod 0 d && export HOME=$PWD/d && unset XDG_CONFIG_HOME && ",
        "mkdir d && chmod 0 d && export XDG_CONFIG_HOME=$PWD/d && ",
    ],
    ids=[
        "in a folder that is not ours",
        "in a deleted folder",
        "home of another",
        "settings of another",
    ],
)
def test_where_no_configuration_can_be_looked_for_there_is_none(
    mirror: Run, cache: Path, story: str
) -> None:
    config = cache.parent / "named.toml"
    config.write_text(f"[state]\ndir = '{cache.parent}/state'\n")
    within = [*OBEYING, "sh", "-c", f'{story}exec "$@"', "sh"]
    done = mirror("--config", str(config), "--json", "sync", *flags(cache), within=within)
    assert (done.returncode, done.stderr.count("fault")) == (0, 0), done.stderr
    assert json.loads(done.stdout)["uploaded"] == 3


def test_a_relative_cache_in_a_deleted_folder(mirror: Run, cache: Path) -> None:
    within = ["sh", "-c", 'mkdir d && cd d && rmdir ../d && exec "$@"', "sh"]
    done = mirror("sync", *flags(cache), "--cache=images", within=within)
    assert_said(done, 78, "cache.dir", "whole path")


def test_an_unknown_key_in_the_environment(
    mirror: Run, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIRROR_BUCKET__COLOUR", "blue")
    assert_said(mirror("sync", *flags(cache)), 78, "bucket.colour", "environment")


@pytest.mark.parametrize(
    "arguments",
    [["sync", "--prefix", "xyz"], ["sync", "--no-such-option"], ["no-such-command"]],
    ids=lambda arguments: arguments[-1],
)
def test_bad_usage(mirror: Run, arguments: list[str]) -> None:
    done = mirror(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


S3 = ["seaweedfs-obstore", "seaweedfs-aioboto3"]


@pytest.mark.parametrize("name", S3)
def test_no_credentials(
    mirror: Run, cache: Path, make_place: MakePlace, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place = make_place(name)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    done = mirror("sync", *flags(cache, place))
    assert_said(done, 78, "No credentials were found", "AWS_ACCESS_KEY_ID")


@pytest.mark.parametrize("name", S3)
@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials(
    mirror: Run,
    cache: Path,
    make_place: MakePlace,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    variable: str,
) -> None:
    place = make_place(name)
    monkeypatch.setenv(variable, "wrong-value-of-a-key")
    done = mirror("sync", *flags(cache, place))
    assert_said(done, 78, "not accepted", "AWS_")
    assert "wrong-value-of-a-key" not in done.stderr


def test_a_profile_that_is_not_there(
    mirror: Run, cache: Path, make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place("moto-obstore")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert_said(mirror("sync", *flags(cache, place)), 78, "nobody", "AWS_PROFILE")


@pytest.mark.parametrize("name", ["moto-obstore", "moto-aioboto3", *S3])
def test_a_missing_bucket(mirror: Run, cache: Path, make_place: MakePlace, name: str) -> None:
    place = make_place(name)
    done = mirror("sync", *flags(cache, place, bucket="s3://nobodys-bucket/x"))
    assert_said(done, 1, "nobodys-bucket", "does not exist", "bucket.url")


@pytest.mark.parametrize("engine", ["obstore", "aioboto3"])
def test_a_bucket_in_another_region(
    mirror: Run, cache: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that answers as AWS does to a request for the wrong region."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    body = b"<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>"
    headers = {"x-amz-bucket-region": "eu-west-1"}
    with answering(301, body, headers) as endpoint:
        place = Place(
            "elsewhere", {"url": "s3://bkt/x", "endpoint": endpoint, "region": "us-east-1"}
        )
        done = mirror("sync", *flags(cache, place, engine=engine))
    assert_said(done, 78, 'bucket.region = "eu-west-1"')


@pytest.mark.parametrize("engine", ["obstore", "aioboto3"])
def test_a_clock_that_is_wrong(
    mirror: Run, cache: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    body = b"<Error><Code>RequestTimeTooSkewed</Code><Message>clock</Message></Error>"
    with answering(403, body, {}) as endpoint:
        place = Place("skewed", {"url": "s3://bkt/x", "endpoint": endpoint, "region": "us-east-1"})
        done = mirror("sync", *flags(cache, place, engine=engine))
    assert_said(done, 1, "clock is wrong", "timedatectl")


@pytest.mark.parametrize("name", S3)
def test_a_key_that_may_only_read(
    mirror: Run, cache: Path, make_place: MakePlace, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place = make_place(name)
    assert mirror("sync", *flags(cache, place)).returncode == 0
    fill(cache, {url_of(9): photo(9)})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER.secret_key)
    done = mirror("--json", "sync", *flags(cache, place))
    assert_said(done, 1, "may not do that", "permission")
    report = json.loads(done.stdout)
    assert (report["uploaded"], report["new"]) == (0, 1)


def test_an_endpoint_that_nobody_listens_at(
    mirror: Run, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    layer = {"url": "s3://bkt", "endpoint": "http://127.0.0.1:9", "region": "auto"}
    assert_said(mirror("sync", *flags(cache, Place("closed", layer))), 1, "cannot be reached")


def test_an_unknown_format(mirror: Run, cache: Path) -> None:
    folder = cache.parent / "mirror"
    folder.mkdir()
    (folder / "format.json").write_text('{"format": 99, "id": "x"}')
    assert_said(mirror("sync", *flags(cache)), 1, "mirror format 99", "upgrade")


def test_a_damaged_state_is_set_aside_and_nothing_is_uploaded_again(
    mirror: Run, cache: Path
) -> None:
    assert mirror("sync", *flags(cache)).returncode == 0
    (database,) = (cache.parent / "state").glob("*/state.sqlite")
    for suffix in ("-wal", "-shm"):
        database.with_name(f"state.sqlite{suffix}").unlink(missing_ok=True)
    database.write_bytes(b"this is no database" * 1000)
    done = mirror("--json", "sync", *flags(cache))
    assert_said(done, 0, "is damaged", "moved to")
    report = json.loads(done.stdout)
    assert (report["uploaded"], report["deduplicated"]) == (0, 3)
    assert json.loads(mirror("--json", "sync", *flags(cache)).stdout)["unchanged"] == 3


def test_a_state_folder_that_cannot_be_written(mirror: Run, cache: Path) -> None:
    (cache.parent / "state").write_text("a file is in the way")
    assert_said(mirror("sync", *flags(cache)), 1, "state folder", "state.dir")


def test_a_full_disk_under_the_state(mirror: Run, cache: Path) -> None:
    state = cache.parent / "state"
    state.mkdir()
    fill(cache, {url_of(n): photo(n % 5) for n in range(4000)})
    mount = f'mount -t tmpfs -o size=300k tmpfs {state} && exec "$@"'
    flags_of_all = [*flags(cache), "--inspect=off"]  # so few contents under so many URLs
    done = mirror("--json", "sync", *flags_of_all, within=[*MOUNTS, "sh", "-c", mount, "sh"])
    assert_said(done, 1, "is full")
    report = json.loads(mirror("--json", "sync", *flags_of_all).stdout)
    assert (report["uploaded"], report["unchanged"]) == (0, 0), "all was acknowledged before"
    assert report["deduplicated"] == 4000


def test_a_full_disk_under_the_temporary_folder(mirror: Run, cache: Path) -> None:
    fill(cache, {url_of(n): photo(n % 5) for n in range(2000)})
    flags_of_all = [*flags(cache), "--inspect=off"]  # so few contents under so many URLs
    assert mirror("sync", *flags_of_all).returncode == 0
    shutil.rmtree(cache.parent / "state")
    small = cache.parent / "small"
    small.mkdir()
    mount = f'mount -t tmpfs -o size=16k tmpfs {small} && TMPDIR={small} exec "$@"'
    done = mirror("sync", *flags_of_all, within=[*MOUNTS, "sh", "-c", mount, "sh"])
    assert_said(done, 1, "No space left", "TMPDIR")


def test_one_unreadable_file_does_not_stop_the_run(mirror: Run, cache: Path) -> None:
    bad = cache / name_of(url_of(2))
    bad.chmod(0)
    done = mirror("--json", "sync", *flags(cache), within=OBEYING)
    report = json.loads(done.stdout)
    assert done.returncode == 3
    assert (report["uploaded"], report["failed"]) == (2, 1)
    assert report["failures"][0]["path"] == bad.name
    assert "Permission denied" in done.stderr


def test_a_sub_folder_that_cannot_be_read_is_told_of_alike_by_every_command(
    mirror: Run, cache: Path
) -> None:
    assert mirror("sync", *flags(cache)).returncode == 0
    (cache / "a: b").mkdir(0)
    told = {"path": "a: b", "reason": "cannot be read: Permission denied"}

    def report(*words: str) -> dict[str, Any]:
        done = mirror("--json", *words, within=OBEYING)
        assert done.returncode == 3, done.stderr
        assert "a: b: cannot be read: Permission denied" in done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    assert report("sync", *flags(cache))["failures"] == [told]
    assert report("inspect", f"--cache={cache}")["failures"] == [told]
    (problem,) = report("rebuild-state", *flags(cache))["examples"]
    assert (problem["key"], problem["reason"]) == (told["path"], told["reason"])


def test_a_state_damaged_further_in_is_set_aside_too(mirror: Run, cache: Path) -> None:
    fill(cache, {url_of(n): photo(n % 5) for n in range(2000)})
    flags_of_all = [*flags(cache), "--inspect=off"]  # so few contents under so many URLs
    assert mirror("sync", *flags_of_all).returncode == 0
    (database,) = (cache.parent / "state").glob("*/state.sqlite")
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * (size - 4096 * 3))
    done = mirror("--json", "sync", *flags_of_all)
    assert_said(done, 0, "is damaged", "moved to")
    report = json.loads(done.stdout)
    assert (report["uploaded"], report["deduplicated"]) == (0, 2000)
