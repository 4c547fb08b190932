"""The table of a dataset's samples, and its check before the first step."""

from __future__ import annotations

import csv
import gzip
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mirror import Fetcher
from mirror.dataset.inputs import Input
from mirror.errors import DatasetError, UsageError
from mirror.fetch.sample_table import SampleTable, read_table
from mirror.testing import FakeFetcher
from mirror.torch import MirrorDataset, MirrorIterableDataset, ResumableSampler
from tests.support.photos import url_of
from tests.torch.training_setup import CLASSES, Prepared, class_of, write_dataset

Records = Sequence[dict[str, Any]]
RECORDS: Records = [{"image_url": url_of(n), "species": class_of(url_of(n))} for n in range(7)]


def write_jsonl(folder: Path, records: Records) -> Path:
    path = folder / "d.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def write_gzip(folder: Path, records: Records) -> Path:
    path = folder / "d.jsonl.gz"
    path.write_bytes(gzip.compress(write_jsonl(folder, records).read_bytes()))
    return path


def write_csv(folder: Path, records: Records) -> Path:
    path = folder / "d.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return path


def write_parquet(folder: Path, records: Records) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "d.parquet"
    pq.write_table(pa.Table.from_pylist(list(records)), path)
    return path


def table_of(path: Path, fetch: Fetcher, **options: Any) -> SampleTable:
    options = {"url_field": "image_url", "label_field": "species"} | options
    return read_table(Input(str(path)), fetch.coverage, **options)[0]


@pytest.mark.parametrize("write", [write_jsonl, write_gzip, write_csv, write_parquet])
def test_every_format_gives_the_same_table(
    tmp_path: Path, fetch: Fetcher, write: Callable[[Path, Records], Path]
) -> None:
    table = table_of(write(tmp_path, RECORDS), fetch)
    assert [table.url(at) for at in range(len(table))] == [one["image_url"] for one in RECORDS]
    assert table.classes == CLASSES
    names = [table.classes[int(table.labels[at])] for at in range(len(table))]
    assert names == [one["species"] for one in RECORDS]
    assert table.fingerprint == table_of(write_jsonl(tmp_path, RECORDS), fetch).fingerprint


def test_a_pickled_table_is_the_same(tmp_path: Path, fetch: Fetcher) -> None:
    table = table_of(write_jsonl(tmp_path, RECORDS), fetch)
    again = pickle.loads(pickle.dumps(table))
    assert again.fingerprint == table.fingerprint
    assert again.url(3) == table.url(3)
    assert again.classes == table.classes


def test_the_fingerprint_tells_one_dataset_from_another(tmp_path: Path, fetch: Fetcher) -> None:
    swapped = [RECORDS[1], RECORDS[0], *RECORDS[2:]]
    relabelled = [*RECORDS[:6], RECORDS[6] | {"species": CLASSES[1]}]
    paths = (write_jsonl(tmp_path, records) for records in (RECORDS, swapped, relabelled))
    assert len({table_of(path, fetch).fingerprint for path in paths}) == 3


def test_a_record_with_several_urls_makes_several_samples(tmp_path: Path, fetch: Fetcher) -> None:
    records = [
        {"photos": [{"url": url_of(1)}, {"url": url_of(2)}], "taxon": {"name": "b"}},
        {"photos": [{"url": url_of(3)}], "taxon": {"name": "a"}},
    ]
    path = write_jsonl(tmp_path, records)
    table = table_of(path, fetch, url_field="photos.url", label_field="taxon.name")
    assert [table.url(at) for at in range(3)] == [url_of(1), url_of(2), url_of(3)]
    assert table.labels.tolist() == [1, 1, 0]


def test_classes_may_be_numbers(tmp_path: Path, fetch: Fetcher) -> None:
    records = [{"image_url": url_of(n), "species": value} for n, value in enumerate([7, 12, True])]
    assert table_of(write_jsonl(tmp_path, records), fetch).classes == ("12", "7", "true")


@pytest.mark.parametrize("kind", [int, str])
def test_class_ids_from_0_keep_their_numbers(
    tmp_path: Path, fetch: Fetcher, kind: type[int | str]
) -> None:
    """Sorted as text, 10 comes before 2, and the head of a trained model would name other classes."""
    records = [{"image_url": url_of(n), "species": kind(n)} for n in range(12)]
    table = table_of(write_jsonl(tmp_path, records[::-1]), fetch)
    assert table.classes == tuple(map(str, range(12)))
    assert table.labels.tolist() == list(range(12))[::-1]
    table = table_of(write_csv(tmp_path, records), fetch)
    assert table.labels.tolist() == list(range(12))


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([-1, 10, 2], ("-1", "2", "10")),
        (["10", "2", "02"], ("02", "10", "2")),
        (["10", "2", "-0"], ("-0", "10", "2")),
        (["10", "2", "²"], ("10", "2", "²")),
        (["10", "2", "٣"], ("10", "2", "٣")),
        (["10", "2", "1_0"], ("10", "1_0", "2")),
        ([10, 2, 2.5], ("10", "2", "2.5")),
        (["9" * 5000, "10", "2"], ("10", "2", "9" * 5000)),
    ],
)
def test_names_are_sorted_as_integers_if_all_are_integers(
    tmp_path: Path, fetch: Fetcher, values: Sequence[Any], classes: tuple[str, ...]
) -> None:
    records = [{"image_url": url_of(n), "species": value} for n, value in enumerate(values)]
    table = table_of(write_jsonl(tmp_path, records), fetch)
    assert table.classes == classes
    assert [table.classes[int(table.labels[at])] for at in range(3)] == [
        str(value) for value in values
    ]


