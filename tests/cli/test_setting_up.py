"""From nothing to a configuration: `mirror init`, `config show`, `config check`, completion."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from mirror.cli.commands.config import toml
from mirror.cli.main import COMMANDS, run
from mirror.cli.main import mirror as command_line
from mirror.config import loading
from mirror.config.loading import known_keys, load
from tests.conftest import MakePlace
from tests.support.photos import fill, photo, url_of
from tests.support.terminal import Terminal


@pytest.fixture
def here(tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a cache in it, and no configuration anywhere."""
    monkeypatch.setattr(loading, "SYSTEM_CONFIG", tmp_path / "etc" / "mirror.toml")
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "cache", {url_of(1): photo(1)})
    return tmp_path


def answers(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("".join(f"{line}\n" for line in lines)))


def test_flags_are_enough_and_the_doctor_looks_at_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", "--cache=cache", f"--bucket=file://{here}/mirror", "--state=state"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Written: mirror.toml\n")
    assert "ok    cache          1 file" in shown
    settings = load(environ={}, cwd=here)
    assert settings.cache.dir == str(here / "cache"), "absolute: cron stands elsewhere"
    assert settings.bucket.url == f"file://{here}/mirror"
    assert settings.state.dir == str(here / "state")
    assert run(["sync"]) == 0


def test_questions_on_a_terminal(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(
        monkeypatch,
        "cache",
        "s3://plants/inat",
        "https://r2.example.org",
        "",
        "https://img.example.org",
    )
    assert run(["init", "--no-doctor"]) == 0
    settings = load(environ={}, cwd=here)
    assert settings.bucket.endpoint == "https://r2.example.org"
    assert (settings.bucket.region, settings.bucket.public_url) == (
        "auto",
        "https://img.example.org",
    )


def test_empty_answers_leave_keys_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "s3://plants", "", "eu-central-1", "")
    assert run(["init", "--cache=cache", "--no-doctor"]) == 0
    bucket = load(environ={}, cwd=here).bucket
    assert (bucket.url, bucket.region) == ("s3://plants", "eu-central-1")
    assert bucket.endpoint is bucket.public_url is None


