"""Object storage: one contract, several engines, and wrappers that add to them.

base.py                 the contract, and the base class of wrappers
engines/                obstore.py (bulk bytes), aioboto3.py (botocore's compatibility), file.py (a folder)
retry.py                wrapper: retries
throttle.py             wrapper: concurrency, bandwidth, request counts
s3_access.py            boto3: credentials, region, diagnosis
object_store_options.py every option of obstore and deltalake
signing.py              presigned URLs
conditional_delete.py   DeleteObjects with a condition for each key
responses.py            one table from refused requests to our errors
read_back.py            read an object and hash it
unfinished.py           uploads and files that a killed writer left incomplete
bounded_tasks.py        concurrent tasks within limits
consecutive_failures.py when a run stops using a store that no longer answers
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mirror.config.settings import BucketSettings
from mirror.errors import ConfigError
from mirror.layout import BucketUrl

if TYPE_CHECKING:
    from mirror.store.base import Store
    from mirror.store.s3_access import S3Access

__all__ = ["open_store"]


def open_store(
    url: BucketUrl, access: S3Access | None, settings: BucketSettings, concurrency: int
) -> Store:
    """Open the engine for a bucket url, without any wrapper.

    Args:
        url: where the mirror is.
        access: credentials and endpoint; None for a mirror in a folder.
        settings: `engine` chooses. `auto` is obstore where it is installed, else aioboto3.
        concurrency: how many connections aioboto3 may keep open.

    Raises:
        ConfigError: the chosen engine is not installed, or the environment changes requests.
        BadCredentials: the AWS chain has none, or its provider fails.
    """
    if access is None:
        from mirror.store.engines.file import FileStore

        return FileStore(url)
    open_engine = _engine(access, settings, concurrency)
    from mirror.store.object_store_options import require_no_foreign_variables

    require_no_foreign_variables(access.credentials())
    return open_engine()


def _engine(access: S3Access, settings: BucketSettings, concurrency: int) -> Callable[[], Store]:
    """What opens the chosen engine. Raises: ConfigError if it is not installed."""
    if settings.engine in ("auto", "obstore"):
        try:
            from mirror.store.engines.obstore import ObstoreStore
        except ImportError:
            if settings.engine == "obstore":
                raise ConfigError(
                    "bucket.engine is obstore, which is not installed here; "
                    "pip install obstore, or choose aioboto3."
                ) from None
        else:
            return partial(ObstoreStore, access)
    try:
        from mirror.store.engines.aioboto3 import Aioboto3Store
    except ImportError:
        raise ConfigError(
            "The engine aioboto3 is not installed here; "
            'pip install "dataset-mirror[aioboto3]", or choose obstore.'
        ) from None
    return partial(Aioboto3Store, access, concurrency)
