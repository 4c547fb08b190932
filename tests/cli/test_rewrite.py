"""`mirror rewrite` as a user calls it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mirror.cli.main import run
from mirror.system.display_text import format_size as size
from tests.cli.rewrite_command import DROPPED, THREE, Rewrite, call, ids, rewrite, work
from tests.cli.test_bad_input import Run, assert_said, mirror
from tests.support.mirrored_dataset import (
    ABSENT,
    BLANK,
    GOOD,
    MANY,
    SMALL,
    TWINS,
    Mirror,
    got,
    names,
    plants,
    put,
)
from tests.support.photos import url_of
from tests.support.terminal import Terminal

__all__ = ["call", "mirror", "plants", "rewrite", "work"]


# --- JSON ---


def test_json(rewrite: Rewrite, work: Path) -> None:
    said = rewrite("raw.jsonl", "-o", "out.jsonl", THREE, first=("--json",))
    assert (said.status, said.err) == (3, "")
    report = said.json
    assert list(report)[:4] == ["records", "written", "dropped", "splits"]
    assert report["records"] == 91
    assert report["written"] == 70 == sum(report["splits"].values())
    assert report["dropped"] == DROPPED
    assert report["outputs"] == {name: f"out_{name}.jsonl" for name in ("train", "val", "test")}
    for name, output in report["outputs"].items():
        assert len(got(work / output)) == report["splits"][name]
    assert report["rejected"] == "out.rejected.jsonl"
    assert report["examples"]["blank"][0] == {
        "input": "raw.jsonl", "number": 71, "what": url_of(BLANK[0]),
    }  # fmt: skip
    assert report["exit_status"] == 3


def test_json_without_splits(rewrite: Rewrite) -> None:
    report = rewrite("good.jsonl", "-o", "out.jsonl", "--json").json
    assert (report["splits"], report["outputs"]) == ({}, {"out": "out.jsonl"})
    assert (report["written"], report["exit_status"], report["rejected"]) == (10, 0, None)


def test_an_error_is_json_too(rewrite: Rewrite) -> None:
    said = rewrite("raw.jsonl", "-o", "out.jsonl", "--strict", first=("--json",))
    assert said.status == said.json["exit_status"] == 1
    assert "raw.jsonl, record 91: not JSON" in said.json["error"]


# --- exit statuses ---

USAGE: list[tuple[str, list[str], str]] = [
    ("no output", ["raw.jsonl"], "Missing option '-o'"),
    ("no input", ["-o", "out.jsonl"], "Missing argument"),
    ("an input that is not there", ["x.jsonl", "-o", "out.jsonl"], "x.jsonl cannot be read"),
    ("one file as both", ["raw.jsonl", "-o", "raw.jsonl"], "both an input and an output"),
    ("an output that exists", ["raw.jsonl", "-o", "good.jsonl"], "good.jsonl exists; --force"),
    ("a report that exists", ["raw.jsonl", "-o", "o.jsonl", "--report=good.jsonl"], "good.jsonl exists"),
    ("standard output", ["raw.jsonl", "-o", "-"], "name a file in place of -"),
    ("fractions below 1", ["raw.jsonl", "-o", "o.jsonl", "--split=a=0.5,b=0.4"], "add up to 0.9, not 1"),
    ("fractions above 1", ["raw.jsonl", "-o", "o.jsonl", "--split=a=0.9,b=0.2"], "add up to 1.1, not 1"),
    ("a split named wrongly", ["raw.jsonl", "-o", "o.jsonl", "--split=a/b=1"], "cannot be a split's name"),
    ("a seed below 0", ["raw.jsonl", "-o", "o.jsonl", THREE, "--seed=-1"], "The seed -1 is out of range"),
    ("a seed that is none", ["raw.jsonl", "-o", "o.jsonl", THREE, "--seed=x"], "--seed"),
    ("a sample that is none", ["raw.jsonl", "-o", "o.jsonl", "--sample=many"], "--sample many is neither a number"),
    ("a sample above all", ["raw.jsonl", "-o", "o.jsonl", "--sample=1.5"], "--sample 1.5"),
    ("groups of nothing", ["raw.jsonl", "-o", "o.jsonl", "--group-by=id"], "--group-by needs --split"),
    ("strata of nothing", ["raw.jsonl", "-o", "o.jsonl", "--stratify-by=id"], "--stratify-by needs --split"),
    ("a tolerance above 1", ["raw.jsonl", "-o", "o.jsonl", "--tolerance=2"], "--tolerance"),
    ("an empty field", ["raw.jsonl", "-o", "o.jsonl", "--url-field=a..b"], "'a..b' has an empty piece"),
    ("an empty group", ["raw.jsonl", "-o", "o.jsonl", THREE, "--group-by="], "has an empty piece"),
    ("no licence", ["raw.jsonl", "-o", "o.jsonl", "--allow-license=none"], "names no licence"),
    ("nothing to set", ["raw.jsonl", "-o", "o.jsonl", "--update-config=c.yaml"], "needs --set KEY=VALUE"),
    ("nowhere to set", ["raw.jsonl", "-o", "o.jsonl", "--set=a=b"], "--set needs --update-config"),
    ("an unknown split", ["raw.jsonl", "-o", "o.jsonl", "--update-config=c.yaml", "--set=a={val}"],
     "--set has an unknown {val}; the files written are {out}"),
    ("no configuration", ["raw.jsonl", "-o", "o.jsonl", "--update-config=c.yaml", "--set=a=b"], "c.yaml"),
    ("a cache's bucket", ["raw.jsonl", "-o", "o.jsonl", "--cached-only=."],
     "--cached-only uses no bucket; leave out --cached-only or --bucket"),
    ("judging a mirror", ["raw.jsonl", "-o", "o.jsonl", "--known-bad=x"], "--known-bad needs --cached-only"),
    ("an unknown scheme", ["raw.jsonl", "-o", "o.jsonl", "--scheme=ftp"], "--scheme"),
    ("an address", ["mongodb://u:secret@h", "-o", "o.jsonl"], "address of the MongoDB collection"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), [u[1:] for u in USAGE], ids=[u[0] for u in USAGE])
def test_usage_errors_come_before_anything_is_read(
    call: Rewrite, work: Path, arguments: list[str], said: str
) -> None:
    before = names(work)
    # A mirror that is not there: reading it would be another error.
    done = call("--bucket=file:///nonexistent/mirror", *arguments)
    assert done.status == 2, done.err
    assert said in done.err
    assert "secret" not in done.err
    assert done.out == ""
    assert names(work) == before


CONFIGURATION: list[tuple[str, list[str], str]] = [
    ("no bucket", [], "No bucket is configured"),
    ("no public URL", ["--bucket=s3://b", "--scheme=public"], "set bucket.public_url"),
    ("no s3 URLs", ["--bucket=file:///m", "--scheme=s3"], "has no s3:// URLs"),
    ("no file URLs", ["--bucket=s3://b", "--scheme=file"], "has no file:// URLs"),
    ("no signature", ["--bucket=file:///m", "--scheme=presigned"], "has no presigned URLs"),
    ("no credentials", ["--bucket=s3://b", "--scheme=presigned"], "credentials"),
    ("a public URL that is none", ["--bucket=s3://b", "--public-url=x", "--scheme=public"],
     "bucket.public_url"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"), [c[1:] for c in CONFIGURATION], ids=[c[0] for c in CONFIGURATION]
)
def test_bad_configuration(call: Rewrite, work: Path, arguments: list[str], said: str) -> None:
    done = call("raw.jsonl", "-o", "out.jsonl", *arguments)
    assert done.status == 78, done.err
    assert said in done.err
    assert not (work / "out.jsonl").exists()


def test_no_mirror_yet(call: Rewrite, work: Path) -> None:
    done = call("raw.jsonl", "-o", "out.jsonl", f"--bucket=file://{work}/nowhere")
    assert done.status == 1
    assert "There is no mirror at" in done.err
    assert "run mirror sync first" in done.err


def test_an_unreadable_life_of_signatures(call: Rewrite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    for days in ("8", "0.000001"):
        done = call("raw.jsonl", "-o", "o.jsonl", "--bucket=s3://b", "--scheme=presigned",
                    f"--expires={days}")  # fmt: skip
        assert done.status == 2
        assert "lives between 1 second and 7 days" in done.err
    for days in ("nan", "inf", "1e30"):
        done = call("raw.jsonl", "-o", "o.jsonl", "--bucket=s3://b", "--scheme=presigned",
                    f"--expires={days}")  # fmt: skip
        assert done.status == 2
        assert "--expires must be a number of days, at most 7" in done.err


def test_missing_images_may_be_an_error(rewrite: Rewrite, work: Path) -> None:
    done = rewrite("raw.jsonl", "-o", "out.jsonl", "--missing=fail")
    assert done.status == 1
    assert "5 of 91 records have an image that is not in the mirror" in done.err
    assert names(work) == {"raw.jsonl", "good.jsonl"}


def test_a_wrong_field_is_said_in_a_sentence(rewrite: Rewrite) -> None:
    done = rewrite("good.jsonl", "-o", "out.jsonl", "--url-field=url")
    assert done.status == 1
    assert "Written" not in done.out
    assert done.err == (
        "mirror: None of 10 records can be used; good.jsonl, record 1: no field 'url' among "
        "image_url, id; name the URL's field with --url-field. Nothing was written; --allow-empty "
        "writes empty outputs.\n"
    )


# --- tables ---


def test_the_tables(rewrite: Rewrite) -> None:
    said = rewrite("raw.jsonl", "-o", "out.jsonl", THREE, "--stratify-by=kind", "--seed=3")
    assert said.status == 3
    (warning,) = said.err.splitlines()  # and no bar without a terminal
    assert "photographs are in records with different values of 'kind'" in warning
    lines = said.out.splitlines()
    rows = [line.split() for line in lines]
    assert ["records", "91"] in rows
    assert ["written", "70", "76.9%"] in rows
    assert ["dropped", "21"] in rows
    assert ["not", "in", "the", "mirror", "5", "record", "86:", url_of(ABSENT[0])] in rows
    assert ["invalid", "1", "record", "91:", "not", "JSON:"] in [row[:6] for row in rows]
    assert "  placeholder" in said.out
    assert "licence" not in said.out, "nothing was dropped for it"
    header = rows.index(["class", "train", "val", "test"])
    table = {name: [int(n) for n in counts] for name, *counts in rows[header + 1 : header + 3]}
    assert {name: sum(counts) for name, counts in table.items()} == {"oak": 46, "ash": 24}
    splits = {row[0]: int(row[1]) for row in rows if row and row[0] in ("train", "val", "test")}
    assert list(splits.values()) == [sum(column) for column in zip(*table.values(), strict=True)]
    assert lines[-4:] == [
        "Written: out_train.jsonl",
        "Written: out_val.jsonl",
        "Written: out_test.jsonl",
        "Invalid records are in out.rejected.jsonl",
    ]


def test_the_tables_name_what_could_not_be_divided(rewrite: Rewrite, work: Path) -> None:
    records = [{"image_url": url_of(n), "kind": "elm" if n < 3 else "oak"} for n in (*GOOD, *MANY)]
    records += [{"image_url": url_of(MANY[0]), "kind": f"rare {n:02}"} for n in range(30)]
    put(work / "raw.jsonl", records)
    said = rewrite("raw.jsonl", "-o", "out.jsonl", THREE, "--stratify-by=kind")
    assert said.status == 0
    assert "30 classes miss their share in some splits:" in said.out
    assert "  rare 00: 1 record in fewer groups than there are splits; " in said.out
    assert "  … and 20 more (all of them with --json)" in said.out
    assert "and 12 more" in said.out.split("Written")[0]


def test_lists_and_other_spellings_are_in_the_table(rewrite: Rewrite, work: Path) -> None:
    spelled = "https://static.inaturalist.org/photos/2/medium.jpeg"
    records = [{"image_url": [url_of(1), url_of(BLANK[0])]}, {"image_url": spelled},
               {"image_url": url_of(ABSENT[0])}]  # fmt: skip
    put(work / "raw.jsonl", records)
    said = rewrite("raw.jsonl", "-o", "out.jsonl", "--match=photo", "--missing=keep")
    rows = [line.split() for line in said.out.splitlines()]
    assert ["matched", "by", "photo", "1", "images"] in rows
    assert ["not", "in", "the", "mirror", "1", "kept", "unchanged"] in rows
    assert ["URLs", "removed", "1", "from", "lists", "that", "were", "kept"] in rows


def test_a_hostile_record_does_not_reach_the_terminal(rewrite: Rewrite, work: Path) -> None:
    put(work / "raw.jsonl", [
        {"image_url": "https://x/\x1b[31m\n", "kind": "a"},
        {"image_url": url_of(1), "kind": "\x1b[2J\r\u202e"},
    ])  # fmt: skip
    said = rewrite("raw.jsonl", "-o", "out.jsonl", THREE, "--stratify-by=kind")
    assert said.status == 0
    for hostile in ("\x1b", "\r", "\u202e"):
        assert hostile not in said.out + said.err
    assert "https://x/\\x1b[31m\\n" in said.out


def test_quiet_says_nothing_unless_something_is_wrong(rewrite: Rewrite, work: Path) -> None:
    said = rewrite("good.jsonl", "-o", "out.jsonl", "-q")
    assert (said.status, said.out, said.err) == (0, "", "")
    put(work / "raw.jsonl", [{"image_url": url_of(ABSENT[0])}])
    said = rewrite("raw.jsonl", "-o", "out.jsonl", "-q", "--force")
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("mirror: None of 1 records is in the mirror, which has ")
    assert len(said.err.splitlines()) == 1


# --- what is asked of records ---


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ([], [0, 1, 2, 3]),
        (["--allow-license=cc0"], [0]),
        (["--allow-license=cc0,CC BY 4.0"], [0, 1]),
        (["--allow-license=cc0", "--allow-license=cc_by"], [0, 1]),
        (["--license-field=license", "--allow-license=cc0"], [0]),
        (["--license-field=rights"], [0, 1, 2, 3]),
        (["--license-field=license", "--public-url=https://x.example"], [0, 1]),
        (["--license-field=rights", "--public-url=https://x.example"], []),
        (["--license-field=license", "--public-url=https://x.example", "--scheme=file"], [0, 1, 2, 3]),
        (["--public-url=https://x.example"], [0, 1, 2, 3]),
    ],
)  # fmt: skip
def test_licences(rewrite: Rewrite, work: Path, options: list[str], kept: list[int]) -> None:
    values = ["CC0", "cc-by", "C", None]
    put(
        work / "raw.jsonl",
        [{"id": n, "image_url": url_of(n), "license": v} for n, v in enumerate(values)],
    )
    said = rewrite("raw.jsonl", "-o", "out.jsonl", "--json", "--allow-empty", *options)
    assert ids(work / "out.jsonl") == kept
    assert (said.status, said.json["dropped"]["license"]) == (0, 4 - len(kept))


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("7", 7, 7), ("0", 0, 0), ("1.0", 70, 70), ("100%", 70, 70), ("50%", 20, 50), ("0.5", 20, 50),
     (".5", 20, 50), ("1000000", 70, 70)],
)  # fmt: skip
def test_samples(rewrite: Rewrite, text: str, least: int, most: int) -> None:
    report = rewrite("raw.jsonl", "-o", "out.jsonl", "--json", f"--sample={text}").json
    assert least <= report["written"] <= most
    assert report["dropped"]["sample"] == 70 - report["written"]


def test_small_images_and_other_fields(rewrite: Rewrite, work: Path) -> None:
    records = [{"id": n, "photo": {"url": url_of(n)}} for n in (1, SMALL, TWINS[0])]
    put(work / "raw.jsonl", records)
    fields = ["--url-field=photo.url", "--source-field=original", "--min-size=40"]
    assert rewrite("raw.jsonl", "-o", "out.jsonl", *fields).status == 0
    assert ids(work / "out.jsonl") == [1, TWINS[0]]
    assert got(work / "out.jsonl")[0]["photo"]["original"] == url_of(1)


# --- reports and configurations ---

CONFIG = """\
# all regions
data:
  train_jsonl: "old/train.jsonl"   # 900k
  val_jsonl: old/val.jsonl
  kinds: 2