def test_a_wrong_answer_is_asked_for_again_and_the_others_are_kept(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(
        monkeypatch,
        "~nobody-of-this-name/cache", "cache",
        "plants", f"file://{here}/cache/mirror", "s3://plants/inat",
        "r2.example.org", "https://r2.example.org",
        "",
        "img.example.org", "",
    )  # fmt: skip
    assert run(["init", "--no-doctor"]) == 0
    shown = capsys.readouterr().err
    for question, times in (
        ("The cache folder", 2), ("The mirror's bucket", 3), ("The S3 endpoint", 2),
        ("The bucket's region", 1), ("The public URL", 2),
    ):  # fmt: skip
        assert shown.count(question) == times
    assert shown.count("Error: ") == 5
    settings = load(environ={}, cwd=here)
    assert settings.cache.dir == str(here / "cache")
    assert settings.bucket.url == "s3://plants/inat"
    assert settings.bucket.endpoint == "https://r2.example.org"


def test_a_wrong_flag_ends_before_the_first_question(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, "cache")
    assert run(["init", "--bucket=plants"]) == 78
    assert "The cache folder" not in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_before_the_first_question(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, "cache", f"file://{here}/mirror")
    assert run(["init", "--no-doctor", "-o", "nowhere/mirror.toml"]) == 2
    shown = capsys.readouterr().err
    assert "nowhere/mirror.toml cannot be written" in shown
    assert "The cache folder" not in shown


def test_an_endpoint_of_the_environment_that_is_wrong_loses_no_answer(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "r2.example.org")
    answers(monkeypatch, "cache", "s3://plants", "", "https://r2.example.org", "", "")
    assert run(["init", "--no-doctor"]) == 0
    assert load(environ={}, cwd=here).bucket.endpoint == "https://r2.example.org"
    assert not list(here.glob(".mirror-*"))


@pytest.mark.parametrize("asked", [False, True])
def test_a_missing_cache_folder_is_told(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: bool
) -> None:
    answers(monkeypatch, "chache")
    words = [] if asked else ["--cache=chache"]
    assert run(["init", *words, f"--bucket=file://{here}/mirror", "--no-doctor"]) == 0
    assert f"There is no folder {here}/chache" in capsys.readouterr().err


def test_flags_that_are_enough_leave_no_question(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a line of a document does the same on a terminal as without one."""
    answers(monkeypatch)
    flags = ["--cache=cache", "--bucket=s3://plants", "--endpoint=https://r2.example.org"]
    assert run(["init", *flags, "--no-doctor"]) == 0
    assert load(environ={}, cwd=here).bucket.public_url is None


def test_nobody_is_asked_where_nobody_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--cache=cache"]) == 2
    assert "--bucket URL" in capsys.readouterr().err
    assert not (here / "mirror.toml").exists()


def test_what_is_there_is_replaced_only_by_force(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mirror.toml").write_text("# mine\n")
    words = ["init", "--cache=cache", f"--bucket=file://{here}/mirror", "--no-doctor"]
    assert run(words) == 2
    assert "--force" in capsys.readouterr().err
    assert (here / "mirror.toml").read_text() == "# mine\n"
    assert run([*words, "--force"]) == 0
    assert load(environ={}, cwd=here).bucket.url == f"file://{here}/mirror"


@pytest.mark.parametrize("bucket", ["http://b", "s3://a/../b", "s3://b?x", "file:///{cache}/m"])
def test_nothing_wrong_is_written(here: Path, bucket: str) -> None:
    bucket = bucket.format(cache=here / "cache")
    assert run(["init", "--cache=cache", f"--bucket={bucket}"]) == 78
    assert not (here / "mirror.toml").exists()


def test_odd_names_survive(here: Path) -> None:
    odd = here / 'a "b" \\ ü\t#'
    odd.mkdir()
    assert run(["init", f"--cache={odd}", "--bucket=s3://b", "--no-doctor"]) == 0
    assert load(environ={}, cwd=here).cache.dir == str(odd)


def test_init_ends_as_the_doctor_does(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bucket = f"--bucket=file://{here}/mirror"
    assert run(["--json", "init", "--cache=nowhere", bucket, "--state=state"]) == 78
    printed = json.loads(capsys.readouterr().out)
    assert printed["written"] == "mirror.toml"
    assert [check["name"] for check in printed["checks"] if check["status"] == "fail"] == ["cache"]


def test_the_doctor_of_init_looks_where_a_run_would(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIRROR_STATE__DIR", str(here / "from-the-environment"))
    monkeypatch.setenv("MIRROR_BUCKET__URL", "s3://another")
    assert run(["init", "--cache=cache", f"--bucket=file://{here}/mirror"]) == 0
    assert str(here / "from-the-environment") in capsys.readouterr().out
    assert not (here / "state-home").exists()
    assert "from-the-environment" not in (here / "mirror.toml").read_text()


def test_init_on_a_server(
    here: Path, make_place: MakePlace, capsys: pytest.CaptureFixture[str]
) -> None:
    place = make_place("seaweedfs-obstore")
    flags = {
        "bucket": place.layer["url"],
        "endpoint": place.layer["endpoint"],
        "region": "us-east-1",
    }
    words = [f"--{name}={value}" for name, value in flags.items()]
    assert run(["init", "--cache=cache", "--state=state", *words]) == 0
    assert run(["-q", "sync"]) == 0
    capsys.readouterr()
    assert run(["--json", "status"]) == 0
    assert json.loads(capsys.readouterr().out)["objects"] == 1


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert run(["--json", "config", "show", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_every_key_is_shown_with_its_origin(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mirror.toml").write_text('[bucket]\nurl = "s3://b"\nregion = "here"\n')
    (here / "special.toml").write_text('[bucket]\nurl = "s3://c"\n[cache]\ndir = "c"\n')
    monkeypatch.setenv("MIRROR_BUCKET__REGION", "variable")
    found = shown(capsys, "--config=special.toml")
    assert list(found) == known_keys()
    assert found["bucket.url"] == {"value": "s3://c", "origin": "special.toml"}
    assert found["bucket.region"] == {"value": "variable", "origin": "environment"}
    assert found["cache.dir"] == {"value": str(here / "c"), "origin": "special.toml"}
    assert found["sync.concurrency"] == {"value": 64, "origin": "default"}
    found = shown(capsys)
    assert found["bucket.url"] == {"value": "s3://b", "origin": str(here / "mirror.toml")}


def test_what_is_shown_is_a_configuration(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIRROR_BUCKET__URL", "s3://b/prefix")
    monkeypatch.setenv("MIRROR_SYNC__LIMIT_RATE", "20M")
    before = load(cwd=here)
    for words in (["config", "show"], ["config", "show", "--origin"]):
        assert run(words) == 0
        file = here / "again.toml"
        file.write_text(capsys.readouterr().out)
        assert load(config=file, environ={}, cwd=here / "cache") == before


def test_a_right_configuration_is_called_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mirror.toml").write_text('[bucket]\nurl = "s3://b"\n')
    assert run(["config", "check"]) == 0
    assert str(here / "mirror.toml") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "No bucket is configured"),
        ("[bucket]\nurll = 's3://b'\n", "Unknown key bucket.urll"),
        ("[bucket]\nurl = 's3://b'\n[sync]\nlimit_rate = 'fast'\n", "The rate 'fast'"),
        ("[bucket]\nurl = 's3://b'\n[cache]\nextensions = ['.jpg']\n", "cache.extensions"),
        ("[bucket]\nurl = 's3://b'\n[backfill]\nlicenses = ['cc0', 'unknown']\n", "'unknown'"),
        ("[bucket]\nurl = 's3://b'\n[backfill]\nhosts = ['https://x']\n", "'https://x'"),
        ("[bucket]\nurl = 's3://b'\n[inspect]\nknown_bad = 'nowhere.txt'\n", "nowhere.txt"),
    ],
)
def test_a_wrong_configuration_is_told(
    here: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    (here / "mirror.toml").write_text(text)
    assert run(["config", "check"]) == 78
    assert words in capsys.readouterr().err


def images_and_objects(here: Path) -> set[Path]:
    return {path for name in ("cache", "mirror") for path in (here / name).rglob("*")}


@pytest.mark.parametrize(
    "words",
    [
        ["sync"],
        ["sync", "--dry-run"],
        ["rebuild-state"],
        ["pull"],
        ["doctor"],
        ["doctor", "--read-only"],
        ["config", "check"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("bucket", "cache"),
    [
        ("cache", "cache"),
        ("cache/m", "cache"),
        ("cache/.m/n", "cache"),
        ("link/m", "cache"),
        ("cache/m", "link"),
        ("mirror", "mirror/objects"),
        ("mirror", "mirror/objects/ab"),
        ("mirror", "mirror/catalog/c"),
        ("mirror", "mirror/doctor"),
    ],
)
def test_a_mirror_and_its_cache_stay_out_of_each_other(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    bucket: str,
    cache: str,
) -> None:
    """The mirror's objects would count as images, and gc take the cache's for its own."""
    (here / "link").symlink_to("cache")
    monkeypatch.setenv("MIRROR_BUCKET__URL", f"file://{here}/{bucket}")
    monkeypatch.setenv("MIRROR_CACHE__DIR", cache)
    before = images_and_objects(here)
    assert run(words) == 78
    said = capsys.readouterr()
    assert "beside the cache" in said.out + said.err
    assert images_and_objects(here) == before


@pytest.mark.parametrize("bucket", ["mirror", "", "cache-2"])
def test_a_cache_beside_the_mirrors_own_folders_is_none_of_them(
    here: Path, monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    monkeypatch.setenv("MIRROR_BUCKET__URL", f"file://{here}/{bucket}")
    monkeypatch.setenv("MIRROR_CACHE__DIR", "cache")
    assert run(["config", "check"]) == 0
    assert run(["-q", "sync"]) == 0
    assert run(["doctor"]) == 0


@pytest.mark.parametrize(
    ("value", "written"),
    [("a", '"a"'), (["a", "b"], '["a", "b"]'), (5, "5"), (0.5, "0.5"), ("\x7f", '"\\u007f"')],
)
def test_values_as_toml(value: Any, written: str) -> None:
    import tomllib

    assert toml(value) == written
    assert tomllib.loads(f"key = {written}")["key"] == value


@pytest.mark.parametrize(
    ("shell", "words"), [("bash", "complete "), ("zsh", "compdef"), ("fish", "complete ")]
)
def test_a_shells_completion(capsys: pytest.CaptureFixture[str], shell: str, words: str) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert words in script
    assert "_MIRROR_COMPLETE" in script


@pytest.mark.parametrize(
    ("typed", "completed"), [("mirror do", "doctor"), ("mirror sync --metr", "--metrics-file")]
)
def test_a_word_is_completed(typed: str, completed: str) -> None:
    """As the script that `mirror completion bash` prints asks for it."""
    asked = {"_MIRROR_COMPLETE": "bash_complete", "COMP_WORDS": typed}
    asked["COMP_CWORD"] = str(len(typed.split()) - 1)
    assert completions(asked) == [f"plain,{completed}"]


def completions(asked: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "mirror"],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()


def takes_a_path(parameter: click.Parameter) -> bool:
    """As its help names it."""
    return bool(re.match(r"DIR|FILE|IN\b|OUT|DATASET", parameter.metavar or ""))


@pytest.mark.parametrize("name", COMMANDS)
def test_shells_complete_paths_wherever_one_is_taken(name: str) -> None:
    """bash gets the kind "file" and then completes names of files by itself."""
    command = command_line.get_command(click.Context(command_line), name)
    assert command is not None
    context = click.Context(command)
    for parameter in filter(takes_a_path, command.params):
        (item,) = parameter.shell_complete(context, "da")
        assert (item.value, item.type in ("file", "dir")) == ("da", True), parameter.name


def test_a_completion_of_a_dataset_leaves_it_to_the_shell() -> None:
    typed = {
        "_MIRROR_COMPLETE": "bash_complete",
        "COMP_WORDS": "mirror rewrite da",
        "COMP_CWORD": "2",
    }
    assert completions(typed) == ["file,da"]


# --- words that are nearly right ---


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["snyc"], "There is no command 'snyc'; did you mean sync?"),
        (["help", "rebuildstate"], "did you mean rebuild-state?"),
        (["frobnicate"], "mirror --help lists them."),
    ],
)
def test_a_command_that_does_not_exist(
    capsys: pytest.CaptureFixture[str], typed: list[str], said: str
) -> None:
    assert run(typed) == 2
    assert said in capsys.readouterr().err


def test_help_is_a_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    for words, same in ((["help", "gc"], ["gc", "--help"]), (["help"], ["--help"])):
        assert run(words) == 0
        shown = capsys.readouterr().out
        assert run(same) == 0
        assert shown == capsys.readouterr().out
