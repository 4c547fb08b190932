"""One request and its answer, by aiohttp. Follows nothing, retries nothing, keeps nothing.

The connection goes to the address that was checked, never to what a second look-up would say;
nothing is decompressed, so a small answer stays small.
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
from mirror.backfill.pacing import ON_THE_WAY
from mirror.backfill.url_policy import UrlPolicy
from mirror.errors import ConfigError

# Of what is no image not more than a look.
_ERROR_PAGE: Final = 64 << 10
# What the system receives ahead of us: the kernel doubles it, and a reader's buffer comes on top.
_RECEIVE_BUFFER: Final = ON_THE_WAY // 4
_HEADER: Final = re.compile(r"[!-~][ -~]{0,200}")


def user_agent(contact: str | None) -> str:
    """Names the tool, and whom to write to about it.

    Raises:
        ConfigError: there is no contact, or none that a header can hold.
    """
    if not contact or not contact.strip():
        raise ConfigError(
            "No contact is configured: set backfill.contact to an e-mail address or a web page, "
            "so that those whose server is asked can reach you before they block you."
        )
    text = contact.strip()
    if not _HEADER.fullmatch(text) or any(c in text for c in "()"):
        raise ConfigError(
            "backfill.contact is no e-mail address and no web page: write such as "
            "you@example.org or https://example.org/contact, in ASCII."
        )
    return f"dataset-mirror/{__version__} (+{text})"


class CheckedResolver(AbstractResolver):
    """Names to addresses, none of which is one that may not be connected to.

    Args:
        rules: which may not.
        inner: looks them up; the system when None.
    """

    def __init__(self, rules: UrlPolicy, inner: AbstractResolver | None = None) -> None:
        self._rules = rules
        self._inner = inner or aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for one in found:
            # One bad among good ones is no accident either.
            if refused := self._rules.refused_address(one["host"]):
                raise OSError(errno.EACCES, refused)
        return found

    async def close(self) -> None:
        await self._inner.close()


class OriginClient:
    """Asks servers. An async context.

    Args:
        rules: which addresses may be asked.
        agent: how we call ourselves.
        largest: bytes of one answer's body.
        stall: seconds in which something must come.
        deadline: seconds in which all must have come.
        resolver: looks up names; the system when None.
    """

    def __init__(
        self,
        rules: UrlPolicy,
        agent: str,
        *,
        largest: int,
        stall: float,
        deadline: float,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._rules = rules
        self._agent = agent
        self._largest = largest
        self._timeout = aiohttp.ClientTimeout(total=deadline, sock_connect=stall, sock_read=stall)
        self._resolver = resolver

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(self._rules, self._resolver),
            force_close=True,
            socket_factory=_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            middlewares=(_once,),
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
        """One GET.

        Args:
            url: as `UrlPolicy.judge` gave it.

        Returns:
            What came, whatever that was: nothing that a server does raises here.
        """
        seen = Reply()
        pieces: list[bytes] = []
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                seen = _head(response)
                return await self._read(response, seen, pieces)
        except TimeoutError:
            reason = "nothing came for too long, or not all in time"
        except aiohttp.ClientConnectorCertificateError:
            reason = "its certificate is not valid"
        except aiohttp.ClientConnectorError as error:
            reason = f"no connection: {error.os_error.strerror or error.os_error}"
        except aiohttp.ClientPayloadError:
            reason = "the connection ended before the answer did"
        except _Broken as error:
            reason = f"the connection broke: {error}"
        except aiohttp.ClientResponseError as error:
            first, *_ = error.message.splitlines() or [""]  # the rest is the server's bytes
            reason = f"the answer is not HTTP/1.1: {first.rstrip(':')}"
        except Exception as error:  # noqa: BLE001 - a server that confuses a library ends no run
            reason = f"{type(error).__name__} {error}"[:200].strip()
        return seen._replace(
            received=sum(map(len, pieces)), broken_off=True, problem="network", reason=reason
        )

    async def _read(
        self, response: aiohttp.ClientResponse, head: Reply, pieces: list[bytes]
    ) -> Reply:
        """The body into `pieces`, as far as it is wanted."""
        is_image = head.status == 200
        most = self._largest if is_image else _ERROR_PAGE
        received = 0
        announced = response.content_length or 0
        if announced <= most:
            async for piece in response.content.iter_any():
                pieces.append(piece)
                received += len(piece)
                if received > most:
                    break
            else:
                return head._replace(body=b"".join(pieces), received=received)
        response.close()
        cut = head._replace(received=received, broken_off=True)
        if not is_image:
            return cut
        return cut._replace(problem="too_large", reason=f"more than {most:,} bytes")


class _Broken(aiohttp.ClientError):
    """A connection that broke when the request may have been sent."""


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keeps aiohttp from sending a GET again when its connection breaks: nobody would have counted it."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        said = getattr(error, "strerror", None) or error
        raise _Broken(f"{said}") from None


def _head(response: aiohttp.ClientResponse) -> Reply:
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
    """A socket that receives little ahead: what is broken off has not cost much more."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    return made
