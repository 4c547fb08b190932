"""`mirror demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import OUTPUT
from mirror.cli.session import Session, session_options


@click.command("demo", cls=SectionedCommand)
@section(
    OUTPUT,
    click.option(
        "--dir",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        default=Path("mirror-demo"),
        show_default=True,
        help="The folder of the demo; an earlier demo in it is replaced.",
    ),
    click.option(
        "--images",
        type=click.IntRange(20, 100_000),
        metavar="N",
        default=300,
        show_default=True,
        help="How many photographs to make.",
    ),
)
@session_options
@click.pass_obj
def command(session: Session, folder: Path, images: int) -> int:
    """Try mirror on an embedded S3 server and a small cache of real photographs.

    Makes a cache as a training run leaves it, with duplicates under other URLs, black frames, and
    truncated and broken files. Mirrors it to an S3 server in this process, twice. Then points the
    dataset at the mirror, reads it as training does, and verifies the whole mirror. It needs no
    account.

    \b
    Example:
      mirror demo --dir /tmp/mirror-demo
    """
    from mirror.cli.views.demo_view import show_next, show_step
    from mirror.demo.run_demo import run_demo

    def told(name: str, result: Any) -> None:
        if not session.json and session.verbosity >= 0:
            show_step(name, result)

    report = run_demo(folder, images, watching=session.progress, told=told)
    if not session.concluded(report.as_json()):
        show_next(report.folder)
    return report.exit_status
