"""Both tables of decide.py, row by row."""

from __future__ import annotations

import pytest

from mirror.cache.prepare import Prepared
from mirror.cache.scan import Entry
from mirror.catalog.index import Sighting
from mirror.catalog.row import UNKNOWN_SOURCE, Row, RowSource
from mirror.content.digest import Digest, Identity
from mirror.content.image import VERDICTS, Inspection, Verdict
from mirror.sync.decide import Claim, Decision, decide, supersedes

SAME, OTHER = b"s" * 32, b"o" * 32
CONTENT, OTHER_CONTENT = b"c" * 16, b"d" * 16


def prepared(verdict: Verdict) -> Prepared:
    return Prepared(
        Entry(b"0" * 32 + b".jpg", Identity(1, 1, 1)),
        Digest(CONTENT, SAME, 1),
        Inspection(verdict, "", "jpeg", 1, 1),
        b"x",
    )


# known in the catalog, by SHA-256 | claimed by this run: SHA-256, acknowledged | decision
NOT_FLAGGED = [
    (SAME, None, Decision.DUPLICATE),
    (SAME, (SAME, False), Decision.DUPLICATE),
    (SAME, (OTHER, True), Decision.DUPLICATE),
    (OTHER, None, Decision.COLLIDE),
    (OTHER, (SAME, True), Decision.COLLIDE),
    (None, (SAME, True), Decision.DUPLICATE),
    (None, (SAME, False), Decision.FOLLOW),
    (None, (OTHER, True), Decision.COLLIDE),
    (None, (OTHER, False), Decision.COLLIDE),
    (None, None, Decision.UPLOAD),
]


@pytest.mark.parametrize(("known", "claimed", "decision"), NOT_FLAGGED)
@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_file_that_may_be_uploaded(
    verdict: Verdict, known: bytes | None, claimed: tuple[bytes, bool] | None, decision: Decision
) -> None:
    claim = Claim(claimed[0], acknowledged=claimed[1]) if claimed else None
    assert decide(prepared(verdict), known, claim, include_flagged=True) is decision
    expected = decision if verdict == "ok" or known == OTHER else Decision.FLAG
    assert decide(prepared(verdict), known, claim, include_flagged=False) is expected


def row(verdict: Verdict, content: bytes, width: int = 5, *, sourced: bool = False) -> Row:
    source = RowSource("https://example.org") if sourced else UNKNOWN_SOURCE
    return Row(bytes(16), content, SAME, 9, "jpeg", width, width, verdict, "", source, 2)


def sighting(
    verdict: Verdict, content: bytes, width: int = 5, *, sourced: bool = False
) -> Sighting:
    return Sighting(content, 9, width, width, "jpeg", verdict, sourced, 1)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_first_row_of_a_url_is_written(verdict: Verdict) -> None:
    assert supersedes(row(verdict, CONTENT), None)


# before | now | the same content | is the new row written
VERDICT_TABLE = [
    ("ok", "ok", False, True),
    ("ok", "blank", False, False),
    ("ok", "corrupt", False, False),
    ("ok", "not_image", False, False),
    ("ok", "placeholder", False, False),
    ("blank", "ok", False, True),
    ("blank", "blank", False, True),
    ("blank", "corrupt", False, True),
    ("ok", "ok", True, False),
    ("ok", "blank", True, True),
    ("blank", "ok", True, True),
    ("blank", "blank", True, False),
    ("blank", "corrupt", True, True),
]


@pytest.mark.parametrize(("before", "now", "same", "written"), VERDICT_TABLE)
def test_a_bad_image_does_not_replace_a_good_one(
    before: Verdict, now: Verdict, same: bool, written: bool
) -> None:
    content = CONTENT if same else OTHER_CONTENT
    assert supersedes(row(now, content), sighting(before, CONTENT)) is written


@pytest.mark.parametrize("had", [False, True])
@pytest.mark.parametrize("has", [False, True])
@pytest.mark.parametrize("knew", [0, 5])
@pytest.mark.parametrize("knows", [0, 5])
@pytest.mark.parametrize("verdict", ["ok", "blank"])
def test_the_same_row_is_written_only_when_it_adds_something(
    verdict: Verdict, had: bool, has: bool, knew: int, knows: int
) -> None:
    prior = sighting(verdict, CONTENT, knew, sourced=had)
    more = (has and not had) or (knows > 0 and knew == 0)
    assert supersedes(row(verdict, CONTENT, knows, sourced=has), prior) is more


@pytest.mark.parametrize("has", [False, True])
def test_a_source_does_not_make_a_bad_image_a_better_one(has: bool) -> None:
    assert not supersedes(row("blank", OTHER_CONTENT, sourced=has), sighting("ok", CONTENT))
