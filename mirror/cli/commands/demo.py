"""`mirror demo`."""

from __future__ import annotations

from pathlib import Path

import click

from mirror.cli.session import Session, session_options


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
    from mirror.demo.run_demo import run_demo

    with session.progress() as progress:
        report = run_demo(folder, images, progress=progress)
    if not session.concluded(report.as_json()):
        show(report)
    return report.exit_status
