"""The examples in docs/training.md work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.torch.training_setup import CLASSES, pixels, prepared

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
LOOP, IMPORTS, STREAM, IMAGEFOLDER = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Path:
    """A folder to work in: `mirror.toml`, and `train.jsonl` of 150 samples."""
    made = prepared(tmp_path, 150)
    (tmp_path / "mirror.toml").write_text(
        f'[bucket]\nurl = "{made.settings.bucket.url}"\n[state]\ndir = "state"\n'
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
