"""Many images, in the order they were asked for, as many bytes ahead of their use as is allowed.

The reader's own thread looks URLs up and reads files of this machine; what the mirror has to send
is ordered ahead, up to so many bytes that were ordered and not taken yet. Files are only looked for
ahead, and read when their turn comes: read earlier, they would push each other out of the
processor's caches.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final

from mirror.errors import CorruptObject, FetchError, Flagged, NotMirrored, OriginBlocked
from mirror.fetch.engine import Engine, ImageRequest
from mirror.fetch.image_lookup import MirroredImage
from mirror.fetch.statistics import FetchStats

Result = bytes | FetchError

# URLs that are looked up together: few at first, so that the first image comes soon.
_FIRST: Final = 32
_MOST: Final = 512
# Images that may be ordered or looked for ahead, whatever their size.
_AHEAD: Final = 4096
# Images handed over together, if so many are there.
_TAKEN: Final = 16
_NOTHING: Final = FetchStats()


def kind_of(error: FetchError) -> str:
    """What an error counts as in `FetchStats`."""
    kinds = (
        (NotMirrored, "not_mirrored"),
        (Flagged, "flagged"),
        (CorruptObject, "corrupt"),
        (OriginBlocked, "blocked"),
    )
    return next((name for kind, name in kinds if isinstance(error, kind)), "unavailable")


class FetchStream:
    """One reading of many images. For one thread at a time.

    Args:
        engine: of this process.
        find: looks texts up.
        texts: what to read.
        most: bytes that may be ordered and not taken; one image may be larger.
        wake: called, on any thread, when the image has come that `awaits` was asked for.

    Attributes:
        counts: images and bytes that were taken, by names of `FetchStats`.
        waited: seconds that its user waited for images.
        told: of its `stats`, what somebody was told already.
    """

    def __init__(
        self,
        engine: Engine,
        find: Callable[[Sequence[str]], Sequence[MirroredImage | FetchError]],
        texts: Iterable[str],
        most: int,
        wake: Callable[[], object],
    ) -> None:
        self._engine = engine
        self._find = find
        self._texts = iter(texts)
        self._most = most
        self._wake = wake
        self._together = _FIRST
        self._known: deque[tuple[str, MirroredImage | FetchError]] = (
            deque()
        )  # looked up, not ordered
        self._window: deque[tuple[str, ImageRequest | FetchError]] = deque()
        self._bytes = 0  # of what the mirror has to send
        self._ended = False
        self._awaited: ImageRequest | None = None
        self.counts: Counter[str] = Counter()
        self.waited = 0.0
        self.told = _NOTHING

    @property
    def stats(self) -> FetchStats:
        """What was taken, and how long it was waited for."""
        values: dict[str, Any] = self.counts
        return FetchStats(**values, waited=self.waited)

    def take(self) -> list[tuple[str, Result]] | None:
        """Images whose turn it is, some at a time; none when the next one has not come yet.

        Returns:
            None when all have been taken.

        Raises:
            MirrorError: no image can be had like this.
        """
        taken: list[tuple[str, Result]] = []
        if not self._window:
            self._take_here(taken)
        if not taken:
            self._order_ahead()
            if not self._window:
                return None
        while self._window and len(taken) < _TAKEN:
            text, one = self._window[0]
            result = self._result(one) if isinstance(one, ImageRequest) else one
            if result is None:
                break
            self._window.popleft()
            taken.append((text, self._counted(result)))
        return taken

    def _take_here(self, taken: list[tuple[str, Result]]) -> None:
        """Take what this machine has, as far as it has everything: nothing is looked for ahead."""
        while len(taken) < _TAKEN and self._look_up():
            text, found = self._known.popleft()
            if not isinstance(found, MirroredImage):
                taken.append((text, self._counted(found)))
            elif (read := self._engine.read_here(found)) is not None:
                self.counts[read[1]] += 1
                taken.append((text, self._counted(read[0])))
            else:
                order = ImageRequest(found, self._came)
                self._window.append((text, order))
                self._order([order])
                break

    def _counted(self, result: Result) -> Result:
        if isinstance(result, FetchError):
            self.counts[kind_of(result)] += 1
        else:
            self.counts["bytes"] += len(result)
        return result

    def awaits(self) -> bool:
        """Whether `take` has nothing to give before the next call of `wake`.

        That comes when several images are there, as far as so many were ordered: threads that hand
        each other one at a time spend more on it than on the images.
        """
        head = self._window[0][1] if self._window else None
        if not isinstance(head, ImageRequest) or head.ready:
            return False
        last = self._window[min(_TAKEN, len(self._window)) - 1][1]
        # Said first and looked at then, and the other way round where it is filled in: of the two
        # threads one sees what the other has done.
        self._awaited = last if isinstance(last, ImageRequest) and not last.ready else head
        return not self._awaited.ready

    def close(self) -> None:
        """What was ordered and has not begun is not read, and nobody is woken for the rest."""
        self._awaited = None
        # A copy: a reading that its task gave up may still be at `take`, on another thread.
        for _, one in tuple(self._window):
            if isinstance(one, ImageRequest):
                one.cancelled = True
        self._window.clear()

    def _came(self, order: ImageRequest) -> None:
        if order is self._awaited:
            self._wake()

    def _order_ahead(self) -> None:
        ordered: list[ImageRequest] = []
        nbytes = self._bytes
        while len(self._window) < _AHEAD and self._look_up():
            text, found = self._known[0]
            if isinstance(found, MirroredImage):
                order = ImageRequest(found, self._came)
                order.here = self._engine.look(found)
                if not order.here:
                    if nbytes and nbytes + found.size > self._most:
                        break
                    nbytes += found.size
                    ordered.append(order)
                self._window.append((text, order))
            else:
                self._window.append((text, found))
            self._known.popleft()
        if ordered:
            self._order(ordered)

    def _look_up(self) -> bool:
        """Whether something is known of the next text; False behind the last."""
        if not self._known and not self._ended:
            texts = list(islice(self._texts, self._together))
            self._ended = len(texts) < self._together
            self._together = min(_MOST, 2 * self._together)
            self._known.extend(zip(texts, self._find(texts), strict=True))
        return bool(self._known)

    def _order(self, orders: Sequence[ImageRequest]) -> None:
        for order in orders:
            if not order.ordered:
                order.ordered = True
                self._bytes += order.found.size
        self._engine.ask(orders)

    def _result(self, order: ImageRequest) -> Result | None:
        result, tier = order.result, "mirror"
        if order.here:
            read = self._engine.read_here(order.found)
            if read is None:
                order.here, order.tried = False, True
                self._order([order])
            else:
                result, tier = read
        if result is None:
            return None
        if order.ordered:
            self._bytes -= order.found.size
        if isinstance(result, bytes):
            self.counts[tier] += 1
            return result
        if isinstance(result, FetchError):
            return result
        raise result
