"""What `mirror rewrite` and `mirror inspect` take as inputs, as outputs and as their names."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mirror.cli.main import run
from mirror.dataset.inputs import inputs_of
from mirror.errors import UsageError
from tests.cli.rewrite_command import THREE, Rewrite, call, ids, rewrite, work
from tests.support.mirrored_dataset import ABSENT, GOOD, got, names, plants, put
from tests.support.photos import url_of

__all__ = ["call", "plants", "rewrite", "work"]


@pytest.fixture
def parts(work: Path) -> Path:
    """A folder with two datasets and what does not belong to them."""
    folder = work / "parts"
    (folder / "deeper.jsonl").mkdir(parents=True)
    put(folder / "b.jsonl", [{"image_url": url_of(n), "id": n} for n in GOOD[5:]])
    table = "id;image_url\n" + "".join(f"{n};{url_of(n)}\n" for n in GOOD[:5])
    (folder / "a.csv").write_text(table)
    for name in ("b.rejected.jsonl", ".hidden.jsonl", "README.md", "photo.jpg"):
        (folder / name).write_text("?")
    return folder


@pytest.mark.parametrize(
    "inputs",
    [["parts"], ["parts/*.csv", "parts/b*.jsonl"], ["part?/*.[cj]s*"], ["parts/a.csv", "parts/b.jsonl"],
     ["**/a.csv", "parts/b.jsonl"]],
)  # fmt: skip
def test_a_folder_a_pattern_and_files_are_inputs(
    rewrite: Rewrite, work: Path, parts: Path, inputs: list[str]
) -> None:
    said = rewrite(*inputs, "-o", "out.jsonl", "--json")
    assert (said.status, said.json["records"], said.json["written"]) == (0, 10, 10), said.err
    assert [int(number) for number in ids(work / "out.jsonl")] == list(GOOD)


def test_inputs_that_name_no_file(work: Path, parts: Path) -> None:
    (work / "none").mkdir()
    with pytest.raises(UsageError, match=r"none has no file that ends in \.jsonl"):
        inputs_of(["none"])
    with pytest.raises(
        UsageError, match=r"parts/\*\.parquet matches no file; name a dataset's file"
    ):
        inputs_of(["parts/*.parquet"])
    (work / "[odd].jsonl").write_text("{}")
    assert [one.name for one in inputs_of(["[odd].jsonl", "-", "missing.jsonl"])] == [
        "[odd].jsonl", "-", "missing.jsonl",
    ]  # fmt: skip


def test_a_delimiter_is_taken_by_its_name(rewrite: Rewrite, work: Path) -> None:
    (work / "t.csv").write_text(f"id\timage_url;x\n1\t{url_of(1)}\n")
    for written in ("tab", r"\t"):
        said = rewrite(
            "t.csv", "-o", "o.jsonl", "--delimiter", written, "--url-field=image_url;x", "--force"
        )
        assert said.status == 0, said.err
    assert got(work / "o.jsonl")[0]["id"] == "1"
    said = rewrite("t.csv", "-o", "o.jsonl", "--delimiter=ab")
    assert said.status == 2
    assert "write one character, such as ; or |, or tab" in said.err


def test_the_folder_of_an_output_is_made(rewrite: Rewrite, work: Path) -> None:
    output, report = "new/deep/{split}/plants.jsonl", "reports/why.json"
    assert rewrite("good.jsonl", "-o", output, THREE, "-n").status == 0
    assert not (work / "new").exists()
    said = rewrite("good.jsonl", "-o", output, THREE, "--url-field=url", f"--report={report}")
    assert said.status == 1
    assert not (work / "new").exists()
    assert (work / report).exists()
    said = rewrite("raw.jsonl", "-o", output, THREE, "--json")
    assert said.status == 3, said.err
    assert said.json["outputs"] == {
        name: f"new/deep/{name}/plants.jsonl" for name in ("train", "val", "test")
    }
    assert said.json["rejected"] == "new/deep/plants.rejected.jsonl"


def test_a_name_may_say_where_the_split_belongs(rewrite: Rewrite, work: Path) -> None:
    said = rewrite("good.jsonl", "-o", "d_{split}_cached.jsonl", "--split=train=0.5,val=0.5")
    assert said.status == 0, said.err
    assert {"d_train_cached.jsonl", "d_val_cached.jsonl"} < names(work)
    for arguments, sentence in (
        (["d_{split}.jsonl"], "{split} needs --split"),
        (["o.xlsx"], "ends in .xlsx, which is not written; name a file that ends in .jsonl"),
        (["o.jsonl.bz2"], "ends in .bz2"),
        (["good.jsonl/o.jsonl"], "good.jsonl is not a folder"),
    ):
        said = rewrite("good.jsonl", "-o", *arguments)
        assert said.status == 2
        assert sentence in said.err


@pytest.mark.parametrize(
    ("option", "sentence"),
    [("--sheet=x.png", "x.png ends in .png, but .html is written"),
     ("--csv=x.xlsx", "x.xlsx ends in .xlsx, but .csv is written")],
)  # fmt: skip
def test_a_page_has_its_ending(
    work: Path, option: str, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (work / "cache").mkdir()
    assert run(["inspect", "--cache=cache", option]) == 2
    assert sentence in capfd.readouterr().err
    assert run(["inspect", "--cache=cache", "--sheet=new/x.HTML", "--csv=new/x"]) == 0
    assert names(work / "new") == {"x.HTML", "x"}


# --- tables without records, and NaN ---


@pytest.mark.parametrize("split", [[], ["--split=a=0.5,b=0.5"]], ids=["whole", "split"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    "source", ["raw.jsonl", "raw.json", "raw.csv", "raw.parquet", "header.csv", "none.parquet"]
)
def test_a_table_without_records_keeps_its_columns(
    rewrite: Rewrite, work: Path, source: str, ending: str, split: list[str]
) -> None:
    record = {"id": "7", "image_url": url_of(ABSENT[0]), "kind": "oak"}
    put(work / "raw.jsonl", [record])
    (work / "raw.json").write_text(json.dumps([record]))
    pq.write_table(pa.Table.from_pylist([record]), work / "raw.parquet")
    pq.write_table(pa.Table.from_pylist([record]).slice(0, 0), work / "none.parquet")
    (work / "raw.csv").write_text(",".join(record) + "\n" + ",".join(record.values()) + "\n")
    (work / "header.csv").write_text(",".join(record) + "\n")
    said = rewrite(source, "-o", f"out.{ending}", "--allow-empty", "--json", *split)
    assert said.status == 0, said.err
    columns = ["id", "image_url", "source_url", "kind"]
    assert len(said.json["outputs"]) == (2 if split else 1)
    for file in said.json["outputs"].values():
        if ending == "csv":
            assert (work / file).read_text() == ",".join(columns) + "\n"
        else:
            table = pq.read_table(work / file)
            assert (table.column_names, table.num_rows) == (columns, 0)
            assert set(table.schema.types) == {pa.string()}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_empty_split_has_the_columns_of_the_others(
    rewrite: Rewrite, work: Path, ending: str
) -> None:
    put(work / "raw.jsonl", [{"id": 1, "image_url": url_of(1)}])
    files = rewrite("raw.jsonl", "-o", f"o.{ending}", "--split=a=0.5,b=0.5", "--json").json[
        "outputs"
    ]
    if ending == "csv":
        heads = {(work / file).read_text().partition("\n")[0] for file in files.values()}
        assert heads == {"id,image_url,source_url"}
    else:
        a, b = (pq.read_schema(work / file) for file in files.values())
        assert a == b
        assert a.names == ["id", "image_url", "source_url"]


def test_nan_in_json_lines(rewrite: Rewrite, work: Path) -> None:
    line = f'{{"image_url": "{url_of(1)}", "n": NaN}}'
    put(work / "raw.jsonl", [line])
    said = rewrite("raw.jsonl", "-o", "o.jsonl")
    assert said.status == 1
    assert "not JSON: a number is NaN or infinite; --nan null or --nan keep takes it" in said.err
    assert rewrite("raw.jsonl", "-o", "keep.jsonl", "--nan=keep").status == 0
    assert '"n": NaN}' in (work / "keep.jsonl").read_text()
    assert rewrite("raw.jsonl", "-o", "null.jsonl", "--nan=null").status == 0
    assert got(work / "null.jsonl")[0]["n"] is None
    assert rewrite("raw.jsonl", "-o", "keep.parquet", "--nan=keep").status == 0
    assert math.isnan(pq.read_table(work / "keep.parquet")["n"][0].as_py())
    # The other commands read what was kept.
    assert rewrite("keep.jsonl", "-o", "again.jsonl", "--nan=keep").status == 0
