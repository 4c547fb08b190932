"""Options that several commands have, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from mirror.cli.help_sections import section
from mirror.config.option_values import parse_delimiter, parse_hex_prefix

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

WHAT_TO_READ = "What to read"
WHERE_THE_MIRROR_IS = "Where the mirror is"
HOW_TO_JUDGE = "How to judge images"
HOW_FAST = "How fast"
OUTPUT = "Output"


def parsed(parse: Callable[[str], Any]) -> Callable[..., Any]:
    """A callback that parses the text of an option. A ValueError of `parse` becomes its message."""

    def callback(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


class _PathText(click.ParamType[str]):
    """Text that may be a path: shells complete it with the names of files."""

    name = "path"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


PATH_TEXT: Final = _PathText()

cache_option = click.option(
    "--cache", metavar="DIR", type=PATH_TEXT, help="The cache folder [cache.dir]."
)
public_url_option = section(
    WHERE_THE_MIRROR_IS,
    click.option(
        "--public-url",
        metavar="URL",
        help="The public URL of the prefix, where it has one [bucket.public_url].",
    ),
)
concurrency_option = section(
    HOW_FAST,
    click.option(
        "--concurrency",
        type=click.IntRange(1, 1024),
        metavar="N",
        help="Requests in flight [sync.concurrency].",
    ),
)
level_option = section(
    HOW_TO_JUDGE,
    click.option(
        "--level",
        type=click.Choice(["decode", "header"]),
        default="decode",
        show_default=True,
        help="Decode every image to its end, or read only its header.",
    ),
)
known_bad_option = section(
    HOW_TO_JUDGE,
    click.option(
        "--known-bad",
        metavar="FILE",
        type=PATH_TEXT,
        help="A list of hashes; an image with one of them is a placeholder [inspect.known_bad].",
    ),
)
url_field_option = click.option(
    "--url-field",
    default="image_url",
    show_default=True,
    metavar="FIELD",
    help="The field with a record's URL or list of URLs; dots lead into nested fields.",
)
delimiter_option = click.option(
    "--delimiter",
    metavar="CHAR",
    callback=parsed(parse_delimiter),
    help="The character between the cells of CSV, such as ; or tab. The header shows it by default.",
)
prefix_option = click.option(
    "--prefix",
    default="",
    callback=parsed(parse_hex_prefix),
    metavar="HEX",
    help="Only URLs whose MD5 begins with these hexadecimal digits.",
)


# For every command that reaches the mirror.
bucket_options = section(
    WHERE_THE_MIRROR_IS,
    click.option(
        "--bucket", metavar="URL", help="s3://BUCKET[/PREFIX] or file:///FOLDER [bucket.url]."
    ),
    click.option(
        "--endpoint", metavar="URL", help="The S3 endpoint; omit it on AWS [bucket.endpoint]."
    ),
    click.option("--region", metavar="NAME", help="The bucket's region [bucket.region]."),
    click.option(
        "--engine",
        type=click.Choice(["auto", "obstore", "aioboto3"]),
        metavar="NAME",
        help="The library that moves the bytes: auto, obstore or aioboto3 [bucket.engine].",
    ),
    click.option(
        "--state", metavar="DIR", type=PATH_TEXT, help="The folder of the local state [state.dir]."
    ),
)


def bucket_flags(options: dict[str, Any]) -> dict[str, Any]:
    """The values of `bucket_options`, as settings."""
    return {
        "bucket.url": options["bucket"],
        "bucket.endpoint": options["endpoint"],
        "bucket.region": options["region"],
        "bucket.engine": options["engine"],
        "state.dir": options["state"],
    }
