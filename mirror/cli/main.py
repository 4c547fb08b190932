"""The command line: finds the command, maps every error to its exit status. The only place that does.

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
from mirror.cli.log import Style, say, set_style, speaks_json
from mirror.cli.session import Session, session_options
from mirror.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE, MirrorError, OutputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# name → (module that holds `command`, its line in `mirror --help`). Modules load when called for,
# so that `mirror --version` does not pay for an image decoder.
COMMANDS: Final = {
    "init": (
        "mirror.cli.commands.init",
        "Write mirror.toml from a few answers, and look at all it relies on.",
    ),
    "sync": ("mirror.cli.commands.sync", "Bring the mirror up to date with the cache."),
    "rewrite": (
        "mirror.cli.commands.rewrite",
        "Rewrite datasets to the mirror's URLs; filter and split them.",
    ),
    "export": ("mirror.cli.commands.export", "Write a MongoDB collection to a dataset's file."),
    "backfill": (
        "mirror.cli.commands.backfill",
        "Download what the cache lacks, politely, over days.",
    ),
    "verify": ("mirror.cli.commands.verify", "Prove that the mirror has what its catalog says."),
    "repair": (
        "mirror.cli.commands.repair",
        "Write again what is missing or damaged in the mirror.",
    ),
    "rebuild-state": (
        "mirror.cli.commands.rebuild_state",
        "Make the local state anew, from the bucket and the cache.",
    ),
    "gc": ("mirror.cli.commands.gc", "Remove from the bucket what no row names any more."),
    "pull": ("mirror.cli.commands.pull", "Restore the cache, or a part of it, from the mirror."),
    "inspect": (
        "mirror.cli.commands.inspect",
        "Judge every file of the cache; no bucket is touched.",
    ),
    "quarantine": (
        "mirror.cli.commands.quarantine",
        "Move flagged files out of the cache, or back.",
    ),
    "fetch": (
        "mirror.cli.commands.fetch",
        "Read images from the mirror, checked, as training does.",
    ),
    "prefetch": (
        "mirror.cli.commands.prefetch",
        "Read a dataset's images into the fetch cache of this machine.",
    ),
    "status": (
        "mirror.cli.commands.status",
        "What is in the mirror, what is not yet, and what it costs.",
    ),
    "doctor": ("mirror.cli.commands.doctor", "Look at all that a run relies on."),
    "config": (
        "mirror.cli.commands.config",
        "Show the configuration and where it comes from; check it.",
    ),
    "completion": (
        "mirror.cli.commands.completion",
        "Print what makes a shell complete mirror's words.",
    ),
    "demo": (
        "mirror.cli.commands.demo",
        "See it work on an embedded S3 server and a small real cache.",
    ),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mirror")
@session_options
def mirror() -> None:
    """Mirror a URL-keyed image cache to your own S3 or R2 bucket, and train from it.

    \b
    Start here:
      mirror demo                                         see it work, no account needed
      mirror sync --cache DIR --bucket s3://BUCKET/PREFIX --dry-run
      mirror init                                         write mirror.toml, look at the bucket
    """


def main() -> None:
    """Entry point of the command `mirror`; ends the process."""
    # A service manager's stop is a Ctrl-C: the same clean end, the same exit status.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What is odd in an image its verdict says, to whom it concerns.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    _prepare_outputs()
    _leave(run(sys.argv[1:]))


class _StandardOutput(io.FileIO):
    """What goes wrong with it is told from what goes wrong with any other file."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise  # the reader of a pipe has gone: nobody's error
        except OSError as error:
            raise OutputError(
                f"Standard output cannot be written ({error.strerror}); "
                "make room where it leads, or send it elsewhere."
            ) from None


def _prepare_outputs() -> None:
    """Nothing that is said fails for where it is said, but where standard output itself fails."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who called: `mirror … >&-`
            nowhere = io.FileIO(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)
            setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(nowhere), "utf-8", "replace"))
    raw = _StandardOutput(sys.stdout.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw),
        sys.stdout.encoding,
        "backslashreplace",  # as standard error has it: a path that is no UTF-8 ends no command
        line_buffering=sys.stdout.isatty(),
    )


def _give_up_output() -> None:
    """What is still to be written to standard output, at the end at the latest, goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(status: int) -> NoReturn:
    """End the process; without taking the interpreter down where obstore has threads.

    One that lets go of its last result just then wants the interpreter's lock, is ended for it in
    the midst of Rust's code, and takes the process with it: done, but with SIGABRT.
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
        set_style(Style())  # a caller in the same process has its own


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
        if isinstance(error, click.exceptions.NoArgsIsHelpError):  # whose message is the whole help
            sentence = "Missing command."
        if speaks_json():
            say(sentence, "error", exit_status=status)
        else:
            error.show()
        # The command line was not understood, maybe before its --json was come to.
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
        # The reader of a pipe has gone (`mirror … | head`): no error of ours, nothing left to say.
        _give_up_output()
        return EXIT_ERROR
    except Exception as error:  # noqa: BLE001 - no traceback unless asked for
        if session.verbosity >= 2:
            traceback.print_exc()
        return _fail(
            session,
            f"An unexpected {type(error).__name__} ({error}); this is a fault of mirror: "
            "please report it with the output of the same command and -vv.",
            EXIT_ERROR,
        )
    return int(status or 0)


def _fail(session: Session, sentence: str, status: int) -> int:
    if session.verbosity >= 2 and sys.exc_info()[1] is not None:
        traceback.print_exc()
    say(sentence, "error", exit_status=status)
    _answer(session, sentence, status)
    return status


def _answer(session: Session, sentence: str, status: int) -> None:
    """The object of a command that ends without its own; what is wrong has been said already."""
    if session.json:
        try:
            session.print_json({"error": sentence, "exit_status": status})
        except (OutputError, BrokenPipeError):
            _give_up_output()
