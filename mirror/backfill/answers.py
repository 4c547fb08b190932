"""What an answer means: for the image that was asked for, and for the pace of its source. Pure.

| answer                                         | fate of the URL              | to the pace |
|------------------------------------------------|------------------------------|-------------|
| none: no connection, reset, stall, deadline    | `network`                    | failed      |
| fewer bytes than its Content-Length            | `network`                    | failed      |
| 429, 503; 403 with Retry-After                 | `throttled`                  | refused     |
| 408, 425, other 5xx                            | `server_error`               | failed      |
| 403                                            | `gone`                       | forbidden   |
| 401, 404, 410, 451                             | `gone`                       | answered    |
| a redirect to what is no image by its name:    | `placeholder`                | answered    |
|   a login, a notice, a default picture         |                              |             |
| a redirect where nobody may be asked           | `not_allowed`                | answered    |
| one that leads nowhere                         | `not_image`                  | answered    |
| one within its source, to be followed          | that of the next answer      | redirected  |
| one to another source                          | that of the next answer      | answered    |
| the sixth                                      | `not_image`                  | as these two|
| more bytes than are allowed                    | `too_large`                  | answered    |
| any other status but 200                       | `not_image`                  | answered    |
| 200, compressed, or of another type than image | `not_image`                  | answered    |
| 200, and its bytes are not `ok`                | the verdict                  | answered    |
| 200, a PNG for an iNaturalist photo's .jpg     | `placeholder`                | answered    |
| 200, and its bytes are `ok`                    | `had`                        | answered    |

| fate                                | asked again                                             |
|-------------------------------------|---------------------------------------------------------|
| `had`                               | no                                                      |
| `gone`, `placeholder`               | never                                                   |
| `too_large`, `not_allowed`          | when the user says so                                   |
| `not_image`, `blank`, `corrupt`     | after 10 min, 1 h, 6 h; then when the user says so      |
| `network`, `server_error`           | after 10 s, and four times as long each time, a day at  |
|                                     |   most; after the eighth time when the user says so     |
| `throttled`                         | behind all others, as soon as the pace allows: it says  |
|                                     |   nothing of the image, until it is the URL's own fault |
|                                     |   (`Results._is_its_own`): `server_error`, after a day   |
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from mirror.backfill.pacing import ON_THE_WAY, Outcome
from mirror.content.digest import Digest, digest_of
from mirror.content.image import Inspection, inspect
from mirror.content.photo import photo_of
from mirror.content.placeholder import with_known_bad

# Why a URL could not be had, as reports name it.
Failure = Literal[
    "gone", "placeholder", "not_image", "blank", "corrupt", "too_large", "not_allowed",
    "server_error", "network",
]  # fmt: skip
Kind = Literal["had", "throttled"] | Failure
State = Literal["had", "waiting", "gone", "given_up"]

FAILURES: Final[tuple[Failure, ...]] = (
    "gone", "placeholder", "not_image", "blank", "corrupt", "too_large", "not_allowed",
    "server_error", "network",
)  # fmt: skip
# What came was an answer, only not the image.
BAD_ANSWERS: Final = frozenset(("not_image", "blank", "corrupt"))
FOR_GOOD: Final = frozenset(("gone", "placeholder"))

MOST_REDIRECTS: Final = 5
LONGEST_PAUSE: Final = 86_400.0
# A row of forbidden images that was a block is asked for again after so long.
AFTER_A_BLOCK: Final = 86_400.0

# 403 only with Retry-After.
REFUSALS: Final = frozenset((403, 429, 503))
_GONE: Final = frozenset((401, 404, 410, 451))
_PASSING: Final = frozenset((408, 425))
# A whole segment of a path: a photograph of bark may well be called bark_removed.jpg.
_NO_IMAGE: Final = re.compile(
    r"(log[-_]?in|sign[-_]?in|sessions?|copyright(?:[-_]infringement.*)?|placeholder"
    r"|attachment_defaults|removed|missing)(?:\.\w+)?",
    re.IGNORECASE,
)
_JPG: Final = re.compile(r"\.jpe?g(?:[?#].*)?", re.IGNORECASE | re.DOTALL)
_INATURALIST: Final = "https://www.inaturalist.org/photos/"

Problem = Literal["", "network", "too_large"]


class Reply(NamedTuple):
    """One answer to one request, or what came instead.

    Attributes:
        status: 0 where none came.
        body: what came of it; whole where `problem` is empty.
        received: bytes of it, those that were not kept included.
        content_type, encoding, location, retry_after, date: the headers, empty where absent.
        broken_off: more may have been on its way than was received.
        problem: what went wrong on the way.
        reason: that in a few words.
    """

    status: int = 0
    body: bytes = b""
    received: int = 0
    content_type: str = ""
    encoding: str = ""
    location: str = ""
    retry_after: str = ""
    date: str = ""
    broken_off: bool = False
    problem: Problem = ""
    reason: str = ""

    @property
    def cost(self) -> int:
        """Bytes that its server may have counted."""
        return self.received + (ON_THE_WAY if self.broken_off else 0)


class UrlOutcome(NamedTuple):
    """What became of a URL. `digest` and `inspection` where an image was looked at."""

    kind: Kind
    reason: str = ""
    digest: Digest | None = None
    inspection: Inspection | None = None


def outcome_of(reply: Reply) -> Outcome:
    """What an answer says to the pace; see the table above."""
    status = reply.status
    if status in REFUSALS and (status != 403 or reply.retry_after):
        return "refused"
    if status == 403:
        return "forbidden"
    if not status or status in _PASSING or status >= 500:
        return "failed"
    return "failed" if reply.problem == "network" else "answered"


def fate_of(reply: Reply, url: str, known_bad: frozenset[bytes]) -> UrlOutcome:
    """What an answer that is no redirect says of a URL. Decodes the image: not for an event loop.

    Args:
        reply: the answer.
        url: what the dataset asks for.
        known_bad: hashes of contents that are placeholders wherever they are met.
    """
    status = reply.status
    outcome = outcome_of(reply)
    said = f"HTTP {status}"
    if outcome == "refused":
        return UrlOutcome("throttled", said)
    if not status or reply.problem == "network":
        return UrlOutcome("network", reply.reason)
    if outcome == "failed":
        return UrlOutcome("server_error", said)
    if outcome == "forbidden" or status in _GONE:
        return UrlOutcome("gone", said)
    if reply.problem == "too_large":
        return UrlOutcome("too_large", reply.reason)
    if status != 200:
        return UrlOutcome("not_image", said)
    if reply.encoding not in ("", "identity"):
        return UrlOutcome("not_image", f"content encoding {reply.encoding[:40]!r}")
    if not _may_be_image(reply.content_type):
        return UrlOutcome("not_image", f"content type {reply.content_type[:80]!r}")
    digest = digest_of(reply.body)
    found = with_known_bad(inspect(reply.body), digest, known_bad)
    if found.verdict != "ok":
        return UrlOutcome(found.verdict, found.reason, digest, found)
    if found.format == "png" and _JPG.search(url) and photo_of(url).startswith(_INATURALIST):
        return UrlOutcome("placeholder", "a PNG for a photo's .jpg", digest, found)
    return UrlOutcome("had", "", digest, found)


def fate_of_redirect(location: str, asked: str) -> UrlOutcome | None:
    """The fate of a URL whose redirect leads to what is no image by its name; None: follow it.

    Args:
        location: where to, without its host.
        asked: path of the URL that was asked for: a word that it has itself says nothing.
    """
    if _words_for_no_image(location.partition("?")[0]) - _words_for_no_image(asked):
        return UrlOutcome("placeholder", f"redirects to {location[:120]}")
    return None


def _words_for_no_image(path: str) -> set[str]:
    return {found[1].lower() for part in path.split("/") if (found := _NO_IMAGE.fullmatch(part))}


def _may_be_image(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return not kind or kind.startswith("image/") or kind.endswith("/octet-stream")


class NextAttempt(NamedTuple):
    """Whether and when a URL is asked for again. `pause` in seconds, for `waiting` only."""

    state: State
    pause: float = 0.0


def what_next(kind: Kind, strikes: int, *, refused: bool = False) -> NextAttempt:
    """See the second table above.

    Args:
        kind: what became of the URL this time.
        strikes: how often something did in a row, this time included; `throttled` does not count.
        refused: the answer was a refusal, which slows down all others of the source.
    """
    if kind == "had":
        return NextAttempt("had")
    if kind == "throttled":
        return NextAttempt("waiting")
    if kind in FOR_GOOD:
        return NextAttempt("gone")
    if kind in BAD_ANSWERS:
        return (
            NextAttempt("waiting", 600.0 * 6.0 ** (strikes - 1))
            if strikes < 4
            else NextAttempt("given_up")
        )
    if kind in ("network", "server_error") and strikes < 8:
        pause = LONGEST_PAUSE if refused else 10.0 * 4.0 ** (strikes - 1)
        return NextAttempt("waiting", min(pause, LONGEST_PAUSE))
    return NextAttempt("given_up")
