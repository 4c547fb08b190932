"""Decides what to do with a file that was read. Pure.

    | flagged | object known, by SHA-256 | in this run, by SHA-256 | decision                          |
    |---------|--------------------------|-------------------------|-----------------------------------|
    | –       | another                  | –                       | Collide: refused, with a warning  |
    | yes     | same, or unknown         | –                       | Flag: catalogued, not uploaded    |
    | no      | same                     | –                       | Duplicate: catalogued             |
    | no      | unknown                  | acknowledged, same      | Duplicate                         |
    | no      | unknown                  | in flight, same         | Follow: Duplicate if that succeeds|
    | no      | unknown                  | another                 | Collide                           |
    | no      | unknown                  | no                      | Upload                            |

A flagged file collides, too. Its row would flag the content hash, and so the good image that has it.

`--include-flagged` treats a flagged file like any other, and keeps its verdict in the catalog.

Where the catalog knows a content, the level of this run does not decide whether a file is flagged:

    | verdict of the same content in the catalog | level       | the file is                             |
    |--------------------------------------------|-------------|-----------------------------------------|
    | placeholder                                | any         | flagged, like a known placeholder       |
    | blank, corrupt, not_image                  | any         | decoded, and flagged if it is still bad |
    | ok, or none                                | decode      | decoded                                 |
    | ok, or none                                | header, off | inspected at that level                 |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from mirror.cache.prepare import Prepared
from mirror.catalog.index import Sighting, StoredObject
from mirror.catalog.row import Row


class Decision(Enum):
    FLAG = auto()
    DUPLICATE = auto()
    FOLLOW = auto()
    UPLOAD = auto()
    COLLIDE = auto()


@dataclass(slots=True)
class Claim:
    """A content that this run uploads once, whatever number of files have it.

    Attributes:
        sha256: of the content.
        path: of the file that is uploaded, relative to the cache.
        acknowledged: the store has the object.
        epoch: how often the run had learned a new version of the catalog when the file was read.
        followers: files with the same content that wait for the upload; their bodies are dropped.
    """

    sha256: bytes
    path: bytes = b""
    acknowledged: bool = False
    epoch: int = 0
    followers: list[Prepared] = field(default_factory=list)


def decide(
    prepared: Prepared, known_sha256: bytes | None, claim: Claim | None, *, include_flagged: bool
) -> Decision:
    """Decide by the first table above.

    Args:
        prepared: the file.
        known_sha256: SHA-256 of the object that the catalog names under the same content hash.
        claim: this run's own upload of the same content hash.
        include_flagged: upload flagged files too.
    """
    sha256 = prepared.digest.sha256
    if known_sha256 is not None and known_sha256 != sha256:
        return Decision.COLLIDE
    if prepared.inspection.verdict != "ok" and not include_flagged:
        return Decision.FLAG
    if known_sha256 is not None:
        return Decision.DUPLICATE
    if claim is None:
        return Decision.UPLOAD
    if claim.sha256 != sha256:
        return Decision.COLLIDE
    return Decision.DUPLICATE if claim.acknowledged else Decision.FOLLOW


def replaces_good(row: Row, prior: Sighting) -> bool:
    """Whether a row with a bad image would replace a good image of another content."""
    return row.verdict != "ok" and prior.verdict == "ok" and row.content_hash != prior.content_hash


def supersedes(row: Row, prior: Sighting | None) -> bool:
    """Whether a new row adds anything to the latest one of the same URL, and so is written.

    A bad image never replaces a good one. Another cache, or a later download, may hold a blank in
    place of an image that the mirror has; the mirror keeps offering the good image.
    """
    if prior is None:
        return True
    same_content = prior.content_hash == row.content_hash
    if replaces_good(row, prior):
        return False
    if same_content and prior.verdict == row.verdict:
        known_dimensions = prior.width > 0 or row.width == 0
        return (row.source.url is not None and not prior.sourced) or not known_dimensions
    return True


def adds_hash(row: Row, prior: Sighting, stored: StoredObject | None) -> bool:
    """Whether a row has the perceptual hash of a good image that no row has so far."""
    return (
        row.near is not None
        and row.verdict == "ok"
        and row.content_hash == prior.content_hash
        and stored is not None
        and not stored.hashed
    )
