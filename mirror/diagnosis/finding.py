"""What one check of the doctor found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mirror.errors import EXIT_CONFIG, EXIT_DONE, EXIT_ERROR, MirrorError

# skip: not tried, because of what another line says or because there is nothing to try.
Status = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `mirror doctor`.

    Attributes:
        name: what was looked at, in a word or two.
        status: `warn` for what works but should be better.
        what: what was found, without any secret.
        fix: what to do about it; empty for `ok` and `skip`.
        exit_status: of the whole command if this line fails.
    """

    name: str
    status: Status
    what: str
    fix: str = ""
    exit_status: int = EXIT_DONE

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "status": self.status, "what": self.what, "fix": self.fix}


@dataclass(frozen=True)
class DoctorReport:
    """All findings of one examination."""

    findings: list[Finding]

    @property
    def exit_status(self) -> int:
        """0 if nothing fails, 78 if the configuration or the credentials fail, otherwise 1."""
        failed = {finding.exit_status for finding in self.findings if finding.status == "fail"}
        if EXIT_CONFIG in failed:
            return EXIT_CONFIG
        return EXIT_ERROR if failed else EXIT_DONE

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints; docs/cli.md names its keys."""
        counts = {
            status: sum(finding.status == status for finding in self.findings)
            for status in get_args(Status)
        }
        checks = [finding.as_json() for finding in self.findings]
        return {**counts, "checks": checks, "exit_status": self.exit_status}


def ok(name: str, what: str) -> Finding:
    return Finding(name, "ok", what)


def warn(name: str, what: str, fix: str) -> Finding:
    return Finding(name, "warn", what, fix)


def fail(name: str, what: str, fix: str, exit_status: int = EXIT_ERROR) -> Finding:
    return Finding(name, "fail", what, fix, exit_status)


def skip(name: str, what: str) -> Finding:
    return Finding(name, "skip", what)


def tried(name: str, check: Callable[[], Finding], fix: str) -> Finding:
    """What a check finds; an error of ours that it raises is its failure.

    Args:
        name: of the finding, where the check raises.
        check: does its requests and judges them.
        fix: what to do where it raises.
    """
    try:
        return check()
    except MirrorError as error:
        return fail(name, happened(error), fix, error.exit_status)


def happened(error: MirrorError) -> str:
    """What an error says has happened; what to do is the finding's own to say."""
    what, _, advice = str(error).rpartition("; ")
    return what if what and ")" not in advice else str(error).rstrip(".")


def skipped(names: Iterable[str], why: str) -> Iterator[Finding]:
    for name in names:
        yield skip(name, why)