def test_an_empty_list_of_classes_is_no_default(tmp_path: Path, fetch: Fetcher) -> None:
    """An empty list, for example of a training set without labels, would give numbers without names."""
    with pytest.raises(DatasetError, match="7 unlabelled"):
        table_of(write_jsonl(tmp_path, RECORDS), fetch, classes=())


def test_labels_cannot_be_written_to(tmp_path: Path, fetch: Fetcher) -> None:
    labels = table_of(write_jsonl(tmp_path, RECORDS), fetch).labels
    assert np.bincount(labels).tolist() == [3, 2, 2]
    with pytest.raises(ValueError, match="read-only"):
        labels[0] = 1


def test_a_validation_set_takes_the_classes_of_the_training_set(
    tmp_path: Path, fetch: Fetcher
) -> None:
    few = [one for one in RECORDS if one["species"] == CLASSES[2]]
    dataset = MirrorDataset(
        write_jsonl(tmp_path, few), fetch, label_field="species", classes=CLASSES
    )
    assert dataset.classes == CLASSES
    assert set(dataset.labels.tolist()) == {2}


def bad_dataset(folder: Path) -> Path:
    records: list[dict[str, Any]] = [
        *RECORDS,
        {"image_url": url_of(101), "species": CLASSES[0]},
        {"image_url": url_of(5000), "species": CLASSES[0]},
        {"image_url": url_of(5001), "species": None},
        {"image_url": url_of(8), "species": ""},
        {"image_url": url_of(9), "species": "Homo sapiens"},
        {"species": CLASSES[0]},
    ]
    path = write_jsonl(folder, records)
    path.write_text(path.read_text() + '{"image_url": "cut\n')
    return path


def test_missing_samples_are_reported_before_the_first_step(tmp_path: Path, fetch: Fetcher) -> None:
    listing = tmp_path / "missing.jsonl"
    with pytest.raises(DatasetError) as told:
        MirrorDataset(
            bad_dataset(tmp_path),
            fetch,
            label_field="species",
            classes=CLASSES,
            missing_file=listing,
        )
    sentence = str(told.value)
    for words in (
        "7 of 14 samples are mirrored",
        "1 blank",
        "2 not_mirrored",
        "2 unlabelled",
        "2 invalid",
        str(listing),
        url_of(101),
    ):
        assert words in sentence
    lines = [json.loads(line) for line in listing.read_text().splitlines()]
    assert [(line["record"], line["outcome"]) for line in lines] == [
        (8, "blank"),
        (9, "not_mirrored"),
        (10, "not_mirrored"),
        (11, "unlabelled"),
        (12, "unlabelled"),
        (13, "invalid"),
        (14, "invalid"),
    ]
    assert lines[0]["url"] == url_of(101)
    assert lines[5]["reason"] == "no field 'image_url'"


def test_missing_samples_can_be_left_out(tmp_path: Path, fetch: Fetcher) -> None:
    dataset = MirrorDataset(
        bad_dataset(tmp_path), fetch, label_field="species", classes=CLASSES, on_missing="drop"
    )
    assert [dataset.url(at) for at in range(len(dataset))] == [one["image_url"] for one in RECORDS]
    assert dataset.check.counts == {
        "ok": 7,
        "blank": 1,
        "not_mirrored": 2,
        "unlabelled": 2,
        "invalid": 2,
    }
    assert dataset.check.examples[0] == (url_of(101), "blank")
    dataset.check.write(tmp_path / "list.jsonl")
    assert len((tmp_path / "list.jsonl").read_text().splitlines()) == 7


def test_examples_are_bounded_and_the_file_is_complete(tmp_path: Path, fetch: Fetcher) -> None:
    path = tmp_path / "d.jsonl"
    write_dataset(path, [url_of(1), *(url_of(n) for n in range(5000, 5100))])
    dataset = MirrorDataset(path, fetch, on_missing="drop")
    assert len(dataset) == 1
    assert len(dataset.check.examples) == 20
    dataset.check.write(tmp_path / "list.jsonl")
    assert len((tmp_path / "list.jsonl").read_text().splitlines()) == 100


