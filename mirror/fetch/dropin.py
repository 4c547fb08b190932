"""Drop-ins for an existing loader: `UrlDownloader` for a downloader, `get` for `requests.get`.

    from mirror.fetch import UrlDownloader       # in place of the loader's own downloader
    from mirror.fetch import get                 # in place of requests.get

Unless you pass a fetcher, both use one for the whole process. It is made from the configuration that
the command `mirror` finds (./mirror.toml, the environment). Neither returns a substitute image.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final, Self

from mirror.errors import FetchError, Flagged, NotMirrored
from mirror.fetch.client import Fetcher
from mirror.fetch.fork_lock import ForkLock
from mirror.system.display_text import printable

_log = logging.getLogger(__name__)

_making: Final = ForkLock()
_shared: list[Fetcher] = []


def shared_fetcher() -> Fetcher:
    """Return the fetcher of this process, made on first use.

    Raises:
        MirrorError: it cannot be made; the next call tries again.
    """
    if not _shared:
        with _making:
            if not _shared:
                _shared.append(Fetcher.from_config())
    return _shared[0]


class UrlDownloader:
    """A downloader that reads the mirror: a URL in, bytes or None out.

        downloader = UrlDownloader()
        data = downloader.download(url)
        if data is not None:
            ...

    Args:
        fetch (Fetcher | None): the fetcher to read with. Default: one for the whole process, made at
            the first download.
    """

    def __init__(self, fetch: Fetcher | None = None) -> None:
        self._fetch = fetch
        self._warned = False

    def download(self, url: str) -> bytes | None:
        """Return the image's verified bytes, or None if the URL is not mirrored or flagged.

        The first such URL is logged as a warning, later ones at level DEBUG. All other errors are
        raised: an image that cannot be read now is no reason to train without it.

        Args:
            url: in any form that a `Fetcher` takes.

        Raises:
            CorruptObject, OriginBlocked, StoreUnavailable: as for `Fetcher`.
        """
        fetch = self._fetch or shared_fetcher()
        try:
            return fetch(url)
        except (NotMirrored, Flagged) as error:
            level = logging.DEBUG if self._warned else logging.WARNING
            more = (
                "" if self._warned else " Further URLs without an image are logged at level DEBUG."
            )
            _log.log(level, "%s%s", printable(str(error)), more)
            self._warned = True
            return None


class Response:
    """A response with the attributes of `requests.Response` that make sense for an image.

    Attributes:
        url: the URL that was requested.
        status_code: 200; 404 for a URL that is not mirrored, 410 for one that is flagged.
        reason: the status in words.
        headers: `Content-Length`, if there is an image.
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
        """Whether there is an image."""
        return isinstance(self._result, bytes)

    @property
    def content(self) -> bytes:
        """The image's bytes.

        Raises:
            NotMirrored, Flagged: there is no image. A web server would send an error page, which a
                loader that ignores the status takes for an image.
        """
        if not isinstance(self._result, bytes):
            raise self._result
        return self._result

    def iter_content(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Yield `content` in chunks of `chunk_size` bytes; None for one chunk."""
        content = self.content
        step = chunk_size or max(1, len(content))
        return (content[at : at + step] for at in range(0, len(content), step))

    def raise_for_status(self) -> None:
        """Raise NotMirrored or Flagged if there is no image."""
        if isinstance(self._result, FetchError):
            raise self._result

    def close(self) -> None:
        """Do nothing; for compatibility."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __bool__(self) -> bool:
        return self.ok


def get(url: str, *, fetch: Fetcher | None = None, **_: Any) -> Response:
    """Read an image from the mirror, as `requests.get` reads it from the web.

        response = get(url, timeout=10)
        response.raise_for_status()
        data = response.content

    Other options of `requests.get` are accepted and ignored.

    Args:
        url (str): in any form that a `Fetcher` takes.
        fetch (Fetcher | None): the fetcher to read with. Default: one for the whole process.

    Raises:
        CorruptObject, OriginBlocked, StoreUnavailable: as for `Fetcher`, where requests would raise.
    """
    result: bytes | NotMirrored | Flagged
    try:
        result = (fetch or shared_fetcher())(url)
    except (NotMirrored, Flagged) as error:
        result = error
    return Response(url, result)
