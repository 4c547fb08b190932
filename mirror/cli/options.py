"""Options that several commands have, written once: where the mirror is, and how values are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Decorator) -> Decorator:
    """One decorator for several options, which help shows in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


cache_option = click.option("--cache", metavar="DIR", help="The cache's folder [cache.dir].")
public_url_option = click.option(
    "--public-url", metavar="URL", help="What public URLs begin with [bucket.public_url]."
)
concurrency_option = click.option(
    "--concurrency", type=click.IntRange(1, 1024), help="Requests in flight [sync.concurrency]."
)
level_option = click.option(
    "--level",
    type=click.Choice(["decode", "header"]),
    default="decode",
    show_default=True,
    help="Decode every image to its end, or read no more than its header.",
)
known_bad_option = click.option(
    "--known-bad",
    metavar="FILE",
    help="Hashes of contents that are bad wherever they are met [inspect.known_bad].",
)
url_field_option = click.option(
    "--url-field",
    default="image_url",
    show_default=True,
    metavar="FIELD",
    help="Where a record holds its URL or a list of them; dotted for nested ones.",
)


# Of every command that reaches the mirror.
bucket_options = together(
    click.option(
        "--bucket", metavar="URL", help="s3://BUCKET[/PREFIX] or file:///FOLDER [bucket.url]."
    ),
    click.option(
        "--endpoint", metavar="URL", help="The S3 endpoint; none on AWS [bucket.endpoint]."
    ),
    click.option("--region", help="The bucket's region [bucket.region]."),
    click.option(
        "--engine",
        type=click.Choice(["auto", "obstore", "aioboto3"]),
        help="What moves the bytes [bucket.engine].",
    ),
    click.option("--state", metavar="DIR", help="Where the local state is kept [state.dir]."),
)


def bucket_flags(options: dict[str, Any]) -> dict[str, Any]:
    """What `bucket_options` were given, as settings."""
    return {
        "bucket.url": options["bucket"],
        "bucket.endpoint": options["endpoint"],
        "bucket.region": options["region"],
        "bucket.engine": options["engine"],
        "state.dir": options["state"],
    }


def parsed(parse: Callable[[str], Any]) -> Callable[..., Any]:
    """A callback for an option whose text is parsed; the ValueError of `parse` says what to write."""

    def callback(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback
