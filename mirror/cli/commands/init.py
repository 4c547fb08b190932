"""`mirror init`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from mirror.cli.commands.config import toml
from mirror.cli.commands.doctor import examine_and_show
from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import (
    OUTPUT,
    WHAT_TO_READ,
    bucket_flags,
    bucket_options,
    cache_option,
    public_url_option,
)
from mirror.cli.output import echo
from mirror.cli.session import Session, session_options
from mirror.errors import EXIT_DONE, UsageError

_HEAD = """\
# Written by mirror init. docs/configuration.md explains all keys. Secrets do not belong here: they
# come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role.
"""


@click.command("init", cls=SectionedCommand)
@section(WHAT_TO_READ, cache_option)
@bucket_options
@public_url_option
@section(
    OUTPUT,
    click.option(
        "-o",
        "--output",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        default=Path("mirror.toml"),
        show_default=True,
        help="The file to write.",
    ),
    click.option("--force", is_flag=True, help="Replace the file if it exists."),
    click.option("--no-doctor", is_flag=True, help="Only write the file; check nothing."),
)
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Write mirror.toml from flags and a few questions, then run mirror doctor.

    If the flags name the cache and the bucket, it asks nothing. Otherwise it asks on the terminal
    for each value that they leave out. The exit status is that of mirror doctor.

    \b
    Examples:
      mirror init
      mirror init --cache /data/image_cache --bucket s3://plants/inat \\
          --endpoint https://ACCOUNT.r2.cloudflarestorage.com --region auto
    """
    from mirror.config.loading import Layer, aws_layer, merge, path_of
    from mirror.system.files import replacing

    output: Path = options["output"]
    if output.exists() and not options["force"]:
        raise UsageError(
            f"{output} is there already; name another with -o, or replace it: --force."
        )
    flags = {**bucket_flags(options), "bucket.public_url": options["public_url"]}
    flags["cache.dir"] = options["cache"]
    missing = [option for key, option in _REQUIRED.items() if not flags[key]]
    if missing and sys.stdin.isatty() and not session.json:
        _ask(flags)
        missing = [option for key, option in _REQUIRED.items() if not flags[key]]
    if missing:
        raise UsageError(f"Give {' and '.join(missing)}; on a terminal, mirror init asks for it.")
    for key in ("cache.dir", "state.dir"):
        if flags[key]:
            flags[key] = str(path_of(flags[key], key).absolute())
    values = {key: value for key, value in flags.items() if value}
    settings = merge([Layer("mirror init", values), aws_layer(os.environ)])
    _ = settings.bucket_url
    settings.require_apart()
    with replacing(output) as file:
        file.write(_text(values))
    if not session.json and session.verbosity >= 0:
        echo(f"Written: {output}")
    if options["no_doctor"]:
        if session.json:
            session.print_json({"written": str(output)})
        return EXIT_DONE
    # As the next run will load them: the environment and other files may add to this file.
    settings = session.settings(values, warn=False)
    return examine_and_show(session, settings, read_only=False, written=str(output))


_REQUIRED = {"cache.dir": "--cache DIR", "bucket.url": "--bucket URL"}


def _ask(flags: dict[str, Any]) -> None:
    """Ask for the flags that were not given; an empty answer leaves a key out."""

    def ask(key: str, question: str, default: str = "") -> None:
        if not flags[key]:
            shown = bool(default)
            answer = click.prompt(question, default=default, show_default=shown, err=True)
            flags[key] = answer.strip()

    if not flags["cache.dir"]:
        flags["cache.dir"] = click.prompt("The cache folder", err=True).strip()
    if not flags["bucket.url"]:
        question = "The mirror's bucket: s3://BUCKET/PREFIX, or file:///FOLDER"
        flags["bucket.url"] = click.prompt(question, err=True).strip()
    if flags["bucket.url"].startswith("s3:"):
        ask("bucket.endpoint", "The S3 endpoint (empty on AWS)")
        ask(
            "bucket.region",
            "The bucket's region",
            "auto" if flags["bucket.endpoint"] else "us-east-1",
        )
        ask("bucket.public_url", "The public URL of the prefix (empty if there is none)")


def _text(values: dict[str, Any]) -> str:
    """The text of the file, its sections in the order of docs/configuration.md."""
    lines = [_HEAD.rstrip()]
    for table in ("cache", "bucket", "state"):
        keys = {k.removeprefix(f"{table}."): v for k, v in values.items() if k.startswith(table)}
        if keys:
            lines += [
                "",
                f"[{table}]",
                *(f"{name} = {toml(value)}" for name, value in keys.items()),
            ]
    return "\n".join(lines) + "\n"
