"""`mirror help`."""

from __future__ import annotations

import click

from mirror.cli import output
from mirror.cli.help_sections import SectionedCommand
from mirror.cli.session import session_options
from mirror.errors import EXIT_DONE


@click.command("help", cls=SectionedCommand)
@click.argument("name", metavar="[COMMAND]", default="")
@session_options
@click.pass_context
def command(ctx: click.Context, name: str) -> int:
    """Show the help of a command, as `mirror COMMAND --help` does.

    \b
    Example:
      mirror help sync
    """
    root = ctx.find_root()
    group = root.command
    assert isinstance(group, click.Group)
    if not name:
        output.echo_lines(group.get_help(root))
        return EXIT_DONE
    found_name, found, _ = group.resolve_command(root, [name])
    assert found is not None  # an unknown name is a usage error
    with click.Context(found, info_name=found_name, parent=root) as context:
        output.echo_lines(found.get_help(context))
    return EXIT_DONE
