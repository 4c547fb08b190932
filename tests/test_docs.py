"""The documents are true: sessions run, options and keys are documented, examples load."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from mirror.backfill.backfill_report import BackfillReport
from mirror.cli.main import COMMANDS, mirror, run
from mirror.cli.reference import JSON, reference
from mirror.config.loading import known_keys, load
from mirror.config.settings import IMAGE_EXTENSIONS, SyncSettings
from mirror.dataset.export import ExportReport
from mirror.dataset.rewrite.rewrite_report import RewriteReport
from mirror.fetch.download_files import SaveReport
from mirror.fetch.prefetch import PrefetchReport
from mirror.inspection.quarantine import QuarantineReport
from mirror.sync.rebuild import RebuildReport
from mirror.sync.sync_report import SyncReport
from mirror.upkeep.gc import GcReport
from mirror.upkeep.pull import PullReport
from mirror.upkeep.repair import RepairReport
from mirror.upkeep.verify import VerifyReport
from tests.chaos.report import TABLES, filled
from tests.support.photos import blank, fill, photo, url_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def sessions(text: str) -> list[tuple[str, str]]:
    """`(command, output)` of the console block that is marked as a session."""
    block = text.split("<!-- session:", 1)[1].split("```console\n", 1)[1].split("```", 1)[0]
    pieces = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(pieces[::2], pieces[1::2], strict=True))


def comparable(output: str) -> list[str]:
    """The lines without what differs between machines: durations, sizes, spaces, the state folder."""
    text = re.sub(r"\d[\d.,]* (ms|s|B|kB|MB|GB)\b", r"N", output)
    text = re.sub(r"^(ok +state +)\S+,", r"\1…,", text, flags=re.MULTILINE)
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 200


@pytest.fixture
def demo_folder(tmp_path: Path, clean_environment: None) -> Path:
    """A folder with the cache and the dataset of `mirror demo`, and the README's train.py."""
    (program,) = re.findall(r"```python\n(# train\.py\n.*?)```", README, re.DOTALL)
    (tmp_path / "train.py").write_text(program)
    assert _run(tmp_path, "mirror demo --quiet") == ""
    return tmp_path


