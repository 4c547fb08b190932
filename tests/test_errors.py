"""The tree of errors matches its drawing, and every error pickles."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator

import pytest

from mirror import errors
from mirror.errors import MirrorError, Transient


def subclasses(of: type[MirrorError]) -> Iterator[type[MirrorError]]:
    yield of
    for one in of.__subclasses__():
        if one.__module__ == errors.__name__:
            yield from subclasses(one)


EVERY_ERROR = sorted(set(subclasses(MirrorError)), key=lambda one: one.__name__)


def drawn() -> dict[str, tuple[str | None, int | None]]:
    """The drawing in the docstring as `{name: (parent, exit status)}`. A missing status is None."""
    tree: dict[str, tuple[str | None, int | None]] = {}
    ancestors: list[tuple[int, str]] = []
    # The statuses are right-aligned in a separate column.
    line_of_tree = re.compile(r"    ([│├└─ ]*)([A-Z]\w+)(?=  |$)")
    for line in (errors.__doc__ or "").splitlines():
        if match := line_of_tree.match(line):
            depth, name = len(match[1]), match[2]
            ancestors = [one for one in ancestors if one[0] < depth]
            status = line[max(35, match.end()) : 38].strip()
            tree[name] = (ancestors[-1][1] if ancestors else None, int(status) if status else None)
            ancestors.append((depth, name))
    return tree


def test_every_error_is_drawn_below_its_parent() -> None:
    tree = drawn()
    assert set(tree) == {one.__name__ for one in EVERY_ERROR}
    for one in EVERY_ERROR:
        if one is not MirrorError:
            assert tree[one.__name__][0] == one.__mro__[1].__name__


@pytest.mark.parametrize("error", EVERY_ERROR)
def test_exit_statuses_are_drawn_or_inherited(error: type[MirrorError]) -> None:
    status = drawn()[error.__name__][1]
    expected = error.__mro__[1].exit_status if status is None else status  # type: ignore[attr-defined]
    assert error.exit_status == expected


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("MirrorError", 1),
        ("UsageError", 2),
        ("Busy", 75),
        ("ConfigError", 78),
        ("Interrupted", 130),
    ],
)
def test_the_statuses_that_scripts_rely_on(error: str, status: int) -> None:
    assert getattr(errors, error).exit_status == status


@pytest.mark.parametrize("error", EVERY_ERROR)
def test_an_error_crosses_processes_whole(error: type[MirrorError]) -> None:
    made = error("what happened; what to do")
    made.add_note("and where")
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is error
    assert str(again) == "what happened; what to do"
    assert again.args == made.args
    assert again.__dict__ == made.__dict__


@pytest.mark.parametrize("retry_after", [None, 0.0, 2.5])
@pytest.mark.parametrize("error", [e for e in EVERY_ERROR if issubclass(e, Transient)])
def test_a_transient_error_keeps_its_retry_time(
    error: type[Transient], retry_after: float | None
) -> None:
    again = pickle.loads(pickle.dumps(error("slow down", retry_after)))
    assert again.retry_after == retry_after
    assert str(again) == "slow down"
