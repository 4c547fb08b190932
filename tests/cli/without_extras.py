"""Runs command lines in an interpreter that has no optional library; prints what each said."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr
from typing import Any

from tests.cli.test_base_install import ABSENT


class Without:
    """A finder of modules that does not find these libraries."""

    def __init__(self, finder: Any) -> None:
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] in ABSENT:
            return None
        return self._finder.find_spec(name, path, target)


def said(arguments: list[str]) -> tuple[int, str]:
    from mirror.cli.main import run

    errors = io.StringIO()
    with redirect_stderr(errors):
        status = run(arguments)
    return status, errors.getvalue()


def imported(module: str) -> tuple[int, str]:
    try:
        __import__(module)
    except ModuleNotFoundError as error:
        return 1, str(error)
    return 0, ""


if __name__ == "__main__":
    sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
    assert not ABSENT & {name.partition(".")[0] for name in sys.modules}
    real = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    results = [
        imported(words[1]) if words[0] == "import" else said(words)
        for words in json.load(sys.stdin)
    ]
    with os.fdopen(real, "w") as out:
        json.dump(results, out)
        out.flush()
    os._exit(0)
