"""A value is computed once, at its first use, and a forked child does not wait for it."""

from __future__ import annotations

import multiprocessing
import threading

import pytest

from mirror.system.lazy import lazy

# Python 3.12 warns of a fork while threads run.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


class Thing:
    def __init__(self) -> None:
        self.worked_out = 0
        self.begun, self.go_on = threading.Event(), threading.Event()

    @lazy
    def value(self) -> list[int]:
        """What it is worth."""
        self.worked_out += 1
        return [self.worked_out]

    @lazy
    def slow(self) -> int:
        self.begun.set()
        assert self.go_on.wait(30)
        return 1


def test_a_value_is_computed_once_for_each_object() -> None:
    one, other = Thing(), Thing()
    assert one.value is one.value
    assert one.value is not other.value
    assert (one.worked_out, other.worked_out) == (1, 1)


def test_the_class_shows_the_docstring() -> None:
    assert isinstance(Thing.value, lazy)
    assert Thing.value.__doc__ == "What it is worth."


def work_out(thing: Thing) -> None:
    thing.go_on.set()
    assert thing.slow == 1


def test_a_forked_child_computes_the_value_itself() -> None:
    thing = Thing()
    thread = threading.Thread(target=lambda: thing.slow)
    thread.start()
    assert thing.begun.wait(30)
    child = multiprocessing.get_context("fork").Process(target=work_out, args=(Thing(),))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    thing.go_on.set()
    thread.join()
