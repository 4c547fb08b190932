"""Caches with bad files in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mirror.config.settings import IMAGE_EXTENSIONS
from mirror.inspection.inspect_cache import Findings, JudgedFile, inspect_cache
from tests.support.photos import blank, fill, name_of, photo, url_of

HTML = b"<!DOCTYPE html><script>alert(1)</script>"


def make(folder: Path) -> dict[str, str]:
    """Make a cache with every verdict. Returns the verdict of each path."""
    bodies = {url_of(n): photo(n) for n in range(10)}
    verdicts = {name_of(url): "ok" for url in bodies}
    bad = {
        "blank": [blank(), blank(100), blank(quality=60)],
        "corrupt": [photo(50)[:-200], photo(51)[: len(photo(51)) // 2] + b"\xff\xd9"],
        "not_image": [b"", HTML, b'{"error": 429}', b"nothing known"],
        "placeholder": [photo(99)] * 6,
    }
    number = 100
    for verdict, contents in bad.items():
        for body in contents:
            bodies[url_of(number)] = body
            verdicts[name_of(url_of(number))] = verdict
            number += 1
    fill(folder, bodies)
    (folder / "README.txt").write_text("ignored")
    return verdicts


def put(folder: Path, number: int, body: bytes, below: str | bytes = "") -> bytes:
    """Add a file, in a sub-folder if given. Returns its path in the cache."""
    name = os.fsencode(name_of(url_of(number)))
    path = os.path.join(os.fsencode(below), name)
    whole = os.path.join(os.fsencode(folder), path)
    os.makedirs(os.path.dirname(whole), exist_ok=True)
    with open(whole, "wb") as file:
        file.write(body)
    return path


@contextmanager
def inspected(folder: Path, **options: Any) -> Iterator[Findings]:
    with inspect_cache(os.fsencode(folder), IMAGE_EXTENSIONS, **options) as findings:
        yield findings


def judged(folder: Path, **options: Any) -> dict[str, JudgedFile]:
    with inspected(folder, **options) as findings:
        return {os.fsdecode(one.path): one for one in findings.files()}


def files_of(folder: Path) -> dict[str, bytes]:
    """The bytes of every plain file below, by path, without the files of the quarantine itself."""
    own = ("manifest.jsonl", ".lock", ".lock.holder")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in own
    }
