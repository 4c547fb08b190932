"""`mirror config show`, `mirror config check`."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from mirror.cli import output
from mirror.cli.session import Session, session_options, warn_of_plain_http
from mirror.errors import EXIT_DONE

if TYPE_CHECKING:
    from mirror.config.settings import Settings

# Origins are aligned behind values up to this long.
_ALIGNED = 44


@click.group("config")
@session_options
def command() -> None:
    """Show the configuration and the origin of each key, or check it.

    \b
    Examples:
      mirror config show --origin
      mirror config check
    """


@command.command("show")
@click.option("--origin", is_flag=True, help="Show which layer each key comes from.")
@session_options
@click.pass_obj
def show(session: Session, origin: bool) -> int:
    """Print every key and its value in the form of mirror.toml.

    A key without a value is printed as a comment. The configuration holds no secrets.

    \b
    Examples:
      mirror config show
      MIRROR_BUCKET__REGION=auto mirror config show --origin
    """
    from mirror.config.loading import known_keys, merge, read_layers, values_and_origins

    layers = read_layers(config=session.config)
    settings = merge(layers)
    origins = values_and_origins(layers)[1]
    values = {key: _value(settings, key) for key in known_keys()}
    if session.json:
        session.print_json(
            {k: {"value": v, "origin": origins.get(k, "default")} for k, v in values.items()}
        )
        return EXIT_DONE
    for at, (table, keys) in enumerate(groupby(values, lambda key: key.rsplit(".", 1)[0])):
        if at:
            output.echo()
        output.echo(f"[{table}]")
        lines = {key: _line(key, values[key]) for key in keys}
        wide = max((len(line) for line in lines.values() if len(line) <= _ALIGNED), default=0)
        for key, line in lines.items():
            output.echo(f"{line:<{wide}}  # {origins.get(key, 'default')}" if origin else line)
    return EXIT_DONE


@command.command("check")
@session_options
@click.pass_obj
def check(session: Session) -> int:
    """Read all layers and check every key and value. The exit status is 78 if one is wrong.

    It does not reach the bucket; mirror doctor does.

    \b
    Examples:
      mirror config check
      mirror --config /etc/mirror/mirror.toml config check
    """
    from mirror.backfill.url_policy import UrlPolicy, configured_licenses
    from mirror.config.loading import merge, read_layers
    from mirror.content.placeholder import load_known_bad

    layers = read_layers(config=session.config)
    settings = merge(layers)
    url = str(settings.bucket_url)
    settings.require_apart()
    warn_of_plain_http(settings)
    load_known_bad(settings.inspect.known_bad)
    UrlPolicy(settings.backfill.hosts)
    configured_licenses(settings.backfill.licenses)
    read = [layer.origin for layer in layers if layer.values]
    if not session.concluded(
        {"ok": True, "layers": read, "bucket": url, "cache": settings.cache.dir}
    ):
        output.echo(f"Configuration is valid. Loaded, highest precedence first: {', '.join(read)}.")
    return EXIT_DONE


def _line(key: str, value: Any) -> str:
    name = key.rsplit(".", 1)[1]
    return f"# {name} =" if value is None else f"{name} = {toml(value)}"


def _value(settings: Settings, key: str) -> Any:
    found: Any = settings
    for name in key.split("."):
        found = getattr(found, name)
    return list(found) if isinstance(found, tuple) else found


def toml(value: Any) -> str:
    """A value in TOML, whose strings, numbers and lists of them are written as in JSON."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(toml(item) for item in value)}]"
    return json.dumps(value)
