"""The command line: finds the command and maps every error to its exit status.

0 done    1 error    2 usage    3 done except for some items, which are listed
75 busy: another run holds the lock    78 bad configuration    130 interrupted
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import traceback
import warnings
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING, Final, NoReturn

import click

from mirror._version import __version__
from mirror.cli import output
from mirror.cli.log import Style, say, set_style, speaks_json
from mirror.cli.session import Session, session_options
from mirror.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE, MirrorError, OutputError
from mirror.system.display_text import printable
from mirror.system.foreign_variables import foreign_variables

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# The summary of each command in `mirror --help`. A command's module loads only when the command is
# called: `mirror --version` must not pay for an image decoder.
COMMANDS: Final = {
    "init": "Write mirror.toml from a few answers, then check your setup.",
    "sync": "Bring the mirror up to date with the cache.",
    "rewrite": "Rewrite datasets to the mirror's URLs; filter and split them.",
    "export": "Write a MongoDB collection to a dataset file.",
    "backfill": "Download missing images, politely, over days.",
    "verify": "Check that the mirror holds what its catalog says.",
    "repair": "Restore missing and damaged objects of the mirror.",
    "rebuild-state": "Rebuild the local state from the bucket and the cache.",
    "gc": "Delete unreferenced objects.",
    "pull": "Restore the cache, or a part of it, from the mirror.",
    "inspect": "Judge every file of the cache; needs no bucket.",
    "duplicates": "Find copies of one photograph, in the cache or the mirror.",
    "quarantine": "Move flagged files out of the cache, or back.",
    "fetch": "Fetch images from the mirror as training does, verified.",
    "prefetch": "Fill this machine's fetch cache with a dataset's images.",
    "schedule": "Run sync by itself: a line of cron or a systemd timer.",
    "status": "Show what the mirror holds, what is not synced, and the cost.",
    "doctor": "Check your setup: credentials, bucket, cache, network, clock.",
    "config": "Show the configuration and its origins; check it.",
    "completion": "Print a script for shell completion.",
    "help": "Show the help of a command.",
    "demo": "Try mirror on an embedded S3 server and a small real cache.",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = f"mirror.cli.commands.{cmd_name.replace('-', '_')}"
        command: click.Command = importlib.import_module(module).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in COMMANDS or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        import difflib

        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else "mirror --help lists them."
        raise click.UsageError(f"There is no command {name!r}; {hint}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mirror")
@session_options
def mirror() -> None:
    """Mirror a URL-keyed image cache to your own S3 or R2 bucket, and train from it.

    \b
    Start here:
      mirror demo       try it; no account needed
      mirror init       write mirror.toml and check your setup
      mirror sync --cache DIR --bucket s3://BUCKET/PREFIX --dry-run
    """


def main() -> None:
    """Run the command `mirror` and end the process."""
    # A service manager's stop acts like Ctrl-C: the same clean end and exit status.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Before any library has threads. The token that AWS documents belongs to the user's keys.
    for name in foreign_variables(os.environ):
        if name != "AWS_SESSION_TOKEN" or not os.environ[name]:
            del os.environ[name]
    # Verdicts report what is odd in an image; Pillow's warnings would repeat it.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    _prepare_outputs()
    _leave(run(sys.argv[1:]))


class _StandardOutput(io.FileIO):
    """Standard output whose errors can be told from those of any other file."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise  # the reader of a pipe has gone, which is no error
        except OSError as error:
            raise OutputError(
                f"Standard output cannot be written ({error.strerror}); "
                "free space at its destination, or redirect it."
            ) from None


