"""A report as JSON, whatever bytes its paths and URLs contain."""

from __future__ import annotations

import re
from typing import Any

import msgspec


def encoded(report: dict[str, Any]) -> bytes:
    """The report in UTF-8. Bytes that are not UTF-8 appear as codes, such as `\\udcff`."""
    try:
        return msgspec.json.encode(report)
    except UnicodeEncodeError:
        import json

        text = json.dumps(msgspec.to_builtins(report), ensure_ascii=False)
        return re.sub("[\ud800-\udfff]", lambda odd: rf"\\u{ord(odd[0]):04x}", text).encode()
