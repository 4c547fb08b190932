"""The tables of `mirror demo`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from mirror.cli import output
from mirror.dataset.rewrite.rewrite_report import RewriteReport
from mirror.demo.demo_cache import DemoCache
from mirror.demo.run_demo import TrainingRead
from mirror.layout import BucketUrl
from mirror.sync.sync_report import SyncReport
from mirror.system.display_text import format_size
from mirror.upkeep.verify import VerifyReport


def show_step(name: str, result: Any) -> None:
    """Print a step on standard output as soon as it is done.

    Args:
        name: of the step, as in `DemoReport`.
        result: of the step.
    """
    _STEPS[name](result)


def _show_made(made: DemoCache) -> None:
    _title(f"The cache: {made.files} files named md5(url).jpg, as a training run leaves them")
    output.table(
        [
            ("photographs", str(made.photographs), "crops at iNaturalist's sizes"),
            (
                "duplicates",
                str(made.duplicates),
                "the same photo under another spelling of its URL",
            ),
            ("copies", str(made.copies), "the same photograph at another size, or uploaded again"),
            ("black frames", str(made.blanks), "what the old loader stored after a 429"),
            ("broken", str(made.broken), "truncated, or with a hole"),
            ("not images", str(made.not_images), "an error page, a JSON answer, an empty file"),
            ("replaced", str(made.replaced), "different photos, all the same placeholder"),
        ]
    )


def _show_first(first: SyncReport) -> None:
    _title("First sync: uploads each content once and keeps bad files out")
    output.table(
        [
            ("uploaded", str(first.uploaded), f"objects, {format_size(first.bytes_uploaded)}"),
            (
                "deduplicated",
                str(first.deduplicated),
                "files: their content is in the mirror already",
            ),
            *((f"  {name}", str(n), _REMARKS[name]) for name, n in first.flagged.items() if n),
            ("requests", str(sum(first.requests.values())), _counts(first.requests)),
            ("took", output.duration(first.seconds)),
        ]
    )


def _show_second(second: SyncReport) -> None:
    _title("Second sync: nothing changed, so it opens no file and uploads nothing")
    output.table(
        [
            ("unchanged", str(second.unchanged), "files"),
            ("requests", str(sum(second.requests.values())), _counts(second.requests)),
            ("took", output.duration(second.seconds)),
        ]
    )


def _show_rewrite(rewritten: RewriteReport) -> None:
    _title("The dataset: records with a mirrored image, rewritten to the mirror's URLs")
    output.table(
        [
            ("written", str(rewritten.written), f"of {rewritten.records} records"),
            *((f"  {name}", str(n)) for name, n in rewritten.splits.items()),
            ("groups of copies", str(rewritten.near_duplicate_groups), _kept_together(rewritten)),
            ("dropped", str(sum(rewritten.dropped.values())), _counts(rewritten.dropped)),
        ]
    )


def _show_fetch(fetched: TrainingRead) -> None:
    _title("Training: reads every URL of the dataset from the mirror, and from nowhere else")
    output.table(
        [
            (
                "fetched",
                str(fetched.images),
                f"images, {format_size(fetched.nbytes)}, all verified",
            ),
            (
                "refused",
                str(sum(fetched.errors.values())),
                f"each with an error ({_counts(fetched.errors)}), never with a substitute image",
            ),
            ("took", output.duration(fetched.seconds)),
        ]
    )


def _show_verify(verified: VerifyReport) -> None:
    _title("Verification: reads back every object of the bucket")
    output.table(
        [
            ("checked", str(verified.checked), _others(verified.flagged)),
            ("missing", str(verified.missing)),
            ("mismatched", str(verified.mismatched)),
        ]
    )


def show_next(folder: Path) -> None:
    """Print what to try after the demo.

    Args:
        folder: of the demo.
    """
    _title("Next")
    where = Path(os.path.relpath(folder))
    if where.parts[0] == "..":
        where = folder
    cache = shlex.quote(f"{where}/cache")
    bucket = shlex.quote(str(BucketUrl("file", "", f"{folder}/mirror")))
    output.echo(
        "  Mirror to a folder, without a server. Run it twice: the second run does nothing."
    )
    output.echo(f"    mirror sync --cache {cache} --bucket {bucket}")
    output.echo("  See what a sync of your own cache would do, and what it would cost:")
    output.echo("    mirror sync --cache DIR --bucket s3://BUCKET/PREFIX --dry-run")


_STEPS: Final[dict[str, Callable[[Any], None]]] = {
    "made": _show_made,
    "first": _show_first,
    "second": _show_second,
    "rewrite": _show_rewrite,
    "fetch": _show_fetch,
    "verify": _show_verify,
}

_REMARKS = {
    "blank": "kept out",
    "corrupt": "kept out",
    "not_image": "kept out",
    "placeholder": "many URLs share them; no longer offered",
}


def _title(text: str) -> None:
    output.echo()
    click.secho(text, bold=True)


def _kept_together(report: RewriteReport) -> str:
    torn = "would have been in both splits"
    return f"each in one split; {output.count(report.groups_crossing)} of them {torn}"


def _others(flagged: int) -> str:
    return f"objects; gc will delete {flagged} more, a placeholder" if flagged else "objects"


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in numbers.items() if n)
