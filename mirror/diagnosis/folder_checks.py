"""Can this folder hold a mirror? The checks of a bucket that apply to a folder too."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from mirror.config.settings import Settings
from mirror.diagnosis.finding import Finding, fail, ok, run_check, skipped, what_happened
from mirror.errors import AlreadyExists, ConfigError, PreconditionFailed
from mirror.layout import PROBES
from mirror.store.base import Create, Headers, IfMatch
from mirror.store.engines.file import FileStore

_WRITE_FIX: Final = "Make the folder writable for this user, or correct bucket.url."
_CHECKS: Final = ("write", "read", "if-none-match", "if-match", "delete")


def examine(settings: Settings, *, read_only: bool) -> Iterator[Finding]:
    """Run all checks of a mirror's folder, and yield each finding at once.

    Args:
        settings: `bucket.url` is a `file://` URL.
        read_only: write no probes.
    """
    url = settings.bucket_url
    folder = Path(url.path)
    try:
        settings.require_apart()
    except ConfigError as error:
        fix = "Choose a folder beside the cache for bucket.url."
        yield fail("folder", what_happened(error), fix, error.exit_status)
        yield from skipped(_CHECKS, "because of the folder")
        return
    if read_only or not folder.exists():
        nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
        mode = os.R_OK if read_only else os.W_OK
        if nearest != folder and read_only:
            fix = "Is its disk mounted? Correct bucket.url."
            yield fail("folder", f"{folder} is not there", fix)
        elif not os.access(nearest, mode | os.X_OK):
            yield fail("folder", f"this user has no access to {nearest}", _WRITE_FIX)
        else:
            what = f"{folder} is there" if nearest == folder else f"{folder} will be made"
            yield ok("folder", what)
        yield from skipped(_CHECKS, "--read-only" if read_only else "there is no folder yet")
        return
    yield ok("folder", f"{folder} is there")
    store, name = FileStore(url), f"{PROBES}{secrets.token_hex(8)}"
    try:
        written = run_check("write", lambda: _write(store, name), _WRITE_FIX)
        yield written
        if written.status == "fail":
            yield from skipped(_CHECKS[1:], "nothing can be written")
            return
        yield run_check("read", lambda: _read(store, name), "Check this disk for faults.")
        yield run_check("if-none-match", lambda: _create(store, name), _WRITE_FIX)
        yield run_check("if-match", lambda: _if_match(store, name), _WRITE_FIX)
    finally:
        deleted = run_check("delete", lambda: _delete(store, name, folder), _WRITE_FIX)
    yield deleted


def _run(request: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(request)


def _write(store: FileStore, name: str) -> Finding:
    _run(store.put(name, b"first", Create(), Headers()))
    return ok("write", f"a probe below {PROBES}")


def _read(store: FileStore, name: str) -> Finding:
    if _run(store.get(name)) != b"first":
        return fail(
            "read", "other bytes came back than were written", "Check this disk for faults."
        )
    return ok("read", "the same bytes")


def _create(store: FileStore, name: str) -> Finding:
    with suppress(AlreadyExists):
        _run(store.put(name, b"second", Create(), Headers()))
        return fail("if-none-match", "a name that is taken was overwritten", "Use another disk.")
    return ok("if-none-match", "a name that is taken is refused")


def _if_match(store: FileStore, name: str) -> Finding:
    with suppress(PreconditionFailed):
        _run(store.put(name, b"second", IfMatch('"0"'), Headers()))
        return fail("if-match", "a file that has changed was overwritten", "Use another disk.")
    return ok("if-match", "a file that has changed is refused")


def _delete(store: FileStore, name: str, folder: Path) -> Finding:
    for error in _run(store.delete([name])).values():
        raise error
    with suppress(OSError):
        (folder / PROBES).rmdir()
    return ok("delete", "the probes are gone")
