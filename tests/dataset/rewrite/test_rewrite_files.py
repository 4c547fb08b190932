"""Files of a rewrite: they appear complete or not at all, and a run is repeatable byte for byte."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mirror.catalog.index import Index
from mirror.catalog.lookup import UrlLookup
from mirror.dataset.compression import zstd
from mirror.dataset.inputs import Input
from mirror.dataset.rewrite.output_files import check_files
from mirror.dataset.rewrite.rewrite_options import RewriteOptions
from mirror.dataset.splits.split import parse_splits
from mirror.errors import DatasetError, UsageError
from mirror.run.progress import Progress
from tests.dataset.rewrite.conftest import THREE, Rewrite
from tests.support.mirror_setup import full_disk
from tests.support.mirrored_dataset import (
    ABSENT,
    BLANK,
    GOOD,
    MANY,
    TWINS,
    Mirror,
    command_line,
    got,
    names,
    put,
    record,
)
from tests.support.photos import url_of


def test_an_input_that_breaks_off_is_an_error_and_not_the_end(rewrite: Rewrite, work: Path) -> None:
    class Breaking(Progress):
        def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
            if nbytes:
                raise OSError(5, "Input/output error")

    with pytest.raises(DatasetError, match="raw.jsonl cannot be read to its end"):
        rewrite([record(1)], base=None, progress=Breaking())
    assert names(work) == {"raw.jsonl"}


# --- a dry run ---


@pytest.mark.parametrize("splits", [(), THREE])
def test_a_dry_run_tells_the_same_and_writes_nothing(
    plants: Mirror, work: Path, splits: Any
) -> None:
    path = put(work / "raw.jsonl", [*(record(n) for n in (*MANY, *BLANK, *ABSENT)), "?"])
    put(work / "out.rejected.jsonl", [{"old": 1}])
    before = {name: (work / name).read_bytes() for name in names(work)}
    dry = plants.rewrite(path, work / "out.jsonl", splits=splits, dry_run=True).as_json()
    assert {name: (work / name).read_bytes() for name in names(work)} == before
    wet = plants.rewrite(path, work / "out.jsonl", splits=splits).as_json()
    assert (dry["outputs"], dry["rejected"], dry["dry_run"]) == ({}, None, True)
    for name in ("records", "written", "dropped", "splits", "examples", "exit_status", "warnings"):
        assert dry[name] == wet[name], name


def test_a_dry_run_needs_no_room(rewrite: Rewrite, work: Path) -> None:
    (work / "sealed").mkdir(mode=0o500)
    report = rewrite([record(1), "?"], output="sealed/out.jsonl", dry_run=True, splits=THREE)
    assert report.written == 1


# --- files ---


def test_what_is_there_is_replaced_as_a_whole(rewrite: Rewrite, work: Path) -> None:
    put(work / "real.jsonl", [{"old": 1}])
    (work / "out.jsonl").symlink_to("real.jsonl")
    rewrite([record(1)], force=True)
    assert (work / "out.jsonl").is_symlink()
    assert [one["id"] for one in got(work / "real.jsonl")] == [1]


REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    # input, output, options, what is said
    ("raw.jsonl", "raw.jsonl", {}, "raw.jsonl is both an input and an output"),
    ("raw.jsonl", "raw.jsonl", {"force": True}, "both an input and an output"),
    ("raw.jsonl", "raw.jsonl", {"dry_run": True}, "both an input and an output"),
    ("raw.jsonl", "link.jsonl", {"force": True}, "both an input and an output"),
    ("out_val.jsonl", "out.jsonl", {"splits": THREE, "force": True}, "both an input and an output"),
    ("out.rejected.jsonl", "out.jsonl", {"force": True}, "out.rejected.jsonl is both an input and"),
    ("raw.jsonl", "old.jsonl", {}, "old.jsonl exists; --force replaces it"),
    ("raw.jsonl", "out.jsonl", {"splits": THREE}, "out_val.jsonl exists; --force"),
    ("raw.jsonl", "folder", {"force": True}, "folder is a folder; name a file"),
    ("raw.jsonl", "old.jsonl/out.jsonl", {}, "old.jsonl is not a folder"),
    ("raw.jsonl", "old.jsonl/in/out.jsonl", {}, "old.jsonl is not a folder"),
    ("raw.jsonl", "pipe", {"force": True}, "pipe is not a regular file"),
    ("raw.jsonl", "-", {}, "name a file in place of -"),
    ("raw.jsonl", "report.json", {}, "report.json would be written twice"),
    ("raw.jsonl", "", {}, "is a folder"),
    ("raw.jsonl", "/", {}, "/ is a folder"),
    ("missing.jsonl", "out.jsonl", {}, "missing.jsonl cannot be read (No such file"),
    ("folder", "out.jsonl", {}, "folder cannot be read (Is a directory)"),
    ("mongodb://host", "out.jsonl", {}, "address of the MongoDB collection is not understood"),
]


@pytest.mark.parametrize(("source", "output", "options", "said"), REFUSED)
def test_what_cannot_be_is_said_before_anything_is_read(
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    output: str,
    options: dict[str, Any],
    said: str,
) -> None:
    for name in ("raw", "old", "out_val", "out.rejected"):
        put(work / f"{name}.jsonl", [{"name": name}])
    (work / "folder").mkdir()
    (work / "link.jsonl").symlink_to("raw.jsonl")
    os.mkfifo(work / "pipe")
    monkeypatch.chdir(work)
    with pytest.raises(UsageError) as raised:
        check_files(
            [Input(source)],
            Path(output),
            RewriteOptions(report_file=Path("report.json"), **options),
        )
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("output", "options"),
    [
        ("new.jsonl", {}),
        ("raw.jsonl", {"splits": THREE}),  # raw_train.jsonl and so on, beside their input
        ("old.jsonl", {"force": True}),
        ("old.jsonl", {"dry_run": True}),
    ],
)
def test_what_can_be_is_let_be(
    work: Path, monkeypatch: pytest.MonkeyPatch, output: str, options: dict[str, Any]
) -> None:
    put(work / "raw.jsonl", [])
    put(work / "old.jsonl", [])
    monkeypatch.chdir(work)
    before = names(work)
    check_files([Input("raw.jsonl"), Input("-")], Path(output), RewriteOptions(**options))
    assert names(work) == before


def test_a_report_that_exists_is_not_replaced_by_a_dry_run_either(work: Path) -> None:
    raw, report = put(work / "raw.jsonl", []), put(work / "report.json", [])
    with pytest.raises(UsageError, match="report.json exists"):
        check_files(
            [Input(str(raw))], work / "out.jsonl", RewriteOptions(dry_run=True, report_file=report)
        )


# --- again and again ---

FORMATS = ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.csv", "out.parquet", "out.csv.gz"]


@pytest.mark.parametrize("name", FORMATS)
def test_running_twice_gives_identical_bytes(plants: Mirror, work: Path, name: str) -> None:
    path = put(work / "raw.jsonl", [record(n, obs=n // 3, kind=n % 4) for n in (*MANY, *ABSENT)])
    options: dict[str, Any] = {
        "splits": THREE, "group": ("obs",), "stratify": ("kind",), "sample": 50, "force": True,
    }  # fmt: skip
    outputs = []
    for _ in range(2):
        report = plants.rewrite(path, work / name, **options)
        outputs.append({split: Path(out).read_bytes() for split, out in report.outputs.items()})
    assert outputs[0] == outputs[1]
    assert set(outputs[0]) == {"train", "val", "test"}
    assert sum(report.splits.values()) == report.written == 50


def test_rewriting_again_changes_no_byte(rewrite: Rewrite, plants: Mirror, work: Path) -> None:
    lines: list[Any] = [record(n) for n in GOOD]
    lines += [
        {"id": "nested", "photos": [{"image_url": url_of(1)}], "image_url": [url_of(2), url_of(3)]},
        '{"image_url":"https:\\/\\/inaturalist-open-data.s3.amazonaws.com\\/photos\\/4\\/medium.jpg"}',
    ]
    rewrite(lines, output="once.jsonl")
    report = plants.rewrite(work / "once.jsonl", work / "twice.jsonl")
    assert (work / "twice.jsonl").read_bytes() == (work / "once.jsonl").read_bytes()
    assert (report.written, report.exit_status) == (12, 0)


def test_a_rewritten_dataset_moves_to_other_urls_and_keeps_the_first_ones(
    rewrite: Rewrite, plants: Mirror, work: Path
) -> None:
    rewrite([record(1), record(2)], output="once.jsonl")
    report = plants.rewrite(work / "once.jsonl", work / "public.jsonl", base="https://img.example/")
    assert report.exit_status == 0
    for number, one in zip((1, 2), got(work / "public.jsonl"), strict=True):
        assert one["image_url"] == plants.url(number).replace(plants.base, "https://img.example/")
        assert one["source_url"] == url_of(number)


def test_a_dataset_of_a_mirror_that_has_moved_is_rewritten_again(
    rewrite: Rewrite, plants: Mirror, work: Path
) -> None:
    rewrite([record(1), record(2)], output="here.jsonl")
    lines = (work / "here.jsonl").read_bytes()
    old = lines.replace(plants.base.encode(), b"https://pub-1.r2.example/inat/")
    (work / "old.jsonl").write_bytes(old)
    report = plants.rewrite(work / "old.jsonl", work / "moved.jsonl")
    assert (report.written, report.exit_status) == (2, 0)
    assert (work / "moved.jsonl").read_bytes() == lines


def test_what_was_kept_though_missing_is_rewritten_when_it_is_there(
    rewrite: Rewrite, plants: Mirror, work: Path
) -> None:
    lists = [{"image_url": [url_of(2), url_of(1)]}, {"image_url": [url_of(1), url_of(2)]}]
    only = plants.index.find(hashlib.md5(url_of(1).encode()).digest())
    sightings = {name: column[only] for name, column in plants.index.sightings.items()}
    smaller = Index(0, sightings, plants.index.objects)
    early = UrlLookup(smaller)
    rewrite(lists, early, output="early.jsonl", missing="keep")
    assert got(work / "early.jsonl")[0]["image_url"] == [url_of(2), plants.url(1)]
    report = plants.rewrite(work / "early.jsonl", work / "late.jsonl")
    assert (report.written, report.dropped["invalid"]) == (2, 0)
    for one, urls in zip(got(work / "late.jsonl"), lists, strict=True):
        assert sorted(one["image_url"]) == sorted([plants.url(1), plants.url(2)])
        assert one["source_url"] == urls["image_url"]


def test_without_new_urls_records_stay_byte_for_byte(rewrite: Rewrite, work: Path) -> None:
    lines = [f'{{ "x":1,"image_url" :  "{url_of(n)}"}}  ' for n in (1, ABSENT[0], BLANK[0], 2)]
    report = rewrite(lines, base=None)
    assert (work / "out.jsonl").read_text() == f"{lines[0]}\n{lines[3]}\n"
    assert report.written == 2


# --- whatever happens ---


def test_records_that_fit_no_table_leave_all_as_it_was(rewrite: Rewrite, work: Path) -> None:
    put(work / "out.rejected.jsonl", ["old"])
    (work / "out.parquet").write_text("old")
    records = [record(1, x=1), record(2, x={"y": 1}), "?"]
    with pytest.raises(UsageError, match="cannot be Parquet"):
        rewrite(records, output="out.parquet", force=True)
    assert names(work) == {"raw.jsonl", "out.parquet", "out.rejected.jsonl"}
    assert (work / "out.parquet").read_text() == "old"
    assert (work / "out.rejected.jsonl").read_text() == "old\n"


@pytest.mark.parametrize("splits", [(), THREE])
def test_interrupted_it_leaves_no_trace(rewrite: Rewrite, work: Path, splits: Any) -> None:
    class Interrupting(Progress):
        def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
            if items:
                raise KeyboardInterrupt

    put(work / "out.rejected.jsonl", ["old"])
    with pytest.raises(KeyboardInterrupt):
        rewrite([record(1), "?"], base=None, progress=Interrupting(), splits=splits)
    assert names(work) == {"raw.jsonl", "out.rejected.jsonl"}
    assert (work / "out.rejected.jsonl").read_text() == "old\n"


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "out.jsonl"],
        ["-o", "out.csv", "--split", "train=0.8,val=0.2"],
        ["-o", "out.jsonl.zst", "--url-field", "nowhere"],  # the rejected file is what grows
    ],
    ids=["the output", "what waits", "what is rejected"],
)
def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(
    plants: Mirror, work: Path, options: list[str]
) -> None:
    put(work / "raw.jsonl", [record(n, chance=random.Random(n).random()) for n in [*MANY] * 100])
    for name in (
        "out.jsonl",
        "out_train.csv",
        "out_val.csv",
        "out.jsonl.zst",
        "out.rejected.jsonl",
    ):
        (work / name).write_text("old")
    before = names(work)
    arguments = command_line(plants, "raw.jsonl", "--force", *options)
    done = subprocess.run(
        [*full_disk(100_000), sys.executable, "-m", "mirror", *arguments],
        cwd=work, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "cannot be written to its end (File too large)" in done.stderr
    assert "make room" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert names(work) == before
    assert all((work / name).read_text() == "old" for name in before - {"raw.jsonl"})


# Prints by how many bytes the second run's peak is above the first's.
GROWTH = """
import resource, sys
from mirror.cli.main import run
peaks = []
for name in ("small.jsonl", "large.jsonl"):
    assert run([*sys.argv[1:], name]) == 0
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
print(peaks[1] - peaks[0])
"""


def test_memory_does_not_grow_with_the_dataset(plants: Mirror, work: Path) -> None:
    numbers = [*MANY, *GOOD, *TWINS]
    lines = [json.dumps(record(n, text="x" * 200, obs=n, kind=n % 9)) + "\n" for n in numbers]
    (work / "small.jsonl").write_text("".join(lines * 100))
    with (work / "large.jsonl").open("w") as file:
        for _ in range(100):
            file.write("".join(lines * 25))
    arguments = command_line(
        plants, "-q", "-o", "out.jsonl", "--force", "--split=train=0.8,val=0.1,test=0.1",
        "--group-by=obs", "--stratify-by=kind", "--sample=150000",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, *arguments],
        cwd=work, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    size = (work / "large.jsonl").stat().st_size
    assert size > 60e6
    # Keys of 200,000 records, and one pass over them: far below the file.
    assert int(done.stdout) < 45e6


def uncompressed(path: Path) -> bytes:
    body = path.read_bytes()
    unpack: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".zst": zstd.decompress}
    return unpack.get(path.suffix, bytes)(body)


def test_the_same_records_are_in_every_compression(plants: Mirror, work: Path) -> None:
    path = put(work / "raw.jsonl", [record(n) for n in MANY])
    outputs = [work / name for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst")]
    for output in outputs:
        plants.rewrite(path, output)
    assert len({uncompressed(output) for output in outputs}) == 1


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_splits_have_the_same_columns_of_the_same_types(
    plants: Mirror, work: Path, kind: str
) -> None:
    told = [{"n": None, "q": 0.5} if n % 2 else {"n": 7, "q": 1} for n in GOOD]
    rare = [{"rare": True}, *[{} for _ in range(9)]]
    path = put(
        work / "raw.jsonl",
        [record(n, **one, **more) for n, one, more in zip(GOOD, told, rare, strict=True)],
    )
    report = plants.rewrite(path, work / f"out.{kind}", splits=parse_splits("a=0.5,b=0.4,c=0.1"))
    outputs = [Path(output) for output in report.outputs.values()]
    if kind == "csv":
        assert len({output.read_text().partition("\n")[0] for output in outputs}) == 1
    else:
        tables = [pq.read_table(output) for output in outputs]
        assert pa.concat_tables(tables).num_rows == len(GOOD)


def test_where_one_split_cannot_be_written_all_stay_as_they_were(
    plants: Mirror, work: Path
) -> None:
    # A column for each record: the larger split's table is beyond what the disk has, at its very end.
    put(work / "raw.jsonl", [record(MANY[n % 60], **{f"x{n}": 1}) for n in range(350)])
    for name in ("out_train.csv", "out_val.csv"):
        (work / name).write_text("old")
    words = command_line(
        plants, "raw.jsonl", "--force", "-o", "out.csv", "--split", "train=0.8,val=0.2"
    )
    done = subprocess.run(
        [*full_disk(110_000), sys.executable, "-m", "mirror", *words],
        cwd=work, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "out_train.csv cannot be written to its end" in done.stderr
    assert names(work) == {"raw.jsonl", "out_train.csv", "out_val.csv"}
    assert all(path.read_text() == "old" for path in work.glob("out_*.csv"))


def test_what_was_set_aside_for_one_output_is_not_anothers_to_remove(
    rewrite: Rewrite, plants: Mirror, work: Path
) -> None:
    rewrite([record(1), "?"])
    aside = (work / "out.rejected.jsonl").read_text()
    plants.rewrite(work / "out.jsonl", work / "out.parquet")
    path = put(work / "raw.jsonl", [record(1), "!"])
    report = plants.rewrite(path, work / "out.csv.gz")
    assert report.rejected == str(work / "out.csv.gz.rejected.jsonl")
    assert (work / "out.rejected.jsonl").read_text() == aside
    (work / "out.csv.gz").unlink()
    with pytest.raises(UsageError, match=r"out\.csv\.gz\.rejected\.jsonl exists; --force"):
        check_files([Input(str(path))], work / "out.csv.gz", RewriteOptions())
    rewrite([record(1)], force=True)
    assert not (work / "out.rejected.jsonl").exists()
