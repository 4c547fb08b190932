"""Which records of a batch are written: by their URLs, their licences and their source field."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mirror.catalog.lookup import OUTCOMES
from mirror.dataset.chunks import json_line
from mirror.dataset.fields import FieldPath, parse_path
from mirror.dataset.records import ReadOptions, RowBatch
from mirror.dataset.rewrite.judge import JudgedBatch, judge
from mirror.dataset.rewrite.license_rule import LicenseRule
from mirror.dataset.rewrite.resolve import ResolvedBatch
from mirror.dataset.rewrite.rewrite_options import Missing, RewriteOptions

OK, NOT, BAD = (OUTCOMES.index(name) for name in ("ok", "not_mirrored", "blank"))
OWN = "s3://plants/objects/ab/" + "ab" * 16 + ".jpg"


def batch_of(
    *rows: dict[str, Any], url: str = "image_url", others: tuple[FieldPath, ...] = ()
) -> RowBatch:
    reading = ReadOptions(parse_path(url), others=others)
    batch = RowBatch.of(list(enumerate(rows, 1)), reading, json_line)
    assert not batch.rejected
    return batch


def judged(
    batch: RowBatch, outcomes: list[int], *, replaces_urls: bool = False, **options: Any
) -> JudgedBatch:
    """The decision on a batch whose URLs have these outcomes."""
    number = len(batch.urls)
    resolved = ResolvedBatch(
        batch,
        np.zeros(number, np.intp),
        np.zeros(number, np.bool_),
        np.array(outcomes, np.uint8),
        np.zeros(number, np.uint64),
    )
    return judge(resolved, RewriteOptions(**options), replaces_urls=replaces_urls)


TABLE: list[tuple[list[int], dict[Missing, tuple[bool, int, int]]]] = [
    # outcomes of a record's URLs; whether it is kept, else its reason, and the URL that is blamed
    ([OK], {"drop": (True, OK, 0), "keep": (True, OK, 0), "fail": (True, OK, 0)}),
    ([NOT], {"drop": (False, NOT, 0), "keep": (True, NOT, 0), "fail": (False, NOT, 0)}),
    ([BAD], {"drop": (False, BAD, 0), "keep": (False, BAD, 0), "fail": (False, BAD, 0)}),
    ([OK, NOT], {"drop": (True, OK, 0), "keep": (True, OK, 0), "fail": (False, NOT, 1)}),
    ([NOT, OK], {"drop": (True, NOT, 0), "keep": (True, NOT, 0), "fail": (False, NOT, 0)}),
    ([OK, BAD], {"drop": (True, OK, 0), "keep": (True, OK, 0), "fail": (True, OK, 0)}),
    ([BAD, NOT], {"drop": (False, BAD, 0), "keep": (True, BAD, 0), "fail": (False, NOT, 1)}),
    ([BAD, NOT, NOT], {"drop": (False, BAD, 0), "keep": (True, BAD, 0), "fail": (False, NOT, 1)}),
]  # fmt: skip


@pytest.mark.parametrize("missing", ["drop", "keep", "fail"])
def test_the_table(missing: Missing) -> None:
    for outcomes, expected in TABLE:
        # Between neighbours that are kept, so that places are not all zero.
        batch = batch_of(
            {"image_url": ["u"]}, {"image_url": ["u"] * len(outcomes)}, {"image_url": ["u", "u"]}
        )
        judgement = judged(batch, [OK, *outcomes, OK, OK], missing=missing).judgement
        kept, reason, blamed = expected[missing]
        assert judgement.kept.tolist() == [True, kept, True]
        if not kept:
            assert judgement.reason[1] == reason
            assert judgement.blamed[1] == 1 + blamed


@pytest.mark.parametrize("missing", ["drop", "keep", "fail"])
def test_one_url_each_is_judged_as_lists_of_one_are(missing: Missing) -> None:
    outcomes = [OK, NOT, BAD]
    single = judged(batch_of(*[{"image_url": "u"}] * 3), outcomes, missing=missing).judgement
    lists = [*[{"image_url": ["u"]}] * 3, {"image_url": ["u", "u"]}]
    several = judged(batch_of(*lists), [*outcomes, OK, OK], missing=missing).judgement
    assert single.kept.tolist() == several.kept.tolist()[:3]
    assert single.reason.tolist() == several.reason.tolist()[:3]


def licensed(rule: LicenseRule, *rows: dict[str, Any], url: str = "image_url") -> list[bool]:
    batch = batch_of(*rows, url=url, others=rule.paths)
    judgement = judged(batch, [OK] * len(batch.urls), license=rule).judgement
    assert all(judgement.reason[~judgement.kept] == OUTCOMES.index("license"))
    return [bool(kept) for kept in judgement.kept]


CC_BY = frozenset({"cc-by"})
LICENSES: list[Any] = ["cc-by", "CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/", "cc-by-nc", "C",
            "all rights reserved", "", None, 7, []]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (LicenseRule(), [True] * 10),
        (LicenseRule(("license",)), [True] * 10),
        (LicenseRule(("license",), required=True), [True] * 4 + [False] * 6),
        (LicenseRule(("license",), CC_BY), [True] * 3 + [False] * 7),
        (LicenseRule(("license",), CC_BY, required=True), [True] * 3 + [False] * 7),
    ],
)
def test_licences_one_a_record(rule: LicenseRule, expected: list[bool]) -> None:
    rows = [{"image_url": "u", "license": value} for value in LICENSES]
    assert licensed(rule, *rows) == expected
    absent = not (rule.path and (rule.allowed or rule.required))
    assert licensed(rule, {"image_url": "u"}) == [absent]


@pytest.mark.parametrize(
    ("photos", "allowed", "any_known"),
    [
        ([{"u": "1", "l": "cc-by"}, {"u": "2", "l": "CC BY"}], True, True),
        ([{"u": "1", "l": "cc-by"}, {"u": "2", "l": "cc0"}], False, True),
        ([{"u": "1", "l": "cc-by"}, {"u": "2", "l": None}], False, False),
        ([{"u": "1", "l": "cc-by"}, {"u": "2"}], False, False),
        ([{"u": "1"}, {"u": "2", "l": "cc-by"}], False, False),
        ([{"u": "1", "l": {"x": "cc-by"}}], False, False),
    ],
)
def test_of_several_photos_each_needs_its_licence(
    photos: list[dict[str, Any]], allowed: bool, any_known: bool
) -> None:
    row = {"taxon": {"photos": photos}}
    path = ("taxon", "photos", "l")
    assert licensed(LicenseRule(path, CC_BY), row, url="taxon.photos.u") == [allowed]
    required = LicenseRule(path, required=True)
    assert licensed(required, row, url="taxon.photos.u") == [any_known]


@pytest.mark.parametrize(
    ("value", "allowed"),
    [(["cc-by"], True), ([["CC BY"], "cc-by"], True), (["cc-by", "cc0"], False), (["cc-by", None], False)],
)  # fmt: skip
def test_licences_that_are_a_list_must_all_be_allowed(value: Any, allowed: bool) -> None:
    rule = LicenseRule(("license",), CC_BY)
    assert licensed(rule, {"image_url": "u", "license": value}) == [allowed]


def test_a_list_without_an_item_has_no_licence() -> None:
    rule = LicenseRule(("photos", "license"), CC_BY)
    assert licensed(rule, {"image_url": "u", "photos": []}) == [False]


def test_what_was_dropped_before_keeps_its_reason() -> None:
    rule = LicenseRule(("license",), CC_BY)
    batch = batch_of({"image_url": "u", "license": "C"}, others=rule.paths)
    assert judged(batch, [NOT], license=rule).judgement.reason.tolist() == [NOT]


def test_licences_are_shown_as_they_stand() -> None:
    rule = LicenseRule(("license",), CC_BY)
    rows = [{"image_url": "u", "license": value} for value in ("CC BY-NC", None, "x" * 100)]
    batch = batch_of(*rows, {"image_url": "u"}, others=rule.paths)
    shown = [rule.shown(batch, at) for at in range(4)]
    assert shown[0] == "'CC BY-NC'"
    assert shown[1] == shown[3] == "no licence"
    assert len(shown[2]) < 50


def set_aside(*rows: dict[str, Any], outcome: list[int], url: str = "image_url") -> list[int]:
    """Numbers of the records that would lose their original URL."""
    batch = batch_of(*rows, url=url)
    decision = judged(batch, outcome, missing="keep", replaces_urls=True)
    numbers = [record.number for record in decision.rejected]
    dropped = ~decision.judgement.kept & (decision.judgement.reason == OK)
    assert [at + 1 for at in np.flatnonzero(dropped)] == numbers
    return numbers


@pytest.mark.parametrize(
    ("record", "outcome", "refused"),
    [
        ({"image_url": "u"}, [OK], False),
        ({"image_url": "u", "source_url": "x"}, [OK], True),
        ({"image_url": "u", "source_url": "u"}, [OK], False),
        ({"image_url": "u", "source_url": None}, [OK], False),
        ({"image_url": "u", "source_url": ""}, [OK], False),
        ({"image_url": "u", "source_url": "x"}, [NOT], False),  # it is kept as it is
        ({"image_url": "u", "source_url": "x"}, [BAD], False),  # it is dropped for that
        ({"image_url": OWN, "source_url": "x"}, [OK], False),
        ({"image_url": ["u", OWN], "source_url": ["u", "x"]}, [OK, OK], False),
        ({"image_url": ["u", "v"], "source_url": ["u", "x"]}, [OK, NOT], True),
    ],
)
def test_an_original_url_is_never_lost(
    record: dict[str, Any], outcome: list[int], refused: bool
) -> None:
    before, after = {"image_url": "u"}, {"image_url": "u", "source_url": "y"}
    numbers = set_aside(before, record, after, outcome=[OK, *outcome, OK])
    assert numbers == ([2, 3] if refused else [3])
