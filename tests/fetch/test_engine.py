"""The engine: whatever becomes of others, and of the engine itself, each order is answered."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mirror import Fetcher
from mirror.config import Settings
from mirror.fetch.engine import Engine, Order
from mirror.fetch.resolve import Found
from tests.fetch.mirrors import HURRY
from tests.photos import url_of


def found_in(settings: Settings, *numbers: int) -> list[Found]:
    """What the orders of these photos are for; they are read once, and so kept where that is done."""
    with Fetcher(settings, tuning=HURRY) as fetch:
        for number in numbers:
            fetch(url_of(number))
        found = fetch._images.find_all([url_of(number) for number in numbers])
    return [one for one in found if isinstance(one, Found)]


def order_of(found: Found, wake: Callable[[Order], object] = lambda _: None) -> Order:
    return Order(found, wake)


def test_an_order_that_comes_while_all_workers_end_is_filled(cached: Settings) -> None:
    """Orders for what was kept meanwhile are drained at once, so that all workers end together."""
    (found,) = found_in(cached, 1)
    engine = Engine(cached, offline=False, tuning=HURRY)
    came = threading.Event()
    second = order_of(found, lambda _: came.set())
    first = order_of(found, lambda _: engine.ask([second]))
    engine.ask([first, *(order_of(found) for _ in range(cached.fetch.concurrency))])
    assert came.wait(20)
    assert second.ready
    engine.close()
