"""`mirror demo`: the whole pipeline on a small cache and an S3 server in this process."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from mirror.config.loading import Layer, merge
from mirror.config.settings import Settings
from mirror.dataset.rewrite.rewrite_options import parse_options
from mirror.dataset.rewrite.rewrite_report import RewriteReport
from mirror.dataset.rewrite.run_rewrite import rewrite
from mirror.demo.demo_cache import DemoCache, make_cache
from mirror.demo.s3_server import s3_server
from mirror.errors import UsageError
from mirror.fetch.client import Fetcher
from mirror.run.progress import Progress, Stage
from mirror.sync.run_sync import sync
from mirror.sync.sync_report import SyncReport
from mirror.upkeep.verify import VerifyOptions, VerifyReport, verify

_T = TypeVar("_T")
_BUCKET: Final = "demo"
# Marks a folder that a demo made and a later demo may replace.
_MARK: Final = ".mirror-demo"


@dataclass(frozen=True)
class TrainingRead:
    """What a training reads of a dataset's URLs: `images`, and `errors` by their class name."""

    images: int
    nbytes: int
    errors: dict[str, int]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {
            "fetched": self.images,
            "missing": sum(self.errors.values()),
            "bytes": self.nbytes,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class DemoReport:
    """The steps of a demo, in their order."""

    folder: Path
    made: DemoCache
    first: SyncReport
    second: SyncReport
    rewrite: RewriteReport
    fetch: TrainingRead
    verify: VerifyReport

    @property
    def exit_status(self) -> int:
        steps = (self.first, self.second, self.rewrite, self.verify)
        return next((step.exit_status for step in steps if step.exit_status), 0)

    def as_json(self) -> dict[str, Any]:
        steps = ("first", "second", "rewrite", "fetch", "verify")
        return {"folder": str(self.folder)} | {
            name: getattr(self, name).as_json() for name in steps
        }


def run_demo(
    folder: Path,
    images: int,
    *,
    watching: Callable[[], AbstractContextManager[Progress]] = lambda: nullcontext(Progress()),
    told: Callable[[str, Any], object] = lambda _name, _result: None,
) -> DemoReport:
    """Make a cache, mirror it twice, rewrite its dataset, read it as a training does, verify it.

    Args:
        folder: where the cache and the dataset are made. A folder of an earlier demo is replaced.
        images: how many photographs the cache gets, besides duplicates and bad files.
        watching: gives each step a receiver of its progress, which ends with the step.
        told: called after each step with its name in `DemoReport` and its result.

    Raises:
        UsageError: the folder holds something else or cannot be written, or the extra `demo` is
            not installed.
        MirrorError: a step could not begin.
    """
    folder = folder.absolute()
    _make_room(folder)

    def step(name: str, work: Callable[[Progress], _T]) -> _T:
        with watching() as progress:
            result = work(progress)
        told(name, result)
        return result

    made = step("made", lambda _: make_cache(folder, images))
    with _environment_of_the_demo(), s3_server(_BUCKET) as endpoint:
        bucket = {"url": f"s3://{_BUCKET}/inat", "endpoint": endpoint, "region": "us-east-1"}
        values = {
            "cache": {"dir": str(made.folder)},
            "bucket": bucket,
            "state": {"dir": str(folder / "state")},
        }
        settings = merge([Layer("demo", values)])
        return DemoReport(
            folder,
            made,
            first=step("first", lambda view: sync(settings, progress=view)),
            second=step("second", lambda view: sync(settings, progress=view)),
            rewrite=step("rewrite", lambda view: _rewrite(settings, made, folder, view)),
            fetch=step("fetch", lambda view: _read_as_training(settings, made, view)),
            verify=step(
                "verify",
                lambda view: verify(settings, VerifyOptions(share=1.0), progress=view),
            ),
        )


def _rewrite(
    settings: Settings, made: DemoCache, folder: Path, progress: Progress
) -> RewriteReport:
    """Rewrite the dataset to the mirror's URLs, in two splits."""
    options = parse_options(split="train=0.8,val=0.2", scheme="s3")
    output = folder / "plants.jsonl"
    return rewrite(settings, [str(made.dataset)], output, options, progress=progress)


def _read_as_training(settings: Settings, made: DemoCache, progress: Progress) -> TrainingRead:
    """Read all of the dataset's original URLs, as on a machine that has no cache."""
    lines = made.dataset.read_bytes().splitlines()
    urls = [msgspec.json.decode(line)["image_url"] for line in lines]
    no_cache = msgspec.structs.replace(settings.cache, dir=None)
    progress.begin(Stage("images", len(urls)))
    images = nbytes = 0
    errors: Counter[str] = Counter()
    with Fetcher(msgspec.structs.replace(settings, cache=no_cache)) as fetch:
        began_at = time.monotonic()
        for _, result in fetch.many(urls):
            if isinstance(result, bytes):
                images += 1
                nbytes += len(result)
                progress.advance(1, len(result))
            else:
                errors[type(result).__name__] += 1
                progress.advance(1, outcome="refused")
        seconds = time.monotonic() - began_at
    return TrainingRead(images, nbytes, dict(errors), seconds)


def _make_room(folder: Path) -> None:
    try:
        if folder.exists() and any(folder.iterdir()):
            if not (folder / _MARK).exists():
                raise UsageError(
                    f"{folder} is not empty and not of an earlier demo; choose another folder "
                    "with --dir."
                )
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).touch()
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made or written ({error.strerror}); choose another folder with --dir."
        ) from None


@contextmanager
def _environment_of_the_demo() -> Iterator[None]:
    """Hide the user's own profile, endpoint and proxy: the demo neither reads nor asks them.

    The embedded server takes any key.
    """
    ours = {
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",  # pragma: allowlist secret
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    before = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name in ours or name.startswith("AWS_")
    }
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(before)
