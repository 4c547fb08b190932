"""Unfinished writes that killed writers left: parts of uploads in a bucket, files in a folder.

They are not objects and no listing of objects shows them, but the bucket's owner pays for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mirror.layout import CATALOG, OBJECTS, PROBES, BucketUrl, is_mirrors_own
from mirror.store.engines.file import is_temporary
from mirror.store.s3_access import S3Access, translate_botocore

# Answers of servers that do not support the request.
_UNSUPPORTED = {400, 404, 405, 501}
_FOLDERS = (OBJECTS, f"{CATALOG}/", PROBES)


class Unfinished(NamedTuple):
    """One unfinished write.

    Attributes:
        key: of the object that was being written, relative to the mirror.
        name: the upload's id, or the path of the temporary file.
    """

    key: str
    name: str


class UnfinishedWrites(Protocol):
    """Finds and removes unfinished writes. Its methods block: call them in a thread."""

    def find(self, before: datetime) -> list[Unfinished] | None:
        """List writes that began before a time; None where the server cannot list them."""
        ...

    def remove(self, write: Unfinished) -> None:
        """Remove an unfinished write; one that is gone already is no error."""
        ...


class UnfinishedInBucket:
    """Multipart uploads of a mirror's keys that were neither completed nor aborted.

    Other programs may upload to the same bucket, and below the same prefix. Only the keys that a
    mirror writes are listed.
    """

    def __init__(self, access: S3Access) -> None:
        self._access = access
        self._prefix = access.prefix

    def find(self, before: datetime) -> list[Unfinished] | None:
        found: list[Unfinished] = []
        client = self._access.client()
        for folder in _FOLDERS:
            uploads = self._find_below(client, folder, before)
            if uploads is None:
                return None
            found += uploads
        return found

    def _find_below(self, client: Any, folder: str, before: datetime) -> list[Unfinished] | None:
        from botocore.exceptions import BotoCoreError, ClientError

        found: list[Unfinished] = []
        where: dict[str, Any] = {
            "Bucket": self._access.url.bucket,
            "Prefix": f"{self._prefix}{folder}",
        }
        while True:
            try:
                page = client.list_multipart_uploads(**where)
            except ClientError as error:
                if error.response["ResponseMetadata"].get("HTTPStatusCode") in _UNSUPPORTED:
                    return None
                raise translate_botocore(error, "LIST uploads") from None
            except BotoCoreError as error:
                raise translate_botocore(error, "LIST uploads") from None
            found += [
                Unfinished(upload["Key"].removeprefix(self._prefix), upload["UploadId"])
                for upload in page.get("Uploads", ())
                if upload["Key"].startswith(where["Prefix"])
                and is_mirrors_own(upload["Key"].removeprefix(self._prefix))
                and upload["Initiated"] < before
            ]
            if not page.get("IsTruncated"):
                return found
            where["KeyMarker"] = page["NextKeyMarker"]
            where["UploadIdMarker"] = page["NextUploadIdMarker"]

    def remove(self, write: Unfinished) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._access.client().abort_multipart_upload(
                Bucket=self._access.url.bucket, Key=self._prefix + write.key, UploadId=write.name
            )
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "NoSuchUpload":
                raise translate_botocore(error, f"ABORT {write.key}") from None
        except BotoCoreError as error:
            raise translate_botocore(error, f"ABORT {write.key}") from None


class UnfinishedInFolder:
    """Temporary files in a mirror's folder, below the folders that only a mirror writes."""

    def __init__(self, url: BucketUrl) -> None:
        self._root = Path(url.path)

    def find(self, before: datetime) -> list[Unfinished]:
        return list(self._walk(before))

    def _walk(self, before: datetime) -> Iterator[Unfinished]:
        for ours in _FOLDERS:
            for folder, _, names in os.walk(self._root / ours):
                for path in (Path(folder) / name for name in names if is_temporary(name)):
                    with suppress(FileNotFoundError):
                        if datetime.fromtimestamp(path.lstat().st_mtime, UTC) < before:
                            yield Unfinished(str(path.relative_to(self._root)), str(path))

    def remove(self, write: Unfinished) -> None:
        Path(write.name).unlink(missing_ok=True)


def unfinished_writes(url: BucketUrl, access: S3Access | None) -> UnfinishedWrites:
    """The unfinished writes of a mirror. `access` is None for a mirror in a folder."""
    return UnfinishedInFolder(url) if access is None else UnfinishedInBucket(access)