"""
SETTING = [THREE, "--update-config=config.yaml", "--set=data.train_jsonl={train}",
           "--set=data.val_jsonl=data/{val}", "--set=data.kinds=3"]  # fmt: skip
UPDATED = (
    CONFIG.replace("old/train.jsonl", "out_train.jsonl")
    .replace("old/val.jsonl", "data/out_val.jsonl")
    .replace("kinds: 2", "kinds: 3")
)


def test_the_report_is_what_json_prints(rewrite: Rewrite, work: Path) -> None:
    said = rewrite("raw.jsonl", "-o", "out.jsonl", "--report=report.json", "--json")
    assert json.loads((work / "report.json").read_text()) == said.json
    human = rewrite("raw.jsonl", "-o", "out.jsonl", "--report=report.json", "--force")
    assert human.out.startswith("records")
    report = json.loads((work / "report.json").read_text())
    assert report["dropped"] == DROPPED
    assert {reason: len(examples) for reason, examples in report["examples"].items()} == {
        reason: count for reason, count in DROPPED.items() if count
    }


def test_no_report_of_what_failed(rewrite: Rewrite, work: Path) -> None:
    put(work / "report.json", ["old"])
    said = rewrite("raw.jsonl", "-o", "out.jsonl", "--strict", "--report=report.json", "--force")
    assert said.status == 1
    assert (work / "report.json").read_text() == "old\n"


def test_a_training_is_pointed_at_the_new_files(rewrite: Rewrite, work: Path) -> None:
    (work / "config.yaml").write_text(CONFIG)
    said = rewrite("raw.jsonl", "-o", "out.jsonl", *SETTING)
    assert said.status == 3
    assert (work / "config.yaml").read_text() == UPDATED
    (backup,) = (path for path in work.iterdir() if path.name.startswith("config.yaml."))
    assert backup.read_text() == CONFIG
    assert f"Backup of the configuration: {backup}" in said.out
    assert '+  train_jsonl: "out_train.jsonl"   # 900k' in said.out


def test_a_dry_run_shows_what_would_change(rewrite: Rewrite, work: Path) -> None:
    (work / "config.yaml").write_text(CONFIG)
    before = {name: (work / name).read_bytes() for name in names(work)}
    said = rewrite("raw.jsonl", "-o", "out.jsonl", "-n", *SETTING)
    assert {name: (work / name).read_bytes() for name in names(work)} == before
    assert said.status == 3
    for line in ('-  train_jsonl: "old/train.jsonl"   # 900k', "+  val_jsonl: data/out_val.jsonl"):
        assert line in said.out.splitlines()
    assert said.out.endswith("Dry run: nothing was written.\n")
    report = rewrite("raw.jsonl", "-o", "good.jsonl", "-n", "--json", *SETTING).json
    assert (report["dry_run"], report["written"], report["outputs"]) == (True, 70, {})
    assert "+  kinds: 3" in report["config_diff"]


def test_a_training_is_not_pointed_at_empty_files(rewrite: Rewrite, work: Path) -> None:
    (work / "config.yaml").write_text(CONFIG)
    put(work / "raw.jsonl", [{"image_url": url_of(ABSENT[0])}])
    for dry in ([], ["-n"]):
        said = rewrite("raw.jsonl", "-o", "out.jsonl", "--force", *SETTING, *dry)
        assert said.status == 1
        assert "Nothing was written" in said.err
        assert (work / "config.yaml").read_text() == CONFIG
        said = rewrite("raw.jsonl", "-o", "out.jsonl", "--force", "--allow-empty", *SETTING, *dry)
        assert said.status == 0
        assert "config.yaml is unchanged, because no record was written" in said.err
        assert (work / "config.yaml").read_text() == CONFIG


def test_the_report_says_why_nothing_is_left(rewrite: Rewrite, work: Path) -> None:
    said = rewrite("good.jsonl", "-o", "o.jsonl", "--url-field=url", "--report=why.json", "--json")
    report = json.loads((work / "why.json").read_text())
    assert report == said.json
    assert (report["exit_status"], report["dropped"]["invalid"], report["outputs"]) == (1, 10, {})
    assert "no field 'url' among image_url, id" in report["error"]
    assert not (work / "o.jsonl").exists()


def test_a_configuration_that_does_not_fit_is_said_before_the_work(
    rewrite: Rewrite, work: Path
) -> None:
    (work / "config.yaml").write_text("data: [\n")
    said = rewrite("raw.jsonl", "-o", "out.jsonl", *SETTING)
    assert said.status == 2
    assert "config.yaml" in said.err
    assert not (work / "out_train.jsonl").exists()


# --- progress, and what is not there ---


def test_progress_is_a_bar_on_a_terminal_only(
    plants: Mirror, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = [f"--bucket={plants.settings.bucket.url}", f"--state={plants.settings.state.dir}"]
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert run(["rewrite", "good.jsonl", "-o", "out.jsonl", *where]) == 0
    assert f"0 records read, 0% of {size((work / 'good.jsonl').stat().st_size)}" in (
        terminal.getvalue()
    )
    for quiet, stream in ((True, Terminal()), (True, io.StringIO()), (False, io.StringIO())):
        monkeypatch.setattr(sys, "stderr", stream)
        flags = ["--force", *(["-q"] if quiet else [])]
        assert run(["rewrite", "good.jsonl", "-o", "out.jsonl", *flags, *where]) == 0
        assert stream.getvalue() == ""


def test_a_fresh_process_loads_nothing_heavy(mirror: Run) -> None:
    code = (
        "import sys\nfrom mirror.cli.main import run\nrun(['rewrite', '--help'])\n"
        "print([m for m in ('numpy', 'PIL', 'obstore', 'deltalake', 'pyarrow', 'pymongo',"
        " 'ruamel.yaml', 'boto3', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "mirror rewrite dataset_raw.jsonl -o today.jsonl --cached-only" in done.stdout


def test_as_a_program(mirror: Run, plants: Mirror, work: Path) -> None:
    where = [f"--bucket={plants.settings.bucket.url}", f"--state={plants.settings.state.dir}"]
    done = mirror("rewrite", "good.jsonl", "-o", "out.jsonl", *where)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "Written: out.jsonl"
    assert_said(mirror("rewrite", "good.jsonl", "-o", "out.jsonl", *where), 2, "--force")


def test_outputs_are_pinned_while_they_are_replaced(rewrite: Rewrite, work: Path) -> None:
    records = [{"photos": [{"image_url": url_of(n)}], "id": n, "kind": n % 7} for n in MANY]
    options = (THREE, "--url-field=photos.image_url", "--stratify-by=kind", "--output=out.jsonl")
    splits = ("train", "val", "test")
    put(work / "some.jsonl", records[::2])
    assert rewrite("some.jsonl", *options).status == 0
    earlier = {name: set(ids(work / f"out_{name}.jsonl")) for name in splits}
    put(work / "more.jsonl", records)
    pins = [f"--pin={name}=out_{name}.jsonl" for name in splits]
    done = rewrite("more.jsonl", *options, *pins, "--seed=5", "--force", first=("--json",))
    assert done.status == 0
    assert done.json["pinned"] >= len(records[::2])
    assert done.json["pin_conflicts"] == 0
    assert all(earlier[name] <= set(ids(work / f"out_{name}.jsonl")) for name in splits)
