"""An attribute that is computed at its first use and then kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801 - as `property` and `functools.cached_property` are
    """`functools.cached_property` without the lock that it has before Python 3.12.

    That lock is shared by all objects of the class while a value is computed. If the process forks
    meanwhile, the child waits for it forever. Here two threads may both compute the value, and one
    of the results is kept.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> Self | T:
        if instance is None:
            return self
        # This is not a data descriptor, so from now on Python finds the value in the object's own
        # dictionary first.
        value: T = instance.__dict__.setdefault(self._name, self._compute(instance))
        return value