def _run(folder: Path, command: str) -> str:
    program, *words = command.replace("/home/you", str(folder)).split()
    assert program in ("mirror", "python")
    module = ["-m", "mirror"] if program == "mirror" else []
    done = subprocess.run(
        [sys.executable, *module, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.replace(str(folder), "/home/you")


def test_the_readmes_session_and_examples_run(
    demo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command, printed in sessions(README):
        assert comparable(_run(demo_folder, command)) == comparable(printed), command

    monkeypatch.chdir(demo_folder)
    _, own_class, library = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    torch = pytest.importorskip("torch")
    names: dict[str, Any] = {"torch": torch, "json": json, "Path": Path, "decode": len}
    exec(own_class, names)
    from mirror import Fetcher

    with Fetcher.from_config("mirror.toml") as fetch:
        dataset = names["Plants"]("plants_val.jsonl", fetch)
        batches = torch.utils.data.DataLoader(dataset, batch_size=32)
        assert sum(len(labels) for _, labels in batches) == 81
    url = dataset.records[0]["image_url"]
    names = {"url": url, "urls": [url, dataset.records[1]["source_url"]]}
    exec(library, names)
    assert names["report"].unchanged == 445
    assert isinstance(names["result"], bytes)


def test_the_example_configuration_has_every_key_and_loads(clean_environment: None) -> None:
    example = ROOT / "config" / "mirror.example.toml"
    settings = load(config=example, environ={}, cwd=ROOT / "config")
    assert settings.cache.extensions == IMAGE_EXTENSIONS
    assert settings.sync == SyncSettings(limit_rate="20M")
    text = example.read_text()
    for key in known_keys():
        section, name = key.rsplit(".", 1)
        table = text.split(f"[{section}]\n", 1)[1].split("\n[", 1)[0]
        assert re.search(rf"^{name} = ", table, re.MULTILINE), key


def test_every_key_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    missing = [key for key in known_keys() if f"`{key}`" not in text]
    assert not missing


def test_the_readmes_configuration_loads(tmp_path: Path, clean_environment: None) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "mirror.toml").write_text(block)
    assert load(environ={}, cwd=tmp_path).bucket.url == "s3://plants/inat"


def commands() -> Iterator[tuple[str, click.Command]]:
    for name in COMMANDS:
        command = mirror.get_command(click.Context(mirror), name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", found) for inner, found in command.commands.items())


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_option_has_help_and_every_command_an_example(
    name: str, command: click.Command
) -> None:
    assert command.help is not None
    assert re.search(r"Examples?:", command.help)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"


def test_the_page_on_reliability_names_existing_tests() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    assert len(text.splitlines()) <= 160
    named = set(re.findall(r"`(tests/[^`]+)`", text))
    assert named
    assert not [name for name in named if not (ROOT / name).is_file()]
    # Its tables were written, and can be written again.
    assert re.search(r"version \S+, seed \d+, .* 0 failed", text)
    assert filled(text, {}).count("<!-- chaos:") == text.count("<!-- chaos:") == len(TABLES)


def test_the_reference_of_the_command_line_is_current() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == reference(), "run: make docs"


def test_the_reference_names_what_json_prints() -> None:
    # A group has no JSON of its own, and completion and help print text.
    assert {name for name, _ in commands()} - {"config", "completion", "help"} == JSON.keys()
    for key in SyncReport("x").as_json():
        assert re.search(rf"\b{key}\b", JSON["sync"]), key


REPORTS: dict[str, Any] = {
    "backfill": BackfillReport(run_id="x"),
    "export": ExportReport(Path("out")),
    "fetch": SaveReport(),
    "gc": GcReport(),
    "prefetch": PrefetchReport(),
    "quarantine": QuarantineReport("manifest.jsonl", dry_run=True),
    "pull": PullReport(),
    "rebuild-state": RebuildReport(),
    "repair": RepairReport(),
    "rewrite": RewriteReport(),
    "verify": VerifyReport(),
}


def test_the_reference_has_every_member_of_an_inspection(
    tmp_path: Path, clean_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, {url_of(1): photo(1), url_of(2): blank()})
    assert run(["--json", "inspect", f"--cache={tmp_path}"]) == 0
    report = json.loads(capsys.readouterr().out)
    for key in (*report, *report["flagged"][0]):
        assert re.search(rf"\b{key}\b", JSON["inspect"]), key


@pytest.mark.parametrize("name", REPORTS)
def test_the_reference_has_every_member_of_a_report(name: str) -> None:
    told = JSON[name] + (JSON["verify"] if name == "repair" else "")
    missing = [key for key in REPORTS[name].as_json() if not re.search(rf"\b{key}\b", told)]
    assert not missing


@pytest.mark.parametrize(
    "text", [*DOCUMENTS, *sorted((ROOT / "mirror").rglob("*.py"))], ids=lambda path: path.name
)
def test_every_command_in_the_text_has_the_options_shown(text: Path) -> None:
    """Applies to documents, and to commands in error messages."""
    whole = re.sub(r"\\+\n\s*", "", text.read_text())
    for name, words in re.findall(r"\bmirror ([a-z]+(?:-[a-z]+)?)((?: [^`;&|#\n\"]+)?)", whole):
        command = mirror.get_command(click.Context(mirror), name)
        if command is None:
            continue  # the noun "mirror" in a sentence
        known = {option for parameter in command.params for option in parameter.opts}
        if isinstance(command, click.Group):
            known |= {o for c in command.commands.values() for p in c.params for o in p.opts}
        known |= {"--help", "--version"}
        for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", words):
            assert option in known, f"mirror {name} has no {option}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_the_formats_example_reads_a_catalog(tmp_path: Path, clean_environment: None) -> None:
    """Run the Polars example of docs/format.md on a mirror in a folder."""
    from mirror.config.loading import Layer, merge
    from mirror.sync.run_sync import sync

    fill(tmp_path / "cache", {url_of(1): photo(1), url_of(2): photo(2), url_of(3): blank()})
    place = {
        "cache": {"dir": str(tmp_path / "cache")},
        "bucket": {"url": f"file://{tmp_path}/mirror"},
        "state": {"dir": str(tmp_path / "state")},
    }
    sync(merge([Layer("test", place)]))
    text = (ROOT / "docs" / "format.md").read_text()
    polars, _pandas, key = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    exec(polars.replace("s3://plants/inat", f"{tmp_path}/mirror"), names)
    latest = names["latest"]
    verdicts = latest.group_by("verdict").len().rows()  # type: ignore[attr-defined]
    assert dict(verdicts) == {"ok": 2, "blank": 1}
    for row in latest.to_dicts():  # type: ignore[attr-defined]
        if row["verdict"] == "ok":
            found: dict[str, object] = {"row": row}
            exec(key, found)
            assert (tmp_path / "mirror" / str(found["key"])).is_file()
