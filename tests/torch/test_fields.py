"""Fields of records and several classes a sample, in real DataLoaders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from mirror import Fetcher
from mirror.errors import DatasetError, UsageError
from mirror.torch import MirrorDataset, MirrorIterableDataset
from tests.support.photos import url_of
from tests.torch.test_sample_table import Records, write_csv, write_jsonl, write_parquet

RECORDS: Records = [
    {
        "image_url": url_of(n),
        "species": f"s{n % 3}",
        "observation": {"id": 100 + n},
        "tags": [f"t{tag}" for tag in range(3) if n >> tag & 1],
    }
    for n in range(8)
]
MARKS = [[float(n >> tag & 1) for tag in range(3)] for n in range(8)]


def loaded(dataset: Any, workers: int) -> list[Any]:
    return list(DataLoader(dataset, batch_size=4, num_workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_has_the_fields_by_their_names(
    tmp_path: Path, fetch: Fetcher, workers: int
) -> None:
    path = write_jsonl(tmp_path, RECORDS)
    dataset = MirrorDataset(path, fetch, fields=["species", "observation.id"], decode=len)
    (_, fields), _ = loaded(dataset, workers)
    assert fields["species"] == ["s0", "s1", "s2", "s0"]
    assert fields["observation.id"].tolist() == [100, 101, 102, 103]


@pytest.mark.parametrize("workers", [0, 2])
def test_fields_stand_beside_the_class(tmp_path: Path, fetch: Fetcher, workers: int) -> None:
    path = write_jsonl(tmp_path, RECORDS)
    dataset = MirrorDataset(path, fetch, label_field="species", fields=["species"], decode=len)
    (_, labels, fields), _ = loaded(dataset, workers)
    assert [dataset.classes[label] for label in labels.tolist()] == fields["species"]


@pytest.mark.parametrize("workers", [0, 2])
def test_several_classes_are_marks(tmp_path: Path, fetch: Fetcher, workers: int) -> None:
    path = write_jsonl(tmp_path, RECORDS)
    dataset = MirrorDataset(path, fetch, label_field="tags", multi_label=True, decode=len)
    assert dataset.classes == ("t0", "t1", "t2")
    batches = loaded(dataset, workers)
    targets = torch.cat([target for _, target in batches])
    assert targets.dtype == torch.float32
    assert targets.tolist() == MARKS


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_has_the_same(tmp_path: Path, fetch: Fetcher, workers: int) -> None:
    path = write_jsonl(tmp_path, RECORDS)
    dataset = MirrorIterableDataset(
        path, fetch, batch_size=4, label_field="tags", multi_label=True,
        fields=["observation.id"], shuffle=False, decode=len,
    )  # fmt: skip
    batches = loaded(dataset, workers)
    assert torch.cat([target for _, target, _ in batches]).tolist() == MARKS
    ids = torch.cat([fields["observation.id"] for _, _, fields in batches])
    assert ids.tolist() == list(range(100, 108))


@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_parquet])
def test_every_format_has_fields(
    tmp_path: Path, fetch: Fetcher, write: Callable[[Path, Records], Path]
) -> None:
    records = [{"image_url": one["image_url"], "species": one["species"]} for one in RECORDS]
    dataset = MirrorDataset(write(tmp_path, records), fetch, fields=["species"], decode=len)
    assert [dataset[at][1] for at in range(8)] == [{"species": one["species"]} for one in RECORDS]


def test_a_record_without_the_field_has_none(tmp_path: Path, fetch: Fetcher) -> None:
    records = [*RECORDS[:2], {"image_url": url_of(2)}]
    dataset = MirrorDataset(write_jsonl(tmp_path, records), fetch, fields=["species"], decode=len)
    assert [dataset[at][1]["species"] for at in range(3)] == ["s0", "s1", None]


def test_a_field_that_no_record_has_is_named(tmp_path: Path, fetch: Fetcher) -> None:
    path = write_jsonl(tmp_path, RECORDS)
    with pytest.raises(
        UsageError, match=r"no field 'specie' among image_url, species, observation"
    ):
        MirrorDataset(path, fetch, fields=["species", "specie"])


def test_an_unknown_class_among_several_counts_as_unlabelled(
    tmp_path: Path, fetch: Fetcher
) -> None:
    path = write_jsonl(tmp_path, RECORDS)
    options: dict[str, Any] = {"label_field": "tags", "multi_label": True, "classes": ["t0", "t1"]}
    with pytest.raises(DatasetError, match="4 unlabelled"):
        MirrorDataset(path, fetch, **options)
    dataset = MirrorDataset(path, fetch, on_missing="drop", decode=len, **options)
    assert [dataset[at][1].tolist() for at in range(4)] == [marks[:2] for marks in MARKS[:4]]


def test_a_missing_list_is_unlabelled_and_an_empty_one_is_not(
    tmp_path: Path, fetch: Fetcher
) -> None:
    records = [RECORDS[1], {"image_url": url_of(2), "tags": []}, {"image_url": url_of(3)}]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    options: dict[str, Any] = {"label_field": "tags", "multi_label": True}
    dataset = MirrorDataset(path, fetch, on_missing="drop", decode=len, **options)
    assert dataset.check.counts == {"ok": 2, "unlabelled": 1}
    assert dataset[1][1].tolist() == [0.0]