def _prepare_outputs() -> None:
    """Make writing to standard output and standard error safe.

    Closed streams and characters that cannot be encoded must not end a command. A failing standard
    output raises `OutputError`.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the caller closed it: `mirror … >&-`
            nowhere = io.FileIO(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)
            setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(nowhere), "utf-8", "replace"))
    raw = _StandardOutput(sys.stdout.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw),
        sys.stdout.encoding,
        "backslashreplace",  # like standard error: a path that is not UTF-8 must not end a command
        line_buffering=sys.stdout.isatty(),
    )


def _give_up_output() -> None:
    """Discard what is still buffered for standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(status: int) -> NoReturn:
    """End the process. If obstore is loaded, skip the shutdown of the interpreter.

    A thread of obstore that releases its last result during shutdown asks for the interpreter's
    lock. Python then ends the thread inside Rust code, and the process dies of SIGABRT although its
    work is done.
    """
    if "obstore" in sys.modules:
        with suppress(OSError, ValueError, OutputError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run a command line; returns the exit status.

    Args:
        arguments: without the program's name.
    """
    session = Session()
    try:
        return _run(arguments, session)
    finally:
        set_style(Style())  # for a caller in the same process


def _run(arguments: list[str], session: Session) -> int:
    try:
        status = mirror.main(
            arguments,
            prog_name="mirror",
            standalone_mode=False,
            obj=session,
            color=False if os.environ.get("NO_COLOR") else None,
        )
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        status = EXIT_USAGE if isinstance(error, click.UsageError) else EXIT_ERROR
        sentence = error.format_message()
        if isinstance(error, click.exceptions.NoArgsIsHelpError):  # its message is the whole help
            sentence = "Missing command."
        if speaks_json():
            say(sentence, "error", exit_status=status)
        else:
            _show(error)
        # The error may have come before click reached --json.
        session.json = "--json" in takewhile(lambda word: word != "--", arguments)
        _answer(session, sentence, status)
        return status
    except OutputError as error:
        _give_up_output()
        return _fail(session, str(error), error.exit_status)
    except MirrorError as error:
        return _fail(session, str(error), error.exit_status)
    except (KeyboardInterrupt, click.Abort):
        return _fail(
            session, "Interrupted; nothing that was acknowledged is lost.", EXIT_INTERRUPTED
        )
    except BrokenPipeError:
        # The reader of a pipe has gone (`mirror … | head`): there is nobody left to tell.
        _give_up_output()
        return EXIT_ERROR
    except Exception as error:  # noqa: BLE001 - no traceback unless asked for
        return _fail(
            session,
            f"An unexpected {type(error).__name__} ({error}); this is a fault of mirror: "
            "please report it with the output of the same command and -vv.",
            EXIT_ERROR,
        )
    return int(status or 0)


def _show(error: click.ClickException) -> None:
    """Print an error of usage: how to call the command, and what is wrong."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # its message is the whole help
        output.echo_lines(error.format_message(), err=True)
        return
    usage = io.StringIO()  # ends with "Error: "
    click.UsageError("", getattr(error, "ctx", None)).show(usage)
    # A message may repeat an argument. The other newlines are those of click.
    said = error.format_message().replace(error.message, printable(error.message))
    output.echo_lines((usage.getvalue().rstrip("\n") + said).expandtabs(), err=True)


def _show_traceback(error: BaseException) -> None:
    """Print a traceback on standard error; the message of each exception stays on one line."""
    for part in traceback.format_exception(error):
        if part[:1].isspace():  # a frame, or a heading, with newlines of Python's own
            output.echo_lines(part.rstrip("\n"), err=True)
        else:  # the message of an exception, which may have text of strangers
            output.echo(part.rstrip("\n"), err=True)


def _fail(session: Session, sentence: str, status: int) -> int:
    error = sys.exc_info()[1]
    if session.verbosity >= 2 and error is not None:
        _show_traceback(error)
    say(sentence, "error", exit_status=status)
    _answer(session, sentence, status)
    return status


def _answer(session: Session, sentence: str, status: int) -> None:
    """Print the JSON object of a command that ends without its own."""
    if session.json:
        try:
            session.print_json({"error": sentence, "exit_status": status})
        except (OutputError, BrokenPipeError):
            _give_up_output()
