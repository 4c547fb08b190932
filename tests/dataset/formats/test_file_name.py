"""Formats by file name, and the names of splits and of invalid records."""

from __future__ import annotations

from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.dataset.formats.file_name import FileName

# name, kind, stem, suffix, the file of the split "val"
NAMES = [
    ("plants.jsonl", "jsonl", "plants", ".jsonl", "plants_val.jsonl"),
    ("plants.ndjson", "jsonl", "plants", ".ndjson", "plants_val.ndjson"),
    ("plants.json", "jsonl", "plants", ".json", "plants_val.json"),
    ("plants.jsonl.gz", "jsonl", "plants", ".jsonl.gz", "plants_val.jsonl.gz"),
    ("plants.v2.jsonl.zst", "jsonl", "plants.v2", ".jsonl.zst", "plants.v2_val.jsonl.zst"),
    ("plants.csv", "csv", "plants", ".csv", "plants_val.csv"),
    ("plants.csv.gz", "csv", "plants", ".csv.gz", "plants_val.csv.gz"),
    ("plants.tsv", "tsv", "plants", ".tsv", "plants_val.tsv"),
    ("plants.parquet", "parquet", "plants", ".parquet", "plants_val.parquet"),
    ("plants.pq", "parquet", "plants", ".pq", "plants_val.pq"),
    ("PLANTS.JSONL.GZ", "jsonl", "PLANTS", ".JSONL.GZ", "PLANTS_val.JSONL.GZ"),
    ("plants.Parquet", "parquet", "plants", ".Parquet", "plants_val.Parquet"),
    ("plants", "jsonl", "plants", "", "plants_val.jsonl"),
    ("plants.gz", "jsonl", "plants", ".gz", "plants_val.jsonl.gz"),
    ("plants.v2", "jsonl", "plants.v2", "", "plants.v2_val.jsonl"),
    ("plants.v2.zst", "jsonl", "plants.v2", ".zst", "plants.v2_val.jsonl.zst"),
    (".jsonl", "jsonl", ".jsonl", "", ".jsonl_val.jsonl"),
    (".gz", "jsonl", "", ".gz", "_val.jsonl.gz"),
    ("a b.csv", "csv", "a b", ".csv", "a b_val.csv"),
]


@pytest.mark.parametrize(("name", "kind", "stem", "suffix", "split"), NAMES)
def test_names(name: str, kind: str, stem: str, suffix: str, split: str) -> None:
    path = PurePath("some.csv") / name
    parsed = FileName.parse(path)
    assert parsed == (path, stem, suffix, kind)
    assert parsed.split("val") == PurePath("some.csv") / split
    assert parsed.rejected() == PurePath("some.csv") / f"{stem}.rejected.jsonl"


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1).filter(lambda n: n != "."))
def test_a_split_is_of_the_format_of_the_whole(name: str) -> None:
    whole = FileName.parse(PurePath("d") / name)
    split = FileName.parse(whole.split("train"))
    assert whole.stem + whole.suffix == name
    assert split.kind == whole.kind
    assert split.path != whole.path
    assert FileName.parse(whole.rejected()).kind == "jsonl"


@pytest.mark.parametrize(
    ("path", "split", "rejected"),
    [
        ("d_{split}_cached.jsonl.gz", "d_val_cached.jsonl.gz", "d_cached.rejected.jsonl"),
        ("{split}.csv", "val.csv", "dataset.rejected.jsonl"),
        ("out/{split}/{split}-1.parquet", "out/val/val-1.parquet", "out/-1.rejected.jsonl"),
        ("out/{split}/plants.jsonl", "out/val/plants.jsonl", "out/plants.rejected.jsonl"),
    ],
)
def test_a_name_says_where_the_split_belongs(path: str, split: str, rejected: str) -> None:
    name = FileName.parse(PurePath(path))
    assert name.names_split
    assert (str(name.split("val")), str(name.rejected())) == (split, rejected)


@pytest.mark.parametrize(
    ("name", "ending"),
    [("a.xlsx", ".xlsx"), ("a.jsonl.bz2", ".bz2"), ("a.xlsx.gz", ".xlsx"), ("a.csv", ""), ("a", ""),
     ("a.gz", ""), (".hidden", "")],
)  # fmt: skip
def test_endings_of_other_formats(name: str, ending: str) -> None:
    assert FileName.parse(PurePath("x.y") / name).foreign_ending == ending
