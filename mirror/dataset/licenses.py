"""Parses licences as datasets spell them. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any, Final

# Texts that datasets use where no licence was granted, or where it is unknown.
_NOTHING: Final = re.compile(
    r"[^a-z]*"
    r"|none|null|nan|nil|na|n-a|false|c|cc|creative-commons|arr|other|missing|proprietary"
    r"|un(known|specified|defined|licen[cs]ed)|no-?licen[cs]ed?|no[tn]?-[a-z-]+"
    r"|(©|\(c\)|copyright(ed)?)(?!.*some-rights-reserved).*"
    r"|.*all-rights-reserved.*|.*\brightsstatements\.org\b.*"
)
_DEED: Final = re.compile(
    r"(?:https?://)?(?:www\.)?creativecommons\.org/"
    r"(?:licenses/(?P<license>[a-z-]+)|publicdomain/(?P<public>zero|mark))(?:/.*)?"
)
# 4.0, v4, the 4_0 of GBIF; then "International" or the country of a port may follow. Any other word
# may restrict the licence, so it stays in the name.
_PORT: Final = (
    r"(?!(?:by|nc|nd|sa)(?:-|$))[a-z]{2}|argentina|australia|austria|azerbaijan|belgium|brazil"
    r"|bulgaria|canada|chile|china-mainland|colombia|costa-rica|croatia|czech-republic|denmark|ecuador"
    r"|egypt|estonia|finland|france|germany|greece|guatemala|hong-kong|hungary|india|ireland|israel"
    r"|italy|japan|korea|south-korea|luxembourg|macedonia|malaysia|malta|mexico|netherlands|new-zealand"
    r"|norway|peru|philippines|poland|portugal|puerto-rico|romania|serbia|singapore|slovenia"
    r"|south-africa|spain|sweden|switzerland|taiwan|thailand|uganda|uk:?-england-(?:&|and)-wales"
    r"|uk:?-scotland|united-states|venezuela|vietnam|igo|intergovernmental-organi[sz]ations?"
)
_VERSION: Final = re.compile(
    r"-v?\d+(?:[.-]\d+)?\.?"
    rf"(?:-(?:international|unported|generic|universal|{_PORT}))?"
    r"(?:-(?:licen[cs]e|deed|legal-?code|public-domain-dedication))*$"
)
# Words → their abbreviations.
_LETTERS: Final = (
    (re.compile(r"^(the-)?creative-?commons-"), "cc-"),
    (re.compile(r"^(cc-)?attribution\b"), "cc-by"),
    (re.compile(r"\bnon-?commercial\b"), "nc"),
    (re.compile(r"\bshare-?alike\b"), "sa"),
    (re.compile(r"\bno-?deriv(ative)?s?(-works)?\b"), "nd"),
    (re.compile(r"^cc-?(zero|0)(?=-|$)"), "cc0"),
    (re.compile(r"^(cc-?)?(?=by(-|$))"), "cc-"),
    (re.compile(r"^public-domain-mark\b"), "pdm"),
)


def license_names(texts: Iterable[str]) -> frozenset[str]:
    """The licences in these texts, each a list separated by commas. Other words are left out."""
    names = [name for text in texts for name in text.split(",")]
    return frozenset(filter(None, map(license_name, names)))


def license_name(value: Any) -> str | None:
    """The name of a licence in one spelling, such as `cc-by-nc`; None if the value is no licence.

    `CC BY-NC 4.0`, `cc_by_nc`, `Attribution-NonCommercial` and the URL of the deed are the same
    licence; versions are not distinguished. "All rights reserved" is no licence.
    """
    if not isinstance(value, str):
        return None
    text = unicodedata.normalize("NFKC", value).strip().lower()
    if deed := _DEED.fullmatch(text):
        if deed["public"]:
            return "cc0" if deed["public"] == "zero" else "pdm"
        text = f"cc-{deed['license']}"
    text = re.sub(r"[\s_/\u2010-\u2015-]+", "-", text).strip("-")
    if _NOTHING.fullmatch(text):
        return None
    for words, letters in _LETTERS:
        text = words.sub(letters, text)
    return _VERSION.sub("", text)
