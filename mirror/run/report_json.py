"""A report as JSON, whatever bytes are in the paths and URLs that it names."""

from __future__ import annotations

import re
from typing import Any

import msgspec


def encoded(report: dict[str, Any]) -> bytes:
    """The report in UTF-8; what no UTF-8 can hold stands there by its code, as `scan.display` has it."""
    try:
        return msgspec.json.encode(report)
    except UnicodeEncodeError:
        import json

        text = json.dumps(msgspec.to_builtins(report), ensure_ascii=False)
        return re.sub("[\ud800-\udfff]", lambda odd: rf"\\u{ord(odd[0]):04x}", text).encode()
