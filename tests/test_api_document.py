"""docs/api.md names every public name, and its examples run."""

from __future__ import annotations

import ast
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

import mirror
import mirror.fetch
import mirror.testing
from mirror import AsyncFetcher, Fetcher, Mirror, Progress, Report, errors
from tests.support.photos import blank, fill, photo, url_of

TEXT = (Path(__file__).parents[1] / "docs" / "api.md").read_text()
EXAMPLES = re.findall(r"(<!-- not run -->\n)?```python\n(.*?)```", TEXT, re.DOTALL)


def members(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def test_every_public_name_is_documented() -> None:
    names = {*mirror.__all__, *mirror.fetch.__all__, "FakeFetcher"}
    for kind in (Mirror, Fetcher, AsyncFetcher, Progress, Report):
        names |= members(kind)
    torch = pytest.importorskip("mirror.torch")
    names |= set(torch.__all__)
    assert not sorted(name for name in names if not re.search(rf"\b{name}\b", TEXT))


def test_the_tree_of_errors_is_that_of_the_code() -> None:
    assert errors.__doc__ is not None
    tree = re.search(r"```text\n(MirrorError.*?)```", TEXT, re.DOTALL)
    assert tree is not None
    assert textwrap.indent(tree[1], "    ") in errors.__doc__ + "\n"


def test_the_examples_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clean_environment: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    urls = [url_of(number) for number in range(1, 13)]
    fill(tmp_path / "cache", {url: photo(at) for at, url in enumerate(urls)})
    fill(tmp_path / "cache", {url_of(13): blank()})
    records = [{"image_url": url, "species": "oak"} for url in urls]
    (tmp_path / "raw.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in records))
    (tmp_path / "mirror.toml").write_text(
        f'cache.dir = "cache"\nbucket.url = "file://{tmp_path}/mirror"\nstate.dir = "state"\n'
    )
    names: dict[str, Any] = {"url": urls[0], "urls": urls}
    for is_not_run, example in EXAMPLES:
        ast.parse(example)
        if not is_not_run:
            exec(example, names)
    assert capsys.readouterr().out
