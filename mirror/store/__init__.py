"""Object stores: one contract (`base`), engines that keep it, wrappers that add to it.

base.py       the contract: put, get, head, list, delete, sign, and its wrapper base
obstore.py    engine: bulk bytes          aioboto3.py   engine: botocore's compatibility
file.py       engine: a folder            control.py    boto3: credentials, region, diagnosis
retry.py      wrapper: another attempt    throttle.py   wrapper: concurrency, bandwidth, count
responses.py  one table from HTTP refusals to our errors
"""

from __future__ import annotations

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
    """The bare engine for a bucket url: `file.py` for a folder, else what `bucket.engine` says.

    Args:
        url: where the mirror is.
        access: who asks; None for a folder.
        settings: `engine` chooses; `auto` is obstore where it is installed, else aioboto3.
        concurrency: connections that aioboto3 may keep.

    Raises:
        ConfigError: the engine that was asked for is not installed.
    """
    if access is None:
        from mirror.store.engines.file import FileStore

        return FileStore(url)
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
            return ObstoreStore(access)
    try:
        from mirror.store.engines.aioboto3 import Aioboto3Store
    except ImportError:
        raise ConfigError(
            "The engine aioboto3 is not installed here; "
            'pip install "dataset-mirror[aioboto3]", or choose obstore.'
        ) from None
    return Aioboto3Store(access, concurrency)
