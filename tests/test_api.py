"""`Mirror`: the verbs, options and reports of the command line as a Python object."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, get_type_hints

import click
import pytest

import mirror
from mirror import (
    BucketMissing,
    ConfigError,
    Interrupted,
    Mirror,
    MirrorError,
    NotMirrored,
    Report,
    UsageError,
    errors,
)
from mirror.api import DepthOptions, FetchOptions
from mirror.cli.main import COMMANDS, run
from mirror.cli.main import mirror as command_line
from mirror.run.progress import Progress, Stage
from mirror.sync.sync_report import SyncReport
from tests.support.photos import blank, fill, photo, url_of

# Commands that are no verbs of a mirror; `config` is an attribute.
NO_VERBS = {"init", "schedule", "config", "completion", "help", "demo"}
# Options of all commands, and of runs that nobody watches.
OF_THE_COMMAND_LINE = {"config", "json", "quiet", "verbose", "log_format", "metrics_file", "ping"}
# Where the mirror and the cache are: `Mirror.open` takes them.
OF_OPEN = {"cache", "bucket", "endpoint", "region", "public_url", "engine", "state"}
KEYWORDS = {"for": "for_", "from": "from_"}


# --- the names ---


def test_every_error_is_public() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, MirrorError)
    }
    assert set(mirror.__all__) == defined | {
        "AsyncFetcher", "Fetcher", "Mirror", "Progress", "Report", "Stage", "__version__", "rgb",
    }  # fmt: skip


def test_every_public_name_is_there_and_no_other() -> None:
    for name in mirror.__all__:
        assert getattr(mirror, name) is not None
        assert name in dir(mirror)
    with pytest.raises(AttributeError, match="no attribute 'Miror'"):
        _ = mirror.Miror  # type: ignore[attr-defined]


def test_an_error_costs_no_numpy() -> None:
    code = (
        "import sys; from mirror import NotMirrored, __version__; import mirror; dir(mirror);"
        "print([m for m in ('numpy', 'obstore', 'mirror.api') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def parameters_of(method: Callable[..., Any]) -> set[str]:
    groups = {"options": FetchOptions, "depth": DepthOptions}
    names: set[str] = set()
    for parameter in inspect.signature(method).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            names |= get_type_hints(groups[parameter.name]).keys()
        else:
            names.add(parameter.name)
    return names - {"self"}


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - NO_VERBS))
def test_every_option_of_a_command_is_an_argument_of_its_method(name: str) -> None:
    command = command_line.get_command(click.Context(command_line), name)
    assert command is not None
    options, arguments = set(), 0
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            long = next(text for text in parameter.opts if text.startswith("--"))
            option = long.removeprefix("--").replace("-", "_")
            options.add(KEYWORDS.get(option, option))
        else:
            arguments += 1
    method = getattr(Mirror, name.replace("-", "_"))
    found = parameters_of(method)
    wanted = options - OF_THE_COMMAND_LINE - OF_OPEN
    assert wanted <= found
    # The rest are the command's arguments, and the progress.
    assert len(found - wanted - {"progress"}) == arguments


def test_open_takes_the_other_options() -> None:
    assert parameters_of(Mirror.open) == OF_OPEN | {"config", "settings"}


# --- opening ---


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Path:
    """A working folder with a cache, a dataset and mirror.toml."""
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    return tmp_path


def prepare(folder: Path) -> None:
    """Write a cache of three photos (two are equal) and a blank frame, a dataset and mirror.toml."""
    images = {url_of(1): photo(1), url_of(2): photo(2), url_of(3): photo(1), url_of(4): blank()}
    fill(folder / "cache", images)
    (folder / "mirror.toml").write_text(
        f'cache.dir = "cache"\nbucket.url = "file://{folder}/mirror"\nstate.dir = "state"\n'
    )
    records = [{"image_url": url_of(number), "species": "oak"} for number in range(1, 6)]
    (folder / "raw.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in records))


def test_open_reads_what_the_command_line_reads(place: Path) -> None:
    assert Mirror.open().config == Mirror.open("mirror.toml").config
    assert Mirror.open().config.cache.dir == str(place / "cache")
    assert Mirror.open(cache="other", settings={"sync.concurrency": 3}).config.cache.dir == "other"
    assert Mirror.open(settings={"sync.concurrency": 3}).config.sync.concurrency == 3
    assert Mirror.open(bucket=place / "b c").config.bucket.url == f"file://{place}/b%20c"
    assert repr(Mirror.open()) == f"Mirror(bucket='file://{place}/mirror', cache='{place}/cache')"


def test_open_asks_nothing_of_the_network(clean_environment: None) -> None:
    Mirror.open(cache="/no/such", bucket="s3://b/x", endpoint="http://127.0.0.1:1", region="auto")


@pytest.mark.parametrize(
    "arguments",
    [{"config": "no-such.toml"}, {"settings": {"sync.speed": 1}}, {"engine": "fast"}],
    ids=str,
)
def test_wrong_settings_are_refused(arguments: dict[str, Any], place: Path) -> None:
    with pytest.raises(ConfigError):
        Mirror.open(**arguments)


# --- verbs and their reports ---

# Ids, times and sizes of disks, which no two runs share.
NOISE = {"run_id", "seconds", "mirror_id", "created_at", "last_runs", "checks"}


def without_noise(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_noise(inner) for key, inner in value.items() if key not in NOISE}
    return [without_noise(inner) for inner in value] if isinstance(value, list) else value


Verb = Callable[[Mirror], Report]
VERBS: list[tuple[str, Verb, list[str]]] = [
    ("inspect", lambda m: m.inspect(level="header"), ["--level", "header"]),
    ("duplicates", lambda m: m.duplicates(), []),
    ("sync", lambda m: m.sync(dry_run=True), ["--dry-run"]),
    ("sync", lambda m: m.sync(), []),
    ("sync", lambda m: m.sync(prefix="0"), ["--prefix", "0"]),
    ("status", lambda m: m.status(no_scan=True), ["--no-scan"]),
    (
        "rewrite",
        lambda m: m.rewrite(
            "raw.jsonl", "out.jsonl", split={"train": 0.8, "val": 0.2}, force=True
        ),
        ["raw.jsonl", "-o", "out.jsonl", "--split", "train=0.8,val=0.2", "--force"],
    ),
    (
        "rewrite",
        lambda m: m.rewrite(["raw.jsonl"], Path("own.jsonl"), cached_only="cache", force=True),
        ["raw.jsonl", "-o", "own.jsonl", "--cached-only", "cache", "--force"],
    ),
    ("fetch", lambda m: m.fetch([url_of(1), url_of(9)]), [url_of(1), url_of(9)]),
    ("prefetch", lambda m: m.prefetch("raw.jsonl", check=True), ["raw.jsonl", "--check"]),
    ("duplicates", lambda m: m.duplicates(mirror=True), ["--mirror"]),
    ("verify", lambda m: m.verify(full=True, seed=2), ["--full", "--seed", "2"]),
    ("verify", lambda m: m.verify(sample=0.5, seed=1), ["--sample", "50%", "--seed", "1"]),
    ("repair", lambda m: m.repair(dry_run=True, seed=3), ["--dry-run", "--seed", "3"]),
    ("rebuild-state", lambda m: m.rebuild_state(restart=True), ["--restart"]),
    ("gc", lambda m: m.gc(dry_run=True, max_delete=5), ["--dry-run", "--max-delete", "5"]),
    ("pull", lambda m: m.pull(dataset="raw.jsonl"), ["--dataset", "raw.jsonl"]),
    ("quarantine", lambda m: m.quarantine("flagged"), ["--to", "flagged"]),
    (
        "backfill",
        lambda m: m.backfill("raw.jsonl", contact="a@example.org", dry_run=True, for_=timedelta(hours=2), allow_license="cc0"),
        ["raw.jsonl", "--contact", "a@example.org", "--dry-run", "--for", "2h", "--allow-license", "cc0"],
    ),
    ("doctor", lambda m: m.doctor(), []),
]  # fmt: skip


def test_a_report_is_what_json_prints(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two mirrors of one cache: one by the library, one by the command line."""
    library = Mirror.open("mirror.toml")
    other = place / "other"
    other.mkdir()
    prepare(other)
    for command, verb, options in VERBS:
        report = verb(library)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(other)
            status = run(["--json", command, *options])
        printed = json.loads(capsys.readouterr().out.replace(str(other), str(place)))
        assert report.as_dict().keys() - {"run_id"} == printed.keys() - {"run_id"}, command
        assert without_noise(report.as_dict()) == without_noise(printed), command
        assert (report.command, report.exit_status) == (command, status)
        assert repr(report).startswith(f"<{command}: ")


