"""A value that an object works out when it is first asked for, and keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801 - as `property` and `functools.cached_property` are
    """`functools.cached_property` without the lock that it has before Python 3.12.

    That one is held for all objects of the class while a value is worked out; a process that forks
    meanwhile has a child that waits for it for ever. Here two threads may both work the value out,
    and one of the two is kept.
    """

    def __init__(self, work_out: Callable[[Any], T]) -> None:
        self._work_out = work_out
        self.__doc__ = work_out.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> Self | T:
        if instance is None:
            return self
        # No data descriptor: from now on the object's own dictionary answers first.
        value: T = instance.__dict__.setdefault(self._name, self._work_out(instance))
        return value
