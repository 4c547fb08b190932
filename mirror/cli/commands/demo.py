"""`mirror demo`."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.session import Session, session_options
from mirror.errors import UsageError

if TYPE_CHECKING:
    from mirror.config.settings import Settings
    from mirror.dataset.rewrite.rewrite_report import RewriteReport
    from mirror.demo.demo_cache import DemoCache
    from mirror.sync.sync_report import SyncReport
    from mirror.upkeep.verify import VerifyReport

_BUCKET = "demo"
_MARK = ".mirror-demo"


@click.command("demo")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("mirror-demo"),
    show_default=True,
    help="Where the demo's cache is made; an earlier demo's is replaced.",
)
@click.option(
    "--images",
    type=click.IntRange(20, 100_000),
    default=300,
    show_default=True,
    help="Photographs.",
)
@session_options
@click.pass_obj
def command(session: Session, folder: Path, images: int) -> int:
    """See it work on an embedded S3 server and a small cache of real photographs.

    Makes a cache as a training run leaves it (duplicates under other URLs, black frames, cut and
    broken files), mirrors it to an S3 server in this process, runs again, points the dataset at the
    mirror, reads it as a training would, and reads the whole mirror back. No account needed.

    \b
    Example:
      mirror demo --dir /tmp/mirror-demo
    """
    from mirror.cli.views.demo_view import show
    from mirror.config.loading import Layer, merge
    from mirror.demo.demo_cache import make_cache
    from mirror.demo.s3_server import s3_server
    from mirror.sync.run_sync import sync
    from mirror.upkeep.verify import VerifyOptions, verify

    folder = folder.absolute()
    _make_room(folder)
    made = make_cache(folder, images)
    with _our_environment(), s3_server(_BUCKET) as endpoint:
        settings = merge(
            [
                Layer(
                    "demo",
                    {
                        "cache": {"dir": str(made.folder)},
                        "bucket": {
                            "url": f"s3://{_BUCKET}/inat",
                            "endpoint": endpoint,
                            "region": "us-east-1",
                        },
                        "state": {"dir": str(folder / "state")},
                    },
                )
            ]
        )
        report = DemoReport(
            folder,
            made,
            first=sync(settings),
            second=sync(settings),
            rewrite=_rewritten(settings, made, folder),
            fetch=_fetched(settings, made),
            verify=verify(settings, VerifyOptions(share=1.0)),
        )
    if not session.concluded(report.as_json()):
        show(report)
    return report.exit_status


@dataclass(frozen=True)
class Fetched:
    """What training gets of a dataset's URLs: images, or errors of these names."""

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
    fetch: Fetched
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


def _rewritten(settings: Settings, made: DemoCache, folder: Path) -> RewriteReport:
    """The dataset with the mirror's URLs, in two splits."""
    from mirror.dataset.rewrite.rewrite_options import parse_options
    from mirror.dataset.rewrite.run_rewrite import rewrite

    options = parse_options(split="train=0.8,val=0.2", scheme="s3")
    return rewrite(settings, [str(made.dataset)], folder / "plants.jsonl", options)


def _fetched(settings: Settings, made: DemoCache) -> Fetched:
    """All of the dataset's original URLs, read as on a machine that has no cache."""
    import msgspec

    from mirror import Fetcher

    lines = made.dataset.read_bytes().splitlines()
    urls = [msgspec.json.decode(line)["image_url"] for line in lines]
    elsewhere = msgspec.structs.replace(settings.cache, dir=None)
    with Fetcher(msgspec.structs.replace(settings, cache=elsewhere)) as fetch:
        began = time.monotonic()
        results = [result for _, result in fetch.many(urls)]
        seconds = time.monotonic() - began
    images = [result for result in results if isinstance(result, bytes)]
    errors = Counter(type(result).__name__ for result in results if not isinstance(result, bytes))
    return Fetched(len(images), sum(map(len, images)), dict(errors), seconds)


def _make_room(folder: Path) -> None:
    try:
        if folder.exists() and any(folder.iterdir()):
            if not (folder / _MARK).exists():
                raise UsageError(
                    f"{folder} is not empty and no demo of ours; choose another folder with --dir."
                )
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).touch()
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made or written ({error.strerror}); choose another folder with --dir."
        ) from None


@contextmanager
def _our_environment() -> Iterator[None]:
    """Only what the embedded server needs, which takes any key.

    The user's own profile, endpoint and proxy must be neither looked up nor asked.
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