def test_a_verb_tells_its_progress(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Recorded(Progress):
        def __init__(self) -> None:
            self.stages: list[str] = []
            self.items = 0

        def begin(self, stage: Stage) -> None:
            self.stages.append(stage.noun)

        def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
            self.items += items

    m = Mirror.open()
    assert m.inspect().checked == 4
    assert capsys.readouterr() == ("", "")
    recorded = Recorded()
    m.inspect(progress=recorded)
    assert (recorded.stages, recorded.items) == (["files judged"], 4)
    m.inspect(progress=True)
    assert "files judged" in capsys.readouterr().err


def test_a_run_that_ends_early_raises_with_its_report(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mirror.sync import run_sync

    def ended(_settings: Any, options: Any, **_: Any) -> Any:
        report = SyncReport("x", scanned=4)
        report.error = BucketMissing("The bucket is gone.")
        return report

    monkeypatch.setattr(run_sync, "sync", ended)
    with pytest.raises(BucketMissing) as caught:
        Mirror.open().sync()
    assert caught.value.report is not None
    assert caught.value.report.scanned == 4

    def interrupted(_settings: Any, options: Any, **_: Any) -> Any:
        return SyncReport("x", scanned=4, interrupted=True)

    monkeypatch.setattr(run_sync, "sync", interrupted)
    with pytest.raises(Interrupted) as stopped:
        Mirror.open().sync()
    assert stopped.value.report is not None
    assert stopped.value.report.exit_status == 130


def test_items_that_failed_are_in_the_report(place: Path) -> None:
    m = Mirror.open()
    m.sync()
    report = m.fetch(url_of(9))
    assert not report.succeeded
    assert report.exit_status == 3
    assert report.failures == [{"url": url_of(9), "reason": "not in the mirror"}]


def test_it_works_inside_an_event_loop_as_in_a_notebook(place: Path) -> None:
    async def cell() -> tuple[int, bytes]:
        m = Mirror.open()
        assert m.sync().succeeded
        with m.fetcher() as fetch:
            return m.status().files, fetch(url_of(1))

    assert asyncio.run(cell()) == (4, photo(1))


def test_a_fetcher_takes_the_options_of_fetch(place: Path) -> None:
    m = Mirror.open()
    m.sync()
    with m.fetcher(fetch_cache="nvme", cache_bytes=10**9, match="photo") as fetch:
        assert fetch(url_of(2)) == photo(2)
        with pytest.raises(NotMirrored):
            fetch(url_of(9))
    assert m.prefetch("raw.jsonl", fetch_cache="nvme").cached >= 1


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda m: m.sync(prefix="xyz"), "prefix='xyz' is not understood; write up to 32"),
        (lambda m: m.verify(sample=2.0), "sample='2.000000' is not understood; write a share"),
        (lambda m: m.verify(sample="1%", full=True), "Choose one of"),
        (lambda m: m.backfill("raw.jsonl", until="noon"), "until='noon' is not understood"),
        (lambda m: m.gc(max_delete="few"), "--max-delete few is not understood"),
        (lambda m: m.sync(inspect="deep"), "sync.inspect .from argument. is wrong"),
        (lambda m: m.rewrite("raw.jsonl", "o.jsonl", known_bad="x"), "needs --cached-only"),
        (lambda m: m.rewrite("raw.jsonl", "o.jsonl", pin={"a": "x"}), "--pin needs --split"),
        (lambda m: m.rewrite("raw.jsonl", "o.jsonl", split="a=1", pin="a"), "not SPLIT=FILE"),
        (lambda m: m.rewrite("raw.jsonl", "o.jsonl", split="a=1", pin="a=-"), "output is a file"),
        (
            lambda m: m.rewrite("raw.jsonl", "o.jsonl", split="a=1", pin="a=mongodb://h/d/c"),
            "an earlier output is a file",
        ),
        (
            lambda m: m.rewrite("raw.jsonl", "o.jsonl", split="a=1", pin={"b": ["x", "y"]}),
            "--pin b=x names no split of --split; write one of a",
        ),
        (
            lambda m: m.rewrite("raw.jsonl", "o.jsonl", split="a=1", pin={"a": "none.jsonl"}),
            "none.jsonl cannot be read",
        ),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(place: Path, call: Verb, sentence: str) -> None:
    with pytest.raises((UsageError, ConfigError), match=sentence):
        call(Mirror.open())
