"""Send one request by aiohttp and read its answer. No redirects, no retries, no cookies.

The connection goes to the address that was checked, never to that of a second look-up. Nothing is
decompressed, so a small answer stays small.
"""

from __future__ import annotations

import errno
import re
import socket
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from mirror._version import __version__
from mirror.backfill.answers import Reply
from mirror.backfill.pacing import IN_TRANSIT_BYTES
from mirror.backfill.url_policy import UrlPolicy
from mirror.errors import ConfigError

# Bytes that are read of an answer that is no image.
_ERROR_PAGE_BYTES: Final = 64 << 10
# Bytes that the system receives ahead. The kernel doubles the number, and asyncio adds a buffer.
_RECEIVE_BUFFER: Final = IN_TRANSIT_BYTES // 4
_HEADER: Final = re.compile(r"[!-~][ -~]{0,200}")


def user_agent(contact: str | None) -> str:
    """The User-Agent header: the tool's name and version, and a contact.

    Raises:
        ConfigError: the contact is missing, or a header cannot hold it.
    """
    if not contact or not contact.strip():
        raise ConfigError(
            "No contact is configured: set backfill.contact to an e-mail address or a web page, "
            "so that the server's operator can reach you instead of blocking you."
        )
    text = contact.strip()
    if not _HEADER.fullmatch(text) or any(c in text for c in "()"):
        raise ConfigError(
            "backfill.contact is neither an e-mail address nor a web page: write it in ASCII, "
            "like you@example.org or https://example.org/contact."
        )
    return f"dataset-mirror/{__version__} (+{text})"


class CheckedResolver(AbstractResolver):
    """Looks up host names, and refuses names with an address that the policy forbids.

    Args:
        policy: says which addresses are forbidden.
        inner: does the look-up; the system when None.
    """

    def __init__(self, policy: UrlPolicy, inner: AbstractResolver | None = None) -> None:
        self._policy = policy
        self._inner = inner or aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for result in found:
            # One forbidden address among allowed ones is enough to refuse the name.
            if refused := self._policy.refused_address(result["host"]):
                raise OSError(errno.EACCES, refused)
        return found

    async def close(self) -> None:
        await self._inner.close()


class OriginClient:
    """An HTTP client for images. An async context.

    Args:
        policy: which addresses may be contacted.
        agent: the User-Agent header.
        largest: bytes of one answer's body.
        stall: seconds within which more bytes must come.
        deadline: seconds within which the whole answer must come.
        resolver: looks up host names; the system when None.
    """

    def __init__(
        self,
        policy: UrlPolicy,
        agent: str,
        *,
        largest: int,
        stall: float,
        deadline: float,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._policy = policy
        self._agent = agent
        self._largest = largest
        self._timeout = aiohttp.ClientTimeout(total=deadline, sock_connect=stall, sock_read=stall)
        self._resolver = resolver

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(self._policy, self._resolver),
            force_close=True,
            socket_factory=_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            middlewares=(_send_once,),
            headers={
                "User-Agent": self._agent,
                "Accept": "image/*,*/*;q=0.1",
                "Accept-Encoding": "identity",
            },
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def get(self, url: URL) -> Reply:
        """Send one GET. Nothing that a server does raises an error here.

        Args:
            url: as `UrlPolicy.judge` returned it.

        Returns:
            The answer, or what is known of it.
        """
        head = Reply()
        pieces: list[bytes] = []
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                head = _reply_head(response)
                return await self._read(response, head, pieces)
        except TimeoutError:
            reason = "the answer stalled, or did not end in time"
        except aiohttp.ClientConnectorCertificateError:
            reason = "its certificate is not valid"
        except aiohttp.ClientConnectorError as error:
            reason = f"no connection: {error.os_error.strerror or error.os_error}"
        except aiohttp.ClientPayloadError:
            reason = "the connection ended before the answer did"
        except _ConnectionBroke as error:
            reason = f"the connection broke: {error}"
        except aiohttp.ClientResponseError as error:
            first, *_ = error.message.splitlines() or [
                ""
            ]  # the other lines quote the server's bytes
            reason = f"the answer is not HTTP/1.1: {first.rstrip(':')}"
        except Exception as error:  # noqa: BLE001 - no answer of a server may end the run
            reason = f"{type(error).__name__} {error}"[:200].strip()
        return head._replace(
            received=sum(map(len, pieces)), broken_off=True, problem="network", reason=reason
        )

    async def _read(
        self, response: aiohttp.ClientResponse, head: Reply, pieces: list[bytes]
    ) -> Reply:
        """Read the body into `pieces`, up to the limit for its kind."""
        is_image = head.status == 200
        limit = self._largest if is_image else _ERROR_PAGE_BYTES
        received = 0
        announced = response.content_length or 0
        if announced <= limit:
            async for piece in response.content.iter_any():
                pieces.append(piece)
                received += len(piece)
                if received > limit:
                    break
            else:
                return head._replace(body=b"".join(pieces), received=received)
        response.close()
        cut = head._replace(received=received, broken_off=True)
        if not is_image:
            return cut
        return cut._replace(problem="too_large", reason=f"more than {limit:,} bytes")


class _ConnectionBroke(aiohttp.ClientError):
    """A connection broke when the request may have been sent."""


async def _send_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from resending a GET when its connection breaks: that request would not be counted."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        said = getattr(error, "strerror", None) or error
        raise _ConnectionBroke(f"{said}") from None


def _reply_head(response: aiohttp.ClientResponse) -> Reply:
    header = response.headers.get
    return Reply(
        status=response.status,
        content_type=header("Content-Type", ""),
        encoding=header("Content-Encoding", "").strip().lower(),
        location=header("Location", ""),
        retry_after=header("Retry-After", ""),
        date=header("Date", ""),
    )


def _socket(address: Any) -> socket.socket:
    """A socket that receives little ahead, so that a broken-off answer costs few bytes more."""
    family, kind, protocol, _, _ = address
    opened = socket.socket(family=family, type=kind, proto=protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    return opened
