"""The meaning of an answer for its URL and for the pace of its source. Pure.

docs/backfill.md has the table of answers, of what they count as, and of when a URL is tried again.
`request_outcome` says what an answer means for the pace. Redirects are the exception: the caller
follows them, and knows whether they stay within their source (`mirror.backfill.fetch_one`).
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple, get_args

from mirror.backfill.pacing import IN_TRANSIT_BYTES, LONGEST_PAUSE, RequestOutcome
from mirror.content.digest import Digest, digest_of
from mirror.content.image import Inspection, inspect
from mirror.content.photo import photo_of
from mirror.content.placeholder import with_known_bad

# Why an image could not be downloaded, as reports name it.
Failure = Literal[
    "gone", "placeholder", "not_image", "blank", "corrupt", "too_large", "not_allowed",
    "server_error", "network",
]  # fmt: skip
# "had": downloaded. The request log stores these names.
Kind = Literal["had", "throttled"] | Failure
State = Literal["had", "waiting", "gone", "given_up"]

FAILURES: Final[tuple[Failure, ...]] = get_args(Failure)
# The server answered, but not with the image.
BAD_ANSWERS: Final = frozenset(("not_image", "blank", "corrupt"))
NEVER_RETRIED: Final = frozenset(("gone", "placeholder"))

MOST_REDIRECTS: Final = 5
# Seconds until images are requested again that were forbidden during a block.
BLOCK_PAUSE: Final = 86_400.0

# Of these, 403 is a refusal only with Retry-After.
REFUSAL_STATUSES: Final = frozenset((403, 429, 503))
_GONE: Final = frozenset((401, 404, 410, 451))
_TRANSIENT: Final = frozenset((408, 425))
# Matches a whole path segment: a photograph may well be named bark_removed.jpg.
_NOT_AN_IMAGE: Final = re.compile(
    r"(log[-_]?in|sign[-_]?in|sessions?|copyright(?:[-_]infringement.*)?|placeholder"
    r"|attachment_defaults|removed|missing)(?:\.\w+)?",
    re.IGNORECASE,
)
_JPG: Final = re.compile(r"\.jpe?g(?:[?#].*)?", re.IGNORECASE | re.DOTALL)
_INATURALIST: Final = "https://www.inaturalist.org/photos/"

Problem = Literal["", "network", "too_large"]


class Reply(NamedTuple):
    """The answer to one request, or what is known when none came.

    Attributes:
        status: the HTTP status; 0 if no answer came.
        body: whole where `problem` is empty.
        received: bytes of the body that arrived, those that were discarded included.
        content_type, encoding, location, retry_after, date: headers; empty where absent.
        broken_off: the connection ended early, so more bytes may have been sent than received.
        problem: what went wrong in transit.
        reason: the problem in a few words.
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
        """Bytes that the server may have counted."""
        return self.received + (IN_TRANSIT_BYTES if self.broken_off else 0)


class UrlOutcome(NamedTuple):
    """The outcome for a URL. `digest` and `inspection` are known where an image was inspected."""

    kind: Kind
    reason: str = ""
    digest: Digest | None = None
    inspection: Inspection | None = None


def request_outcome(reply: Reply) -> RequestOutcome:
    """Classify an answer for the pace of its source.

    | answer                                              | outcome     |
    |-----------------------------------------------------|-------------|
    | 429, 503; 403 with Retry-After                      | `refused`   |
    | 403                                                 | `forbidden` |
    | no answer; a body that ends early; 408, 425, any 5xx| `failed`    |
    | any other                                           | `answered`  |
    """
    status = reply.status
    if status in REFUSAL_STATUSES and (status != 403 or reply.retry_after):
        return "refused"
    if status == 403:
        return "forbidden"
    if not status or status in _TRANSIENT or status >= 500:
        return "failed"
    return "failed" if reply.problem == "network" else "answered"


def url_outcome(reply: Reply, url: str, known_bad: frozenset[bytes]) -> UrlOutcome:
    """Classify an answer that is not a redirect. Decodes the image: call in a thread.

    Args:
        reply: the answer.
        url: as the dataset has it.
        known_bad: hashes of contents that count as placeholders.
    """
    status = reply.status
    request = request_outcome(reply)
    said = f"HTTP {status}"
    if request == "refused":
        return UrlOutcome("throttled", said)
    if not status or reply.problem == "network":
        return UrlOutcome("network", reply.reason)
    if request == "failed":
        return UrlOutcome("server_error", said)
    if request == "forbidden" or status in _GONE:
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


def redirect_outcome(location: str, requested_path: str) -> UrlOutcome | None:
    """The outcome of a redirect whose target's name shows that it is no image; None to follow it.

    Args:
        location: path and query of the target.
        requested_path: path of the requested URL. Words that it contains itself are ignored.
    """
    if _suspicious_words(location.partition("?")[0]) - _suspicious_words(requested_path):
        return UrlOutcome("placeholder", f"redirects to {location[:120]}")
    return None


def _suspicious_words(path: str) -> set[str]:
    return {
        found[1].lower() for part in path.split("/") if (found := _NOT_AN_IMAGE.fullmatch(part))
    }


def _may_be_image(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return not kind or kind.startswith("image/") or kind.endswith("/octet-stream")


class NextAttempt(NamedTuple):
    """Whether and when a URL is requested again.

    Attributes:
        state: of the URL from now on.
        pause: seconds until the next attempt, for `waiting` only.
    """

    state: State
    pause: float = 0.0


def next_attempt(kind: Kind, strikes: int, *, refused: bool = False) -> NextAttempt:
    """Decide whether and when to request a URL again, by the table in docs/backfill.md.

    Args:
        kind: of the outcome this time.
        strikes: failures in a row, this one included. `throttled` does not count.
        refused: the answer was a refusal that is the URL's own fault. It would slow down the whole
            source again, so the pause is the longest one.
    """
    if kind == "had":
        return NextAttempt("had")
    if kind == "throttled":
        return NextAttempt("waiting")
    if kind in NEVER_RETRIED:
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
