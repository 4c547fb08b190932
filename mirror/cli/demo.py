"""`mirror demo`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mirror.cli.session import Session, session_options
from mirror.errors import UsageError

if TYPE_CHECKING:
    from mirror.demo.cache import DemoCache
    from mirror.sync.report import SyncReport

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
    broken files), mirrors it to an S3 server in this process, and runs again. No account needed.

    \b
    Example:
      mirror demo --dir /tmp/mirror-demo
    """
    from mirror.cli.progress import observer_for
    from mirror.config import Layer, merge
    from mirror.demo.cache import make_cache
    from mirror.demo.server import s3_server
    from mirror.sync.run import SyncOptions, sync

    folder = folder.absolute()
    _make_room(folder)
    made = make_cache(folder, images)
    with s3_server(_BUCKET) as endpoint, _demo_credentials():
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
        watch = observer_for(min(session.verbosity, 0) - 1)
        first = sync(settings, SyncOptions(), observer=watch)
        second = sync(settings, SyncOptions(), observer=watch)
    if session.json:
        session.print_json(
            {"folder": str(folder), "first": first.as_json(), "second": second.as_json()}
        )
    elif session.verbosity >= 0:
        _show(folder, made, first, second)
    return first.exit_status or second.exit_status


def _make_room(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).exists():
            raise UsageError(
                f"{folder} is not empty and no demo of ours; choose another folder with --dir."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()


@contextmanager
def _demo_credentials() -> Iterator[None]:
    """The embedded server takes any key; the user's own must not be looked up for it."""
    ours = {
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
    }  # pragma: allowlist secret
    names = (*ours, "AWS_SESSION_TOKEN", "AWS_PROFILE")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def _show(folder: Path, made: DemoCache, first: SyncReport, second: SyncReport) -> None:
    from mirror.cli import output

    def title(text: str) -> None:
        click.echo()
        click.secho(text, bold=True)

    title(f"The cache: {made.files} files named md5(url).jpg, as a training run leaves them")
    output.table(
        [
            ("photographs", str(made.photographs), "crops at iNaturalist's sizes"),
            (
                "duplicates",
                str(made.duplicates),
                "the same photo under another spelling of its URL",
            ),
            ("black frames", str(made.blanks), "what the old loader put in place of a 429"),
            ("broken", str(made.broken), "cut short, or with a hole"),
            ("not images", str(made.not_images), "an error page, a JSON answer, an empty file"),
            ("replaced", str(made.replaced), "different photos, one picture: not available"),
        ]
    )
    title("First sync: every content once, nothing bad")
    output.table(
        [
            ("uploaded", str(first.uploaded), f"objects, {output.size(first.bytes_uploaded)}"),
            ("deduplicated", str(first.deduplicated), "files: their content was there already"),
            *((f"  {name}", str(n), _REMARKS[name]) for name, n in first.flagged.items() if n),
            ("requests", str(sum(first.requests.values())), _requests(first)),
            ("took", output.duration(first.seconds)),
        ]
    )
    title("Second sync: nothing changed, so nothing is opened or sent")
    output.table(
        [
            ("unchanged", str(second.unchanged), "files"),
            ("requests", str(sum(second.requests.values())), _requests(second)),
            ("took", output.duration(second.seconds)),
        ]
    )
    title("Next")
    where = Path(os.path.relpath(folder))
    if where.parts[0] == "..":
        where = folder
    click.echo(
        "  A mirror in a folder, no server needed; twice, to see the second run do nothing:\n"
        f"    mirror sync --cache {where}/cache --bucket file://{folder}/mirror\n"
        "  Your own cache and bucket: what it would do, and what that costs:\n"
        "    mirror sync --cache DIR --bucket s3://BUCKET/PREFIX --dry-run"
    )


_REMARKS = {
    "blank": "kept out",
    "corrupt": "kept out",
    "not_image": "kept out",
    "placeholder": "found out by their number, and no longer offered",
}


def _requests(report: SyncReport) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in report.requests.items() if n)
