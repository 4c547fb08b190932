"""Training libraries open what `mirror rewrite` writes: pandas, Polars, `datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mirror.catalog.index import Index
from mirror.catalog.lookup import UrlLookup
from mirror.dataset.inputs import Input
from mirror.dataset.rewrite.rewrite_dataset import rewrite_dataset
from mirror.dataset.rewrite.rewrite_options import RewriteOptions

RECORDS = [
    {"id": n, "species": f"Quercus {n % 3}", "image_url": f"https://img/{n}.jpg", "score": n / 4}
    for n in range(20)
]
NAMES = ("out.jsonl", "out.jsonl.gz", "out.parquet", "out.csv")


@pytest.fixture(params=NAMES)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A dataset in one of the formats. No image is mirrored, so all records are kept unchanged."""
    raw = tmp_path / "raw.jsonl"
    pl.DataFrame(RECORDS).write_ndjson(raw)
    output = tmp_path / str(request.param)
    options = RewriteOptions(missing="keep")
    lookup = UrlLookup(Index.empty())
    report = rewrite_dataset([Input(str(raw))], output, options, lookup, new_urls=None)
    assert report.written == len(RECORDS)
    return output


def test_polars_opens_it(written: Path) -> None:
    if written.suffix == ".parquet":
        frame = pl.read_parquet(written)
    elif written.suffix == ".csv":
        frame = pl.read_csv(written)
    else:
        frame = pl.read_ndjson(written)
    assert frame.to_dicts() == RECORDS


def test_the_datasets_library_opens_it(written: Path, tmp_path: Path) -> None:
    import datasets

    kind = {".parquet": "parquet", ".csv": "csv"}.get(written.suffix, "json")
    loaded: Any = datasets.load_dataset(
        kind, data_files=str(written), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert list(loaded) == RECORDS
    assert np.asarray(loaded["score"]).sum() == sum(n / 4 for n in range(20))
