"""Print docs/cli.md, made from the commands themselves.

    python -m mirror.cli.reference > docs/cli.md       or: make docs

A test compares the file with this output.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Final

import click

from mirror.cli.help_sections import section_of
from mirror.cli.main import COMMANDS, mirror

_HEAD: Final = """\
# The command line

<!-- Written by `make docs`; a test compares. Change the commands' own words in mirror/cli/. -->

`mirror [OPTIONS] COMMAND`. The options of all commands may stand before the command's name or after it.
`mirror COMMAND --help` prints the same as this page.

Exit status: 0 done · 1 error · 2 usage · 3 done except for some items, which are listed · 75 another
run holds the lock · 78 bad configuration or credentials · 130 interrupted; everything acknowledged is
committed. [What to do about each](operations.md#when-a-run-fails).

With `--json` standard output is one object. A command that cannot begin, or ends without its own object,
prints `{"error": sentence, "exit_status": number}`. Causes are an error of usage or configuration, another
run's lock, or an unreachable mirror. Bytes of a path or URL that are not UTF-8 appear as codes such as
`\\udcff`.
"""

_OF_UPKEEP: Final = (
    "`run_id checked missing mismatched orphaned repaired deleted pulled failed rows_without_object bytes "
    "examples[] warnings[] requests{put,get,head,list,delete} seconds dry_run interrupted "
    "exit_status`, `error` if one ended the run; and "
)

# The members of the object that `--json` prints.
JSON: Final = {
    "sync": "`run_id scanned new changed unchanged vanished ignored uploaded deduplicated described "
    "flagged{blank,corrupt,not_image,placeholder} failed failures[{path,reason}] collided bytes_uploaded "
    "requests{put,get,head,list,delete} retries catalog_version catalog_commits seconds dry_run "
    "interrupted warnings[]`; with `--dry-run` `estimate{puts,requests,bytes,request_usd,"
    "storage_usd_month,seconds}`; `error` if one ended the run.",
    "rewrite": "`records written dropped{not_mirrored,blank,corrupt,not_image,placeholder,too_small,"
    "license,invalid,label_conflict,near_duplicate,sample} splits{…} matched_by_photo kept_missing urls_dropped classes{…} "
    "imbalances[{name,reason,records,units,split,have,want}] moved pinned pin_conflicts "
    "near_duplicate_groups groups_crossing without_phash label_conflicts conflicts[{classes[],records[]}] "
    "outputs{…} rejected "
    "examples{…}[{input,number,what}] config_diff config_backup unreadable warnings[] dry_run seconds "
    "exit_status`.",
    "export": "`documents written failed failures[{_id,reason}] non_finite resumed output seconds`.",
    "backfill": "`run_id records invalid wanted already mirrored cached unlicensed flagged downloaded "
    "replaced overtaken failed{…} failures[{url,kind,reason}] gone_before given_up_before left "
    "throttled requests bytes taken_back stopped next_try eta arithmetic seconds dry_run interrupted "
    "warnings[] exit_status`; `error` if one ended the run.",
    "fetch": "`fetched missing failed bytes failures[{url,reason}] written[]`.",
    "prefetch": "`urls cached from_cache fetched missing not_mirrored flagged absent failed no_room invalid bytes "
    "failures[{url,reason}] retries throttled seconds`.",
    "verify": f"{_OF_UPKEEP}`read resumed share seed flagged orphaned_bytes old_orphans "
    "catalog_version hashed`.",
    "repair": f"{_OF_UPKEEP}those of verify, `repairable healed lost flagged_rows looked_at`.",
    "gc": f"{_OF_UPKEEP}`planned planned_bytes young named_recently flagged strangers spared "
    "catalog_files catalog_bytes uploads`.",
    "pull": f"{_OF_UPKEEP}`already kept replaced flagged not_mirrored`.",
    "rebuild-state": f"{_OF_UPKEEP}`read known unknown ignored`.",
    "status": "`url mirror_id created_at catalog_version files verdicts{…} objects bytes bytes_saved "
    "unsynced{new,changed,bytes} last_runs[{run_id,started_at,seconds,exit_status,uploaded,failed}] "
    "prices cost{s3,r2}{storage_usd_month,requests_usd_month,epoch_usd,sync_usd}`.",
    "inspect": "`checked ok blank corrupt not_image placeholder ignored failed failures[{path,reason}] "
    "flagged[{path,verdict,reason,size,width,height}] flagged_listed seconds`; the first 1,000 of each list.",
    "duplicates": "`place checked ok blank corrupt not_image placeholder contents without_phash near_groups "
    "redundant groups[{images,farthest,copies[{images,names[],content_hash,size,width,height,format,"
    "distance}]}] warnings[] failed failures[{path,reason}] seconds`; the first 10 names of each copy.",
    "quarantine": "`checked moved restored skipped failed failures[{path,reason}] bytes dry_run manifest`; "
    "in a dry run, the counts of what would be done.",
    "demo": "`folder`, and an object for each step: `first` and `second` as for `sync`, `rewrite`, "
    "`fetch{fetched,missing,bytes,seconds}`, `verify`.",
    "doctor": "`ok warn fail skip checks[{name,status,what,fix}] exit_status`.",
    "init": "`written`, and the members of `doctor`.",
    "schedule": "`kind command every change text dry_run`.",
    "config show": "each key with its `value` and `origin`.",
    "config check": "`ok layers[] bucket cache`.",
}


def reference() -> str:
    """The page as Markdown."""
    ctx = click.Context(mirror, info_name="mirror")
    shared: set[str | None] = {option.name for option in mirror.params}
    parts = [_HEAD, "## Options of all commands\n", *_options(mirror, set())]
    parts.append("## Commands\n")
    parts.append("| command | does |\n|---|---|")
    parts += [f"| [`{name}`](#mirror-{name}) | {line} |" for name, line in COMMANDS.items()]
    parts.append("")
    for name in COMMANDS:
        command = mirror.get_command(ctx, name)
        assert command is not None
        parts += _command(name, command, shared, ctx)
    return "\n".join(parts).rstrip() + "\n"


def _command(
    name: str, command: click.Command, shared: set[str | None], parent: click.Context
) -> Iterator[str]:
    ctx = click.Context(command, info_name=name, parent=parent)
    yield f"## mirror {name}\n"
    yield f"```\nmirror {name} {' '.join(_usage(command))}".rstrip() + "\n```\n"
    yield _prose(command.help or "") + "\n"
    yield from _options(command, shared)
    if name in JSON:
        yield f"`--json`: {JSON[name]}\n"
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from _command(f"{name} {inner.name}", inner, shared, ctx)


def _usage(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            many = "" if parameter.nargs == 1 or parameter.metavar else "..."
            yield f"{_value(parameter)}{many}"
    yield "COMMAND" if isinstance(command, click.Group) else "[OPTIONS]"


def _prose(text: str) -> str:
    """The paragraphs of a docstring. Those that click does not wrap become code blocks."""
    out: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.split("\n")
        if lines[0] != "\b":
            out.append(paragraph)
            continue
        title, *code = lines[1:]
        out.append(f"{title}\n\n```\n{inspect.cleandoc(chr(10).join(['', *code]))}\n```")
    return "\n\n".join(out)


def _options(command: click.Command, without: set[str | None]) -> Iterator[str]:
    sections: dict[str, list[str]] = {}
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.hidden:
            continue
        if parameter.name in without or parameter.name == "version":
            continue
        names = ", ".join(f"`{name}`" for name in parameter.opts)
        value = "" if parameter.is_flag or parameter.count else f" `{_value(parameter)}`"
        help_ = (parameter.help or "").replace("|", "\\|")
        default = f" Default: `{parameter.default}`." if parameter.show_default else ""
        needed = " Required." if parameter.required else ""
        again = " May be given again." if parameter.multiple else ""
        cell = f"{names}{value}".replace("|", "\\|")
        rows = sections.setdefault(section_of(parameter), [])
        rows.append(f"| {cell} | {help_}{default}{needed}{again} |")
    for title, rows in sections.items():
        yield f"| {title} | |\n|---|---|"
        yield from rows
        yield ""


def _value(parameter: click.Parameter) -> str:
    if parameter.metavar:
        return parameter.metavar
    if isinstance(parameter.type, click.Choice):
        return "|".join(map(str, parameter.type.choices))
    if isinstance(parameter.type, (click.types.IntParamType, click.types.FloatParamType)):
        return "N"
    if isinstance(parameter.type, click.Path):
        return "FILE" if parameter.type.file_okay else "DIR"
    return (parameter.name or "").upper() if isinstance(parameter, click.Argument) else "TEXT"


if __name__ == "__main__":
    sys.stdout.write(reference())
