"""Licences as datasets spell them. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

# What datasets put where nobody has granted anything.
_NONE: Final = {"", "none", "null", "nan", "unknown", "c", "all-rights-reserved", "copyright", "©"}
_DEED: Final = re.compile(
    r"(?:https?://)?(?:www\.)?creativecommons\.org/"
    r"(?:licenses/(?P<license>[a-z-]+)|publicdomain/(?P<public>zero|mark))(?:/.*)?"
)
_VERSION: Final = re.compile(r"-\d+\.\d+(-[a-z-]+)?$")


def license_name(value: Any) -> str | None:
    """A licence's name in one spelling, such as `cc-by-nc`; None where there is none.

    `CC BY-NC 4.0`, `cc_by_nc` and the address of the deed are all the same licence: which version
    of it is not told apart. "All rights reserved" is no licence.
    """
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    if deed := _DEED.fullmatch(text):
        if deed["public"]:
            return "cc0" if deed["public"] == "zero" else "pdm"
        return f"cc-{deed['license']}"
    text = re.sub(r"[\s_/-]+", "-", text).strip("-")
    text = _VERSION.sub("", text)
    text = re.sub(r"^cc-?(zero|0)$", "cc0", text)
    text = re.sub(r"^cc(?=by)", "cc-", text)
    return None if text in _NONE else text
