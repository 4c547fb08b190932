"""`mirror completion`."""

from __future__ import annotations

import click

from mirror.cli.help_sections import SectionedCommand
from mirror.cli.session import session_options
from mirror.errors import EXIT_DONE


@click.command("completion", cls=SectionedCommand)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@session_options
@click.pass_context
def command(ctx: click.Context, shell: str) -> int:
    """Print a script that makes the shell complete mirror's commands and options.

    \b
    Examples:
      eval "$(mirror completion bash)"                          # in ~/.bashrc
      eval "$(mirror completion zsh)"                           # in ~/.zshrc
      mirror completion fish > ~/.config/fish/completions/mirror.fish
    """
    from click.shell_completion import get_completion_class

    completion = get_completion_class(shell)
    assert completion is not None  # the three that click has
    click.echo(completion(ctx.find_root().command, {}, "mirror", "_MIRROR_COMPLETE").source())
    return EXIT_DONE
