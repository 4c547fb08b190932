"""Licences in one spelling."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.dataset.licenses import license_name


@pytest.mark.parametrize(
    ("name", "spellings"),
    [
        ("cc-by", ["cc-by", "CC BY 4.0", " cc_by\n", "CC_BY_4_0", "CC-BY-4.0", "cc-by-v4", "ccby",
                   "CC BY 3.0 US", "CC BY 4.0 International", "cc-by-4.0.", "CC\u2011BY", "CC BY",
                   "http://creativecommons.org/licenses/by/4.0/", "by",
                   "https://www.creativecommons.org/licenses/by/4.0/legalcode.es",
                   "creativecommons.org/licenses/by", "Attribution", "Attribution 4.0 International",
                   "Creative Commons Attribution", "CC BY 3.0 United States", "CC BY 4.0 License",
                   "Attribution 2.0 UK: England & Wales"]),
        ("cc-by-nc", ["CC BY-NC 4.0", "cc_by_nc", "CC_BY_NC_4_0", "cc by nc", "by-nc",
                      "HTTPS://CREATIVECOMMONS.ORG/LICENSES/BY-NC/4.0/",
                      "Attribution-NonCommercial 4.0 International"]),
        ("cc-by-sa", ["CC BY-SA 3.0 IGO", "Creative Commons Attribution Share Alike"]),
        ("cc-by-nd", ["cc-by-nd", "Attribution-NoDerivs 2.0 Generic",
                      "Creative Commons Attribution-NoDerivatives"]),
        ("cc-by-nc-sa", ["cc-by-nc-sa", "Creative Commons Attribution-NonCommercial-ShareAlike 4.0"]),
        ("cc-by-nc-nd", ["CC-BY-NC-ND-2.5-CH", "https://creativecommons.org/licenses/by-nc-nd/2.5/ch/"]),
        ("cc0", ["cc0", "CC0 1.0", "CC0_1_0", "CC0 1.0 Universal", "CC-0", "cc zero",
                 "https://creativecommons.org/publicdomain/zero/1.0/"]),
        ("pdm", ["http://creativecommons.org/publicdomain/mark/1.0/", "Public Domain Mark 1.0"]),
        ("pd", ["PD"]),
        ("odbl", ["ODbL", "odbl-1.0"]),
        ("mit", ["MIT"]),
    ],
)  # fmt: skip
def test_one_licence_has_one_name(name: str, spellings: list[str]) -> None:
    assert {spelling: license_name(spelling) for spelling in spellings} == dict.fromkeys(
        spellings, name
    )


@pytest.mark.parametrize(
    "value",
    [
        None, 0, 1, True, 4.0, [], ["cc-by"], {}, b"cc-by",
        "", " ", "-", "?", "©", "4.0", "none", "None", "null", "NaN", "N/A", "n/a", "unknown",
        "undefined", "unspecified", "unlicensed", "not specified", "not_licensed", "No license",
        "no-licence", "NOLICENSE", "no rights", "C", "(c)", "(c) Jane Doe", "© Jane Doe", "Copyright 2020",
        "copyrighted", "ARR", "All Rights Reserved", "all_rights_reserved.", "other", "cc",
        "(c) Jane Doe, all rights reserved", "http://rightsstatements.org/vocab/InC/1.0/",
    ],
)  # fmt: skip
def test_what_grants_nothing_is_no_licence(value: Any) -> None:
    assert license_name(value) is None


@pytest.mark.parametrize(
    "text",
    [
        "CC BY 4.0 NonCommercial", "CC-BY-4.0-NC-ND", "Attribution 3.0 NonCommercial", "cc-by-4.0-sa",
        "CC BY 3.0 not for commercial use", "cc by 4.0 no derivatives", "CC BY 4.0 nd",
        "CC BY 4.0 International, except photos", "cc0 1.0 except-photos",
    ],
)  # fmt: skip
def test_what_follows_a_version_may_take_back_what_it_grants(text: str) -> None:
    assert license_name(text) not in ("cc-by", "cc0")


@given(st.from_regex(r"(cc|by|nc|sa|nd|[ _/-]|[0-9]|\.)*", fullmatch=True), st.text(" _\t"))
def test_case_and_blanks_do_not_matter(text: str, blanks: str) -> None:
    name = license_name(text)
    assert name != ""
    assert license_name(blanks + text.upper().replace("-", "_") + blanks) == name


@given(st.text())
def test_any_text_has_a_name_or_none(text: str) -> None:
    assert license_name(text) != ""
