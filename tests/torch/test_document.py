"""The examples in docs/training.md work."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.torch.training_setup import CLASSES, pixels, prepared

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
GET, DOWNLOADER, OWN_CLASS, IMPORTS, LOOP, STREAM, LIGHTNING, IMAGEFOLDER = re.findall(
    r"```python\n(.*?)```", TEXT, re.DOTALL
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Path:
    """A folder to work in: `mirror.toml`, and `train.jsonl` of 150 samples."""
    made = prepared(tmp_path, 150)
    (tmp_path / "mirror.toml").write_text(
        f'[bucket]\nurl = "{made.settings.bucket.url}"\n[state]\ndir = "state"\n'
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def records_of(place: Path) -> list[dict[str, Any]]:
    lines = (place / "train.jsonl").read_text().splitlines()
    return [json.loads(line) | {"label": at} for at, line in enumerate(lines)]


def test_the_drop_ins_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.fetch.dropin._shared", [])
    names: dict[str, Any] = {
        "url": records_of(place)[0]["image_url"],
    }
    exec(GET, names)
    assert names["image"].mode == "RGB"
    exec(DOWNLOADER, names)
    assert names["data"] == names["response"].content


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_class_of_ones_own_reads_whole_batches(place: Path) -> None:
    data = pytest.importorskip("torch.utils.data")
    names: dict[str, Any] = {
        "Dataset": data.Dataset,
        "DataLoader": data.DataLoader,
        "records": records_of(place),
        "transform": pixels,
    }
    exec(OWN_CLASS, names)
    labels = [label for _, batch in names["loader"] for label in batch.tolist()]
    assert labels == list(range(150))
    names["dataset"].fetch.close()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_ten_lines_train_and_resume(place: Path) -> None:
    seen: list[int] = []
    states: list[dict[str, Any]] = []

    class Model:
        def state_dict(self) -> dict[str, Any]:
            return {}

    names: dict[str, Any] = {
        "transform": pixels,
        "checkpoint": None,
        "epochs": 1,
        "model": Model(),
        "train_step": lambda images, labels: seen.extend(labels.tolist()),
        "save": states.append,
    }
    exec(IMPORTS, names)
    exec(LOOP, names)
    assert len(seen) == 150
    assert [state["sampler"]["consumed"] for state in states] == [64, 128, 150]
    seen.clear()
    names["checkpoint"] = states[0]
    exec(LOOP, names)
    assert len(seen) == 150 - 64
    assert names["dataset"].classes == CLASSES

    seen.clear()
    exec(STREAM, names)
    assert len(seen) == 150
    names["fetch"].close()


def test_imagefolder_needs_no_copy(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    from mirror.fetch.filesystem import MirrorFileSystem

    fsspec.register_implementation("mirror", MirrorFileSystem, clobber=True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", place / "datasets")
    names: dict[str, Any] = {}
    exec(IMAGEFOLDER, names)
    images = names["images"]
    assert images.features["label"].names == list(CLASSES)
    assert len(images) == 150
