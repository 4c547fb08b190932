"""Options that several commands have, written once: where the cache and the bucket are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

cache_option = click.option("--cache", metavar="DIR", help="The cache's folder [cache.dir].")
public_url_option = click.option(
    "--public-url", metavar="URL", help="What public URLs begin with [bucket.public_url]."
)


def bucket_options(command: F) -> F:
    """`--bucket --endpoint --region --engine --state`: of every command that reaches the mirror."""
    for option in reversed(
        [
            click.option(
                "--bucket",
                metavar="URL",
                help="s3://BUCKET[/PREFIX] or file:///FOLDER [bucket.url].",
            ),
            click.option(
                "--endpoint",
                metavar="URL",
                help="The S3 endpoint; none on AWS [bucket.endpoint].",
            ),
            click.option("--region", help="The bucket's region [bucket.region]."),
            click.option(
                "--engine",
                type=click.Choice(["auto", "obstore", "aioboto3"]),
                help="What moves the bytes [bucket.engine].",
            ),
            click.option(
                "--state", metavar="DIR", help="Where the local state is kept [state.dir]."
            ),
        ]
    ):
        command = option(command)
    return command


def bucket_flags(options: dict[str, Any]) -> dict[str, Any]:
    """What `bucket_options` were given, as settings."""
    return {
        "bucket.url": options["bucket"],
        "bucket.endpoint": options["endpoint"],
        "bucket.region": options["region"],
        "bucket.engine": options["engine"],
        "state.dir": options["state"],
    }
