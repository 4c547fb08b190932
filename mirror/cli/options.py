"""Options that many commands take, written once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def bucket_options(command: F) -> F:
    """`--bucket --endpoint --region --public-url --state`: where the mirror is."""
    for option in reversed(
        [
            click.option(
                "--bucket",
                metavar="URL",
                help="s3://BUCKET[/PREFIX] or file:///FOLDER [bucket.url].",
            ),
            click.option(
                "--endpoint", metavar="URL", help="The S3 endpoint; none on AWS [bucket.endpoint]."
            ),
            click.option("--region", help="The bucket's region [bucket.region]."),
            click.option(
                "--public-url",
                metavar="URL",
                help="What public URLs begin with [bucket.public_url].",
            ),
            click.option(
                "--state", metavar="DIR", help="Where the local state is kept [state.dir]."
            ),
        ]
    ):
        command = option(command)
    return command


def bucket_flags(options: Mapping[str, Any]) -> dict[str, Any]:
    """What `bucket_options` were given, as `Session.settings` takes them."""
    return {
        "bucket.url": options["bucket"],
        "bucket.endpoint": options["endpoint"],
        "bucket.region": options["region"],
        "bucket.public_url": options["public_url"],
        "state.dir": options["state"],
    }


def cache_option(command: F) -> F:
    """`--cache`: the cache's folder."""
    return click.option("--cache", metavar="DIR", help="The cache's folder [cache.dir].")(command)
