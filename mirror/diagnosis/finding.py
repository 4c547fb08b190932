"""Findings: the result of one check of the doctor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mirror.errors import EXIT_CONFIG, EXIT_DONE, EXIT_ERROR, MirrorError

# skip: not checked, because another check failed or because there is nothing to check.
Status = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `mirror doctor`.

    Attributes:
        name: of the check, in a word or two.
        status: the result; `warn` is for something that works but should be better.
        what: the result in words, without any secret.
        fix: what to do about it; empty for `ok` and `skip`.
        exit_status: of the command if this check fails.
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


def run_check(name: str, check: Callable[[], Finding], fix: str) -> Finding:
    """Run a check, and turn an error that it raises into a failed finding.

    Args:
        name: of the finding if the check raises.
        check: sends requests and judges the answers.
        fix: what to do if the check raises.
    """
    try:
        return check()
    except MirrorError as error:
        return fail(name, what_happened(error), fix, error.exit_status)


def what_happened(error: MirrorError) -> str:
    """The part of an error that says what happened. The finding has its own advice."""
    what, _, advice = str(error).rpartition("; ")
    return what if what and ")" not in advice else str(error).rstrip(".")


def skipped(names: Iterable[str], why: str) -> Iterator[Finding]:
    """A `skip` finding for each name."""
    for name in names:
        yield skip(name, why)
