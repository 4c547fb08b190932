"""The fetcher in the shape of what a loader has: a downloader, or `requests.get`.

    from mirror.fetch import UrlDownloader       # in place of the loader's own
    from mirror.fetch import get                 # in place of requests.get

Both use one fetcher for the process, made by the configuration that `mirror` finds (./mirror.toml,
the environment), unless they are given another. Neither ever gives a substitute for an image.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final, Self

from mirror.errors import FetchError, Flagged, NotMirrored
from mirror.fetch.client import Fetcher
from mirror.fetch.fork_lock import ForkLock

_log = logging.getLogger(__name__)

_making: Final = ForkLock()
_shared: list[Fetcher] = []


def shared_fetcher() -> Fetcher:
    """The fetcher of this process, made when it is first asked for.

    Raises:
        MirrorError: it cannot be made; the next call tries again.
    """
    if not _shared:
        with _making:
            if not _shared:
                _shared.append(Fetcher.from_config())
    return _shared[0]


class UrlDownloader:
    """A URL in, bytes or None out.

    Args:
        fetch: what to read with; the process's own by default, made at the first download.
    """

    def __init__(self, fetch: Fetcher | None = None) -> None:
        self._fetch = fetch
        self._told = False

    def download(self, url: str) -> bytes | None:
        """The image's bytes; None only for what the mirror does not have, or has flagged.

        The first such URL is logged as a warning, the others at level DEBUG.

        Raises:
            CorruptObject, OriginBlocked, StoreUnavailable: as `Fetcher`. That an image is not to
                be had now is no reason to train without it.
        """
        fetch = self._fetch or shared_fetcher()
        try:
            return fetch(url)
        except (NotMirrored, Flagged) as error:
            level = logging.DEBUG if self._told else logging.WARNING
            more = "" if self._told else " There is no image for it, nor for others like it."
            _log.log(level, "%s%s", error, more)
            self._told = True
            return None


class Response:
    """An answer as `requests` has it, as far as it makes sense for an image of the mirror.

    Attributes:
        url: what was asked for.
        status_code: 200; 404 for what is not in the mirror, 410 for what is flagged.
        reason: in words.
        headers: `Content-Length`, where there is an image.
    """

    def __init__(self, url: str, result: bytes | NotMirrored | Flagged) -> None:
        self.url = url
        self._result = result
        self.headers: dict[str, str] = {}
        if isinstance(result, bytes):
            self.status_code = HTTPStatus.OK.value
            self.headers["Content-Length"] = str(len(result))
        elif isinstance(result, NotMirrored):
            self.status_code = HTTPStatus.NOT_FOUND.value
        else:
            self.status_code = HTTPStatus.GONE.value
        self.reason = "OK" if isinstance(result, bytes) else str(result)

    @property
    def ok(self) -> bool:
        return isinstance(self._result, bytes)

    @property
    def content(self) -> bytes:
        """The image's bytes.

        Raises:
            NotMirrored, Flagged: there is none. A server would send a page in its place, which a
                loader that does not look at the status takes for an image.
        """
        if not isinstance(self._result, bytes):
            raise self._result
        return self._result

    def iter_content(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """`content` in pieces."""
        content = self.content
        step = chunk_size or max(1, len(content))
        return (content[at : at + step] for at in range(0, len(content), step))

    def raise_for_status(self) -> None:
        """Raises: NotMirrored or Flagged: there is no image."""
        if isinstance(self._result, FetchError):
            raise self._result

    def close(self) -> None:
        """Nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __bool__(self) -> bool:
        return self.ok


def get(url: str, *, fetch: Fetcher | None = None, **_: Any) -> Response:
    """As `requests.get`, out of the mirror. Further options of requests are taken, and not used.

    Args:
        url: as `Fetcher` takes it.
        fetch: what to read with; the process's own by default.

    Raises:
        CorruptObject, OriginBlocked, StoreUnavailable: as `Fetcher`; where requests would raise.
    """
    result: bytes | NotMirrored | Flagged
    try:
        result = (fetch or shared_fetcher())(url)
    except (NotMirrored, Flagged) as error:
        result = error
    return Response(url, result)