def test_a_dataset_without_usable_samples_is_refused(tmp_path: Path, fetch: Fetcher) -> None:
    path = tmp_path / "d.jsonl"
    write_dataset(path, [url_of(5000)])
    with pytest.raises(DatasetError, match="no sample that can be used"):
        MirrorDataset(path, fetch, on_missing="drop")
    path.write_text("")
    with pytest.raises(DatasetError, match="no sample that can be used"):
        MirrorDataset(path, fetch)


@pytest.mark.parametrize("write", [write_jsonl, write_gzip, write_csv, write_parquet])
@pytest.mark.parametrize("on_missing", ["raise", "drop"])
def test_a_label_field_that_does_not_exist_is_named_with_those_that_do(
    tmp_path: Path, fetch: Fetcher, write: Callable[[Path, Records], Path], on_missing: Any
) -> None:
    path = write(tmp_path, RECORDS)
    with pytest.raises(UsageError, match="no field 'specie' among image_url, species;"):
        MirrorDataset(path, fetch, label_field="specie", on_missing=on_missing)


def test_a_label_field_that_only_later_records_have_exists(tmp_path: Path, fetch: Fetcher) -> None:
    path = write_jsonl(tmp_path, [{"image_url": url_of(0)}, *RECORDS])
    assert len(MirrorDataset(path, fetch, label_field="species", on_missing="drop")) == len(RECORDS)


def test_what_is_made_shows_itself(made: Prepared, fetch: Fetcher) -> None:
    options: dict[str, Any] = {"label_field": "species", "on_missing": "drop"}
    dataset = MirrorDataset(made.dataset, fetch, **options)
    assert repr(dataset) == f"<MirrorDataset of {made.dataset}: 100 samples, 3 classes>"
    assert repr(dataset.check) == "<DatasetCheck: 100 of 103 samples are mirrored, 3 blank>"
    stream = MirrorIterableDataset(made.dataset, fetch, batch_size=4, on_missing="drop")
    assert repr(stream) == f"<MirrorIterableDataset of {made.dataset}: 100 samples>"
    sampler = ResumableSampler(dataset)
    sampler.advance(8)
    assert repr(sampler) == "<ResumableSampler of 100 samples: epoch 0, 8 consumed, rank 0 of 1>"
    urls = [url_of(0), url_of(1), url_of(101), url_of(5000)]
    assert repr(fetch.coverage(urls)) == "<Coverage of 4 URLs: 2 ok, 1 blank, 1 not_mirrored>"
    assert repr(fetch.coverage([])) == "<Coverage of 0 URLs: none>"
    assert repr(fetch) == f"<Fetcher of {made.settings.bucket.url}>"


CALLS: dict[str, Callable[[Any, Any], object]] = {
    "call": lambda fetch, value: fetch(value),
    "many": lambda fetch, value: list(fetch.many([url_of(0), value])),
    "coverage": lambda fetch, value: fetch.coverage([url_of(0), value]),
    "cached": lambda fetch, value: fetch.cached([value]),
}


@pytest.mark.parametrize("value", [None, float("nan"), b"https://a.example/1.jpg", 7])
@pytest.mark.parametrize("call", CALLS)
def test_a_url_that_is_no_text_is_refused_in_one_sentence(
    fetch: Fetcher, call: str, value: Any
) -> None:
    said = (
        f"^A URL must be text, and .* is of type {type(value).__name__}; leave out [a-z ]+ URL\\.$"
    )
    for reader in (fetch, FakeFetcher({url_of(0): b""})):
        with pytest.raises(UsageError, match=said):
            CALLS[call](reader, value)


def test_a_missing_dataset_is_an_error(tmp_path: Path, fetch: Fetcher) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        MirrorDataset(tmp_path / "none.jsonl", fetch)


def test_a_dataset_with_the_mirrors_urls_is_read_the_same(
    tmp_path: Path, made: Prepared, fetch: Fetcher
) -> None:
    from mirror.cli.main import run

    out = tmp_path / "out.jsonl"
    bucket = made.settings.bucket.url
    words = ["-q", "rewrite", str(made.dataset), "-o", str(out), "--bucket", str(bucket)]
    assert run(words) == 0
    dataset = MirrorDataset(out, fetch, label_field="species")
    assert len(dataset) == 100
    assert dataset.url(5).startswith("file://")
    assert (
        dataset[5][0].tobytes()
        == MirrorDataset(made.dataset, fetch, on_missing="drop")[5].tobytes()
    )


@pytest.mark.parametrize("option", ["on_missing", "on_bad"])
def test_an_unknown_option_value_is_refused(made: Prepared, fetch: Fetcher, option: str) -> None:
    policy: Any = {option: "ignore"}
    with pytest.raises(UsageError, match=f"{option} is 'ignore'"):
        MirrorDataset(made.dataset, fetch, **policy)
