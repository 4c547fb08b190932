"""Training never contacts the images' origin, which may be gone."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest
from torch.utils.data import DataLoader

from mirror import Fetcher
from mirror.config.loading import Layer, merge
from mirror.errors import DatasetError, NotMirrored
from mirror.sync.run_sync import sync
from mirror.torch import MirrorDataset, ResumableSampler
from tests.support.photos import fill, photo
from tests.torch.training_setup import SIDE, pixels, write_dataset

ROOT = Path(__file__).parents[2]


@contextmanager
def origin(asked: list[str]) -> Iterator[str]:
    """A server that plays iNaturalist, and the list of requests that it receives."""

    class Photos(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(photo(int(self.path.split("/")[2]), SIDE))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Photos) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("killed", [True, False])
def test_two_epochs_send_no_request_to_the_origin(tmp_path: Path, killed: bool) -> None:
    asked: list[str] = []
    with origin(asked) as address:
        urls = [f"{address}/photos/{number}/medium.jpg" for number in range(30)]
        fill(tmp_path / "cache", {url: read(url) for url in urls[:29]})
        asked.clear()
        if not killed:
            train(tmp_path, urls)
    if killed:
        train(tmp_path, urls)
    assert not asked


def read(url: str) -> bytes:
    with urlopen(url) as answer:
        data: bytes = answer.read()
        return data


def train(folder: Path, urls: list[str]) -> None:
    place = {
        "bucket": {"url": f"file://{folder}/mirror"},
        "state": {"dir": str(folder / "state")},
    }
    sync(merge([Layer("test", place | {"cache": {"dir": str(folder / "cache")}})]))
    write_dataset(folder / "train.jsonl", urls)
    with Fetcher(merge([Layer("test", place)])) as fetch:
        with pytest.raises(NotMirrored):
            fetch(urls[29])
        with pytest.raises(DatasetError, match="1 not_mirrored"):
            MirrorDataset(folder / "train.jsonl", fetch)
        dataset = MirrorDataset(
            folder / "train.jsonl",
            fetch,
            label_field="species",
            transform=pixels,
            on_missing="drop",
        )
        sampler = ResumableSampler(dataset)
        loader = DataLoader(dataset, batch_size=8, sampler=sampler, num_workers=2)
        for epoch in range(2):
            assert sampler.epoch == epoch
            assert sum(len(labels) for _, labels in sampler.track(loader)) == 29


def test_the_example_trains_stops_and_resumes(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        options = ["--folder", str(tmp_path / "run"), "--images", "40", "--workers", "0", *words]
        done = subprocess.run(
            [sys.executable, str(ROOT / "examples" / "train_small_cnn.py"), *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = run("--stop-after", "1")
    assert "mirrored 46 of 70 files" in first
    assert "55 of 70 samples are mirrored, 2 blank, 4 corrupt, 3 not_image, 6 placeholder" in first
    assert "stopped in epoch 0: 23 of its samples are left" in first
    second = run()
    assert "resumed in epoch 0: 23 of its samples are left" in second
    assert "epoch 0: trained on 23 samples" in second
    assert "epoch 1: trained on 55 samples" in second
