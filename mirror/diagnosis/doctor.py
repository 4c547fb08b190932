"""`mirror doctor`: check credentials, bucket, cache, state and public URL, and say how to fix them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mirror.catalog.index import Index
from mirror.catalog.open_mirror import Location
from mirror.catalog.root import read_root
from mirror.catalog.row import about_ignored
from mirror.config.settings import Settings
from mirror.diagnosis import bucket_checks, folder_checks, machine_checks, public_url
from mirror.diagnosis.endpoint import PATIENCE, Endpoint
from mirror.diagnosis.finding import Finding, fail, ok, skip, warn
from mirror.errors import ConfigError, FormatError, MirrorError, NotFound
from mirror.layout import OBJECTS
from mirror.store.base import Store
from mirror.store.retry import Retrying
from mirror.store.s3_access import S3Access


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """How to run the checks.

    Attributes:
        read_only: write no probes, for a key that may only read.
        now: seconds since 1970.
        clock: seconds of any origin.
        sleep: waits for a number of seconds.
    """

    read_only: bool = False
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def examine(settings: Settings, options: DoctorOptions = DoctorOptions()) -> Iterator[Finding]:
    """Run every check, and yield each finding at once. Sends about fifty small requests in sequence.

    Args:
        settings: where the cache, the bucket and the state are.
        options: how to run the checks.

    Raises:
        ConfigError: `bucket.url` is absent or malformed.
    """
    url = settings.bucket_url
    usable = True
    for key in settings.unencrypted:
        what = f"{key} begins with http://: the network can read and change every request"
        yield warn("encryption", what, "Use https://, or a tunnel that ends on this machine.")
    if url.scheme == "file":
        found = folder_checks.examine(settings, read_only=options.read_only)
    else:
        access = S3Access(url, settings.bucket)
        engine = "aioboto3" if settings.bucket.engine == "aioboto3" else "obstore"
        clocks = (options.now, options.clock, options.sleep)
        endpoint = Endpoint(access, engine, *clocks)
        found = bucket_checks.examine(endpoint, read_only=options.read_only)
    for finding in found:
        usable = usable and (finding.status != "fail" or finding.name not in _NEEDED)
        yield finding
    yield from _mirror(settings) if usable else _no_mirror()
    yield machine_checks.cache(settings)
    yield machine_checks.state(settings)


# Without these the mirror itself cannot be read.
_NEEDED = {"credentials", "endpoint", "bucket", "region", "clock", "folder", "list"}


def _no_mirror() -> Iterator[Finding]:
    for name in ("engine", "format", "public_url"):
        yield skip(name, "the bucket cannot be used")


def _mirror(settings: Settings) -> Iterator[Finding]:
    """Check the mirror through the engine: that the engine works, the format, the public URL."""
    location = Location(settings)
    try:
        store = location.store()
    except ConfigError as error:
        fix = 'pip install "dataset-mirror[aioboto3]", or set bucket.engine = "auto".'
        yield fail("engine", str(error), fix, error.exit_status)
        yield skip("format", "there is no engine")
        yield skip("public_url", "there is no engine")
        return
    sample = asyncio.run(_sample(location, store, with_object=bool(settings.bucket.public_url)))
    name = type(store).__module__.rpartition(".")[2]
    if isinstance(sample, MirrorError) and not isinstance(sample, (FormatError, NotFound)):
        fix = "The engine cannot do what boto3 can: set bucket.engine to the other one."
        yield fail("engine", f"{name}: {sample}", fix, sample.exit_status)
        yield skip("format", "because of the engine")
        yield skip("public_url", "because of the engine")
        return
    yield ok("engine", name)
    if isinstance(sample, FormatError):
        yield fail("format", str(sample), "Upgrade dataset-mirror, or choose another prefix.")
        yield skip("public_url", "because of the format")
        return
    if isinstance(sample, NotFound):
        yield ok("format", "no mirror yet: the first mirror sync creates it")
        sample = _Sample("", None, b"", {})
    else:
        yield ok("format", sample.format)
        if sample.ignored:
            yield warn("catalog", *about_ignored(sample.ignored))
    if not settings.bucket.public_url:
        yield skip("public_url", "none is configured")
        return
    yield public_url.examine(settings.object_urls, sample.key, sample.body)


@dataclass(frozen=True, slots=True)
class _Sample:
    """The data that the engine read: the root's format, and an object if one was wanted.

    `ignored` has the rows that do not count, by data file, as far as this machine has read the catalog.
    """

    format: str
    key: str | None
    body: bytes
    ignored: dict[str, int]


async def _sample(location: Location, store: Store, *, with_object: bool) -> _Sample | MirrorError:
    """Read the root, and the smallest of the first objects; or return the error that came instead."""
    retrying = Retrying(store, PATIENCE)
    try:
        root = await read_root(retrying)
        page = await retrying.list_page(OBJECTS, "") if with_object else []
        smallest = min(page, key=lambda info: info.size, default=None)
        body = await retrying.get(smallest.key) if smallest else b""
        key = smallest.key if smallest else None
        ignored = Index.load(location.snapshots(root)).ignored
        return _Sample(f"{root.format}, mirror {root.id}", key, body, ignored)
    except MirrorError as error:
        return error
    finally:
        await store.aclose()
