"""Every error this package raises on purpose, and the exit status each one means.

    MirrorError                      1
    ├── UsageError                   2   the command line asks for something impossible
    ├── ConfigError                 78   mirror.toml, environment or flags are wrong
    ├── Busy                        75   another run holds the lock
    ├── Interrupted                130   Ctrl-C or SIGTERM; acknowledged files are committed
    ├── OutputError                  1   standard output cannot be written: a full disk, a lost mount
    ├── CacheError                   1   the cache folder cannot be read or written
    ├── StateError                   1   the local state cannot be read or written
    │   └── StateDamaged                 … because the SQLite file is malformed
    ├── DatasetError                 1   a dataset breaks a limit that the user set
    │   ├── NothingLeft                  … the new dataset would have no records
    │   └── TooManyBadSamples            … noticed while training on it
    ├── FormatError                  1   the bucket has a format this version does not know
    ├── CatalogError                 1   the catalog could not be read or written
    ├── ContentCollision             1   two contents share one xxh3-128 but not one SHA-256
    ├── FetchError                   1   an image cannot be read as the catalog describes it
    │   ├── NotMirrored                  the mirror has never seen the URL
    │   ├── Flagged                      the mirror has seen it, but has no good image of it
    │   ├── CorruptObject                the object's bytes do not match the catalog
    │   ├── Undecodable                  the bytes match, but the decoder refuses them
    │   ├── OriginBlocked                the request would have left the mirror
    │   └── StoreUnavailable             the store does not deliver the object now
    │       └── NotCached                … and the fetcher is offline: it may only read local caches
    └── StoreError                   1   the object store refused, or cannot be reached
        ├── NotFound                     no such key
        ├── AlreadyExists                conditional PUT: the key is taken
        ├── PreconditionFailed           conditional PUT: the ETag has changed
        ├── Transient                    another attempt may succeed
        │   ├── Throttled                429, 503, 5xx: all requests must slow down
        │   ├── Unreachable              connection refused or reset, timeout, DNS
        │   └── Conflict                 409 on a conditional PUT: try again
        └── StoreSetupError              no attempt with these settings can succeed
            ├── AccessDenied                 the credentials may not do this
            ├── BadCredentials      78       the store does not accept the credentials
            ├── BucketMissing                there is no such bucket
            ├── WrongRegion         78       the bucket is in another region
            ├── NotAnS3Server       78       a web server answers, not an S3 server
            ├── Untrusted                    the certificate is not trusted, or another host's
            ├── ClockSkew                    the clock of this machine is wrong
            └── ConditionalPutIgnored        the store ignores If-None-Match

The message of an error is one sentence: what happened and what to do. Exceptions of other libraries
are translated where they occur (`mirror.store.engines.obstore` and others), so no other code sees
them. All errors pickle, because their arguments are positional.
"""

from __future__ import annotations

from typing import Any

EXIT_DONE = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_BUSY = 75
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130


class MirrorError(Exception):
    """Base of all errors that this package raises on purpose.

    Attributes:
        exit_status: what the command line ends with.
        report: what a verb of `Mirror` had done when the error ended it; None elsewhere.
    """

    exit_status = EXIT_ERROR
    report: Any = None  # a `mirror.Report`, which stands above this file


def exit_status_of(error: MirrorError | None, *, interrupted: bool, failed: bool) -> int:
    """Return the exit status of a run: an error first, then an interruption, then failed items."""
    if error is not None:
        return error.exit_status
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_SOME_FAILED if failed else EXIT_DONE


class UsageError(MirrorError):
    exit_status = EXIT_USAGE


class ConfigError(MirrorError):
    exit_status = EXIT_CONFIG


class Busy(MirrorError):
    exit_status = EXIT_BUSY


class Interrupted(MirrorError):
    exit_status = EXIT_INTERRUPTED


class OutputError(MirrorError):
    pass


class CacheError(MirrorError):
    pass


class StateError(MirrorError):
    pass


class StateDamaged(StateError):
    pass


class DatasetError(MirrorError):
    pass


class NothingLeft(DatasetError):
    """The output would have no records, so nothing was written."""


class TooManyBadSamples(DatasetError):
    pass


class FormatError(MirrorError):
    pass


class CatalogError(MirrorError):
    pass


class ContentCollision(MirrorError):
    pass


class FetchError(MirrorError):
    """Raised by the fetch layer for one image. It never returns a substitute image."""


class NotMirrored(FetchError):
    pass


class Flagged(FetchError):
    """Args: message; verdict, the one in the catalog."""

    def __init__(self, message: str, verdict: str = "") -> None:
        super().__init__(message, verdict)
        self.verdict = verdict

    def __str__(self) -> str:
        return str(self.args[0])


class CorruptObject(FetchError):
    pass


class Undecodable(FetchError):
    pass


class OriginBlocked(FetchError):
    pass


class StoreUnavailable(FetchError):
    pass


class NotCached(StoreUnavailable):
    pass


class StoreError(MirrorError):
    pass


class NotFound(StoreError):
    pass


class AlreadyExists(StoreError):
    pass


class PreconditionFailed(StoreError):
    pass


class Transient(StoreError):
    """Args: message; retry_after, the pause in seconds that the server asked for, or None."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class Throttled(Transient):
    pass


class Unreachable(Transient):
    pass


class Conflict(Transient):
    pass


class StoreSetupError(StoreError):
    pass


class AccessDenied(StoreSetupError):
    pass


class BadCredentials(StoreSetupError):
    exit_status = EXIT_CONFIG


class BucketMissing(StoreSetupError):
    pass


class WrongRegion(StoreSetupError):
    exit_status = EXIT_CONFIG


class NotAnS3Server(StoreSetupError):
    exit_status = EXIT_CONFIG


class Untrusted(StoreSetupError):
    """The server's certificate is not from a trusted authority, or belongs to another host."""


class ClockSkew(StoreSetupError):
    pass


class ConditionalPutIgnored(StoreSetupError):
    pass
