"""Decides whether a row that waits for its commit still holds, by what the catalog says now. Pure.

A row is decided on one version of the catalog and may be committed after a later one. Whenever a
writer learns a later version, it weighs every waiting row again, and commits only what it would
decide on that version, too:

    | waiting                 | what the catalog says now                       | outcome                  |
    |-------------------------|-------------------------------------------------|--------------------------|
    | file, `ok`              | a row judges its content `placeholder`          | flagged as a placeholder |
    | file, `ok`              | its content was flagged since it was decided    | left: read it again      |
    | file, `ok`, a duplicate | no live `ok` row names its content              | left: upload it          |
    | file                    | `ok` rows name its hash with another SHA-256    | left: it collides        |
    | file                    | the latest row of its URL says the same         | known: no row is written |
    | file, `ok`, with a hash | so it does, but no row has the content's hash   | written                  |
    | file, flagged           | the URL has a good image of another content     | known: no row is written |
    | source                  | the URL has another content or verdict          | left                     |
    | placeholder by evidence | the URL has another content, or is flagged      | left                     |

A file that is left is not recorded in the state, so the next run reads it again.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

import numpy as np

from mirror.cache.scan import Entry
from mirror.catalog.index import Index, Sighting, StoredObject, positions_of
from mirror.catalog.row import Row
from mirror.content.placeholder import KNOWN_BAD
from mirror.sync.decide import adds_hash, supersedes


class Basis(Enum):
    """What a waiting row rests on."""

    UPLOADED = auto()  # this run has uploaded the object, or read it back
    DUPLICATE = auto()  # the catalog names the object
    FLAGGED = auto()  # a flagged file, which needs no object
    SOURCE = auto()  # an unchanged file whose source a dataset has given
    EVIDENCE = auto()  # too many photos share the content


class Waiting(NamedTuple):
    """A row that waits for its commit.

    Attributes:
        row: as it would be committed now.
        basis: what it rests on.
        epoch: how often the run had learned a new version of the catalog when the row was decided.
        entry: the file; None for a row that no file was read for.
        path: of the unchanged file whose source the row has; else empty.
        source_digest: of the row's source; None where a file has none.
    """

    row: Row
    basis: Basis
    epoch: int
    entry: Entry | None = None
    path: bytes = b""
    source_digest: bytes | None = None


class ContentFacts(NamedTuple):
    """What the catalog says of a content now.

    Attributes:
        stored: the object that live `ok` rows name; None when none does.
        placeholder: whether a row judges the content a placeholder.
        flagged_at: the epoch in which the run learned that the content was flagged; 0 when it did not.
    """

    stored: StoredObject | None
    placeholder: bool
    flagged_at: int


class Weighed(NamedTuple):
    """The outcome of weighing a row.

    Attributes:
        waiting: the row as it holds now.
        holds: False when it must not be committed, nor its file be recorded.
        write: whether the row adds anything to the catalog.
    """

    waiting: Waiting
    holds: bool
    write: bool


def weigh(
    waiting: Waiting, prior: Sighting | None, content: ContentFacts, earliest: int = 0
) -> Weighed:
    """Decide by the table above.

    Args:
        waiting: the row.
        prior: the latest row of its URL, by this run or by the catalog.
        content: what the catalog says of its content.
        earliest: the least `seen_at` of the row: rows of later commits are seen later.
    """
    row = waiting.row
    row = row._replace(seen_at=max(row.seen_at, earliest))
    if prior is not None:
        # A clock that was set back, or another machine's clock that runs ahead, must not make an
        # older row the latest one.
        row = row._replace(seen_at=max(row.seen_at, prior.seen_at + 1))
    if waiting.basis in (Basis.SOURCE, Basis.EVIDENCE):
        return _without_a_file(waiting, row, prior)
    if content.stored is not None and content.stored.sha256 != row.sha256:
        return Weighed(waiting, holds=False, write=False)
    if row.verdict == "ok":
        if content.placeholder:
            row = row._replace(verdict="placeholder", reason=KNOWN_BAD)
        elif content.flagged_at > waiting.epoch:
            return Weighed(waiting, holds=False, write=False)
        elif waiting.basis is Basis.DUPLICATE:
            if content.stored is None:
                return Weighed(waiting, holds=False, write=False)
            row = row._replace(format=content.stored.format)
    write = supersedes(row, prior) or (prior is not None and adds_hash(row, prior, content.stored))
    return Weighed(waiting._replace(row=row), holds=True, write=write)


def _without_a_file(waiting: Waiting, row: Row, prior: Sighting | None) -> Weighed:
    """Weigh a row that says something more of a URL's present content."""
    if prior is None or prior.content_hash != row.content_hash:
        return Weighed(waiting, holds=False, write=False)
    row = row._replace(format=prior.format)  # the object's key depends on it
    if waiting.basis is Basis.SOURCE:
        holds = write = prior.verdict == row.verdict
    else:
        write = prior.verdict == "ok"
        holds = write or prior.verdict == row.verdict
    return Weighed(waiting._replace(row=row), holds=holds, write=write)


def newly_flagged(earlier: Index, later: Index) -> list[bytes]:
    """Contents that rows of the later index flag, and that the earlier one did not flag so lately.

    `placeholder` is not among them: it is final, whenever it was learned.
    """
    hi, lo, seen_at = later.flagged_contents()
    known_hi, known_lo, known_at = earlier.flagged_contents()
    at = positions_of(hi, lo, known_hi, known_lo)
    new = at < 0
    new[~new] = seen_at[~new] > known_at[at[~new]]
    return [
        (int(high) << 64 | int(low)).to_bytes(16, "big")
        for high, low in zip(hi[np.flatnonzero(new)], lo[np.flatnonzero(new)], strict=True)
    ]
