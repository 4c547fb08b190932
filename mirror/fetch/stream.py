"""Images in the order they were asked for, read ahead up to a number of bytes.

The caller's own thread looks URLs up and reads files on this machine. Images from the mirror are
requested ahead, until the requested images that were not taken yet reach the limit. For local files
only a lookup runs ahead; they are read when their turn comes. Read earlier, they would push each
other out of the processor's caches.
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
_FIRST_LOOKUP: Final = 32
_LARGEST_LOOKUP: Final = 512
# Images that may be requested or looked up ahead, whatever their size.
_MAX_AHEAD: Final = 4096
# Images that one `take` returns at most.
_TAKE: Final = 16
_NOTHING: Final = FetchStats()


def kind_of(error: FetchError) -> str:
    """The field of `FetchStats` that counts an error."""
    kinds = (
        (NotMirrored, "not_mirrored"),
        (Flagged, "flagged"),
        (CorruptObject, "corrupt"),
        (OriginBlocked, "blocked"),
    )
    return next((name for kind, name in kinds if isinstance(error, kind)), "unavailable")


class FetchStream:
    """The images of one call of `many`. For one thread at a time.

    Args:
        engine: the engine of this process.
        find: looks URLs up in the index.
        urls: the URLs to read.
        max_bytes: bytes that may be requested and not taken; a single image may be larger.
        wake: called, on any thread, when the image is there that `awaits` waits for.

    Attributes:
        counts: images and bytes that were taken, by field of `FetchStats`.
        waited: seconds that the caller waited for images.
        reported: the part of `stats` that was reported already.
    """

    def __init__(
        self,
        engine: Engine,
        find: Callable[[Sequence[str]], Sequence[MirroredImage | FetchError]],
        urls: Iterable[str],
        max_bytes: int,
        wake: Callable[[], object],
    ) -> None:
        self._engine = engine
        self._find = find
        self._urls = iter(urls)
        self._max_bytes = max_bytes
        self._wake = wake
        self._lookup_size = _FIRST_LOOKUP
        # Looked up, but not in the window yet.
        self._known: deque[tuple[str, MirroredImage | FetchError]] = deque()
        self._window: deque[tuple[str, ImageRequest | FetchError]] = deque()
        self._bytes = 0  # requested from the mirror and not taken
        self._ended = False
        self._awaited: ImageRequest | None = None
        self.counts: Counter[str] = Counter()
        self.waited = 0.0
        self.reported = _NOTHING

    @property
    def stats(self) -> FetchStats:
        """The images taken so far, and the time that the caller waited for them."""
        values: dict[str, Any] = self.counts
        return FetchStats(**values, waited=self.waited)

    def take(self) -> list[tuple[str, Result]] | None:
        """The next images that are there, in order, a few at a time.

        Returns:
            An empty list while the next image has not come; None when all have been taken.

        Raises:
            MirrorError: no image can be read, whichever it is.
        """
        taken: list[tuple[str, Result]] = []
        if not self._window:
            self._take_local(taken)
        if not taken:
            self._request_ahead()
            if not self._window:
                return None
        while self._window and len(taken) < _TAKE:
            url, entry = self._window[0]
            result = self._result(entry) if isinstance(entry, ImageRequest) else entry
            if result is None:
                break
            self._window.popleft()
            taken.append((url, self._count(result)))
        return taken

    def _take_local(self, taken: list[tuple[str, Result]]) -> None:
        """Take images from this machine until one is missing; nothing is looked up ahead."""
        while len(taken) < _TAKE and self._look_up():
            url, found = self._known.popleft()
            if not isinstance(found, MirroredImage):
                taken.append((url, self._count(found)))
            elif (read := self._engine.read_local(found)) is not None:
                self.counts[read[1]] += 1
                taken.append((url, self._count(read[0])))
            else:
                request = ImageRequest(found, self._on_ready)
                self._window.append((url, request))
                self._request([request])
                break

    def _count(self, result: Result) -> Result:
        if isinstance(result, FetchError):
            self.counts[kind_of(result)] += 1
        else:
            self.counts["bytes"] += len(result)
        return result

    def awaits(self) -> bool:
        """Whether `take` has nothing to return before the next call of `wake`.

        `wake` comes when several images are there, if that many were requested. Waking the caller
        for each image costs both threads more than the image itself.
        """
        head = self._window[0][1] if self._window else None
        if not isinstance(head, ImageRequest) or head.ready:
            return False
        last = self._window[min(_TAKE, len(self._window)) - 1][1]
        # This thread sets `_awaited` and then checks `ready`. The mirror thread sets the result and
        # then checks `_awaited`. So at least one of them sees what the other did.
        self._awaited = last if isinstance(last, ImageRequest) and not last.ready else head
        return not self._awaited.ready

    def close(self) -> None:
        """Cancel the requests that have not begun; `wake` is not called any more."""
        self._awaited = None
        # A copy: when an asyncio task was cancelled, `take` may still run on another thread.
        for _, entry in tuple(self._window):
            if isinstance(entry, ImageRequest):
                entry.cancelled = True
        self._window.clear()

    def _on_ready(self, request: ImageRequest) -> None:
        if request is self._awaited:
            self._wake()

    def _request_ahead(self) -> None:
        requests: list[ImageRequest] = []
        nbytes = self._bytes
        while len(self._window) < _MAX_AHEAD and self._look_up():
            url, found = self._known[0]
            if isinstance(found, MirroredImage):
                request = ImageRequest(found, self._on_ready)
                request.is_local = self._engine.local_tier(found) is not None
                if not request.is_local:
                    if nbytes and nbytes + found.size > self._max_bytes:
                        break
                    nbytes += found.size
                    requests.append(request)
                self._window.append((url, request))
            else:
                self._window.append((url, found))
            self._known.popleft()
        if requests:
            self._request(requests)

    def _look_up(self) -> bool:
        """Look the next URLs up if none are known; False after the last URL."""
        if not self._known and not self._ended:
            urls = list(islice(self._urls, self._lookup_size))
            self._ended = len(urls) < self._lookup_size
            self._lookup_size = min(_LARGEST_LOOKUP, 2 * self._lookup_size)
            self._known.extend(zip(urls, self._find(urls), strict=True))
        return bool(self._known)

    def _request(self, requests: Sequence[ImageRequest]) -> None:
        for request in requests:
            if not request.requested:
                request.requested = True
                self._bytes += request.image.size
        self._engine.request(requests)

    def _result(self, request: ImageRequest) -> Result | None:
        result, tier = request.result, "mirror"
        if request.is_local:
            read = self._engine.read_local(request.image)
            if read is None:
                request.is_local, request.local_failed = False, True
                self._request([request])
            else:
                result, tier = read
        if result is None:
            return None
        if request.requested:
            self._bytes -= request.image.size
        if isinstance(result, bytes):
            self.counts[tier] += 1
            return result
        if isinstance(result, FetchError):
            return result
        raise result
