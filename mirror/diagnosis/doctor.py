"""`mirror doctor`: all that a run relies on, looked at one by one, each with what to do about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mirror.catalog.open_mirror import Location
from mirror.catalog.root import read_root
from mirror.config.settings import Settings
from mirror.diagnosis import endpoint, folder, machine, public
from mirror.diagnosis.finding import Finding, fail, ok, skip
from mirror.errors import ConfigError, FormatError, MirrorError, NotFound
from mirror.layout import OBJECTS
from mirror.store.base import Store
from mirror.store.retry import Retrying
from mirror.store.s3_access import S3Access


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """How to look.

    Attributes:
        read_only: write no probes, for a key that may only read.
        now: seconds since 1970.
        clock: seconds of any origin.
        sleep: waits so many seconds.
    """

    read_only: bool = False
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def examine(settings: Settings, options: DoctorOptions = DoctorOptions()) -> Iterator[Finding]:
    """Every finding, as soon as it is made. Sends some fifty small requests, one after the other.

    Args:
        settings: where the cache, the bucket and the state are.
        options: how to look.

    Raises:
        ConfigError: `bucket.url` is absent or not understood.
    """
    url = settings.bucket_url
    usable = True
    if url.scheme == "file":
        found = folder.examine(settings, read_only=options.read_only)
    else:
        access = S3Access(url, settings.bucket)
        engine = "aioboto3" if settings.bucket.engine == "aioboto3" else "obstore"
        clocks = (options.now, options.clock, options.sleep)
        looked_at = endpoint.Endpoint(access, engine, *clocks)
        found = endpoint.examine(looked_at, read_only=options.read_only)
    for finding in found:
        usable = usable and (finding.status != "fail" or finding.name not in _NEEDED)
        yield finding
    yield from _mirror(settings) if usable else _nothing_of_a_mirror()
    yield machine.cache(settings)
    yield machine.state(settings)


_NEEDED = {"credentials", "endpoint", "bucket", "region", "clock", "folder", "list"}


def _nothing_of_a_mirror() -> Iterator[Finding]:
    for name in ("engine", "format", "public_url"):
        yield skip(name, "the bucket cannot be used")


def _mirror(settings: Settings) -> Iterator[Finding]:
    """What the engine sees: that it works at all, the format, an object for the public URL."""
    location = Location(settings)
    try:
        store = location.store()
    except ConfigError as error:
        fix = 'pip install "dataset-mirror[aioboto3]", or set bucket.engine = "auto".'
        yield fail("engine", str(error), fix, error.exit_status)
        yield skip("format", "there is no engine")
        yield skip("public_url", "there is no engine")
        return
    looked = asyncio.run(_look(store, wanted=bool(settings.bucket.public_url)))
    name = type(store).__module__.rpartition(".")[2]
    if isinstance(looked, MirrorError) and not isinstance(looked, (FormatError, NotFound)):
        fix = "The engine cannot do what boto3 can: set bucket.engine to the other one."
        yield fail("engine", f"{name}: {looked}", fix, looked.exit_status)
        yield skip("format", "because of the engine")
        yield skip("public_url", "because of the engine")
        return
    yield ok("engine", name)
    if isinstance(looked, FormatError):
        yield fail("format", str(looked), "Upgrade dataset-mirror, or choose another prefix.")
        yield skip("public_url", "because of the format")
        return
    if isinstance(looked, NotFound):
        yield ok("format", "no mirror yet: the first mirror sync makes it")
        looked = _Looked("", None, b"")
    else:
        yield ok("format", looked.format)
    if not settings.bucket.public_url:
        yield skip("public_url", "none is configured")
        return
    yield public.examine(settings.object_urls, looked.key, looked.body)


@dataclass(frozen=True, slots=True)
class _Looked:
    format: str
    key: str | None
    body: bytes


async def _look(store: Store, *, wanted: bool) -> _Looked | MirrorError:
    """The root, and an object if one is wanted; or the error that came instead."""
    patient = Retrying(store, endpoint.PATIENCE)
    try:
        root = await read_root(patient)
        page = await patient.list_page(OBJECTS, "") if wanted else []
        # The smallest: any will do.
        smallest = min(page, key=lambda info: info.size, default=None)
        body = await patient.get(smallest.key) if smallest else b""
        return _Looked(f"{root.format}, mirror {root.id}", smallest.key if smallest else None, body)
    except MirrorError as error:
        return error
    finally:
        await store.aclose()
