"""`mirror init`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.commands.config import toml
from mirror.cli.commands.doctor import examine_and_show
from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.log import say
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
from mirror.errors import EXIT_DONE, ConfigError, UsageError

if TYPE_CHECKING:
    from mirror.config.loading import Layer

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
    from mirror.config.loading import aws_layer, path_of
    from mirror.system.files import replacing

    output: Path = options["output"]
    if output.exists() and not options["force"]:
        raise UsageError(
            f"{output} is there already; name another with -o, or replace it: --force."
        )
    flags = {**bucket_flags(options), "bucket.public_url": options["public_url"]}
    flags["cache.dir"] = options["cache"]
    missing = [option for key, option in _REQUIRED.items() if not flags[key]]
    asks = bool(missing) and sys.stdin.isatty() and not session.json
    if missing and not asks:
        raise UsageError(f"Give {' and '.join(missing)}; on a terminal, mirror init asks for it.")
    surroundings = aws_layer(os.environ)
    _checked(flags, surroundings)  # before a question: no answer mends a wrong flag
    with replacing(output) as file:  # opened before a question: it may be impossible to write
        if asks:
            _ask(flags, surroundings)
        else:
            _warn_of_missing(flags["cache.dir"])
        for key in ("cache.dir", "state.dir"):
            if flags[key]:
                flags[key] = str(path_of(flags[key], key).absolute())
        values = _checked(flags, surroundings)
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


def _checked(flags: Mapping[str, Any], *others: Layer) -> dict[str, Any]:
    """Return the values that are given.

    Args:
        flags: values by key; None or an empty text where a value is absent.
        others: layers of lower precedence.

    Raises:
        ConfigError: a value is wrong, or contradicts another one.
    """
    from mirror.config.loading import Layer, merge

    values = {key: value for key, value in flags.items() if value}
    merge([Layer("mirror init", values), *others]).require_apart()
    return values


def _ask(flags: dict[str, Any], surroundings: Layer) -> None:
    """Ask for the flags that were not given. A wrong answer is asked for again.

    Args:
        flags: values by key; receives the answers.
        surroundings: what the environment says, of lower precedence.
    """

    def ask(key: str, question: str, default: str | None = None) -> None:
        # An endpoint of the environment may be wrong for any bucket; a later question mends it.
        others = () if key == "bucket.url" else (surroundings,)

        def checked(answer: str) -> str:
            answer = answer.strip()
            try:
                _checked({**flags, key: answer}, *others)
            except ConfigError as error:
                raise click.UsageError(str(error)) from None  # click shows it, and asks again
            return answer

        if not flags[key]:
            flags[key] = click.prompt(
                question, default=default, show_default=bool(default), err=True, value_proc=checked
            )

    ask("cache.dir", "The cache folder")
    _warn_of_missing(flags["cache.dir"])
    ask("bucket.url", "The mirror's bucket: s3://BUCKET/PREFIX, or file:///FOLDER")
    if flags["bucket.url"].startswith("s3:"):
        ask("bucket.endpoint", "The S3 endpoint (empty on AWS)", "")
        region = "auto" if flags["bucket.endpoint"] else "us-east-1"
        ask("bucket.region", "The bucket's region", region)
        ask("bucket.public_url", "The public URL of the prefix (empty if there is none)", "")


def _warn_of_missing(cache: str) -> None:
    """Warn of a cache folder that does not exist; a run may make it later, or it may be a slip."""
    from mirror.config.loading import path_of

    folder = path_of(cache, "cache.dir").absolute()
    if not folder.is_dir():
        say(f"There is no folder {folder}; create it, or correct cache.dir in the file.", "warning")


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
