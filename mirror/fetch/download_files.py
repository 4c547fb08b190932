"""`mirror fetch`: download images to a folder, with the file names of a URL-keyed cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mirror.content.image import inspect
from mirror.errors import EXIT_DONE, EXIT_SOME_FAILED, Flagged, NotMirrored, UsageError
from mirror.fetch.client import Fetcher
from mirror.fetch.image_lookup import reason, shown
from mirror.layout import FORMATS, url_md5
from mirror.run.failures import Failures
from mirror.system.files import replacing_bytes

_LISTED: Final = 20


@dataclass
class SaveReport:
    """The result of `mirror fetch`.

    Attributes:
        fetched: number of images fetched.
        bytes: their size.
        missing: URLs that are not mirrored, or flagged.
        failed: URLs that could not be read.
        failures: the first missing and failed URLs, as `(URL, reason)`.
        written: paths of the first files written.
    """

    fetched: int = 0
    bytes: int = 0
    missing: int = 0
    failed: int = 0
    failures: Failures = field(default_factory=Failures)
    written: list[Path] = field(default_factory=list)

    @property
    def lacking(self) -> int:
        return self.missing + self.failed

    @property
    def exit_status(self) -> int:
        return EXIT_SOME_FAILED if self.lacking else EXIT_DONE

    def as_json(self) -> dict[str, Any]:
        return {
            "fetched": self.fetched,
            "missing": self.missing,
            "failed": self.failed,
            "bytes": self.bytes,
            "failures": [{"url": url, "reason": reason} for url, reason in self.failures],
            "written": [str(path) for path in self.written],
        }


def save(fetch: Fetcher, urls: Sequence[str], folder: Path | None) -> SaveReport:
    """Fetch images, and write them to a folder.

    Args:
        fetch: the fetcher to read with.
        urls: URLs in any form that a fetcher takes.
        folder: the folder to write to, made if it is not there; None only reads and verifies.

    Raises:
        UsageError: the folder cannot be written.
        MirrorError: no image can be read: wrong credentials, no bucket, …
    """
    report = SaveReport()
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{folder} cannot be made ({error.strerror}); name another folder."
            ) from None
    for url, result in fetch.many(urls):
        if isinstance(result, bytes):
            report.fetched += 1
            report.bytes += len(result)
            if folder is not None:
                _write(report, folder, url, result)
        else:
            if isinstance(result, NotMirrored | Flagged):
                report.missing += 1
            else:
                report.failed += 1
            report.failures.note(shown(url), reason(result))
    return report


def _write(report: SaveReport, folder: Path, url: str, data: bytes) -> None:
    extension = FORMATS[inspect(data, "off").format][0]
    path = folder / f"{url_md5(url).hex()}.{extension}"
    with replacing_bytes(path, follow=False) as file:
        file.write(data)
    if len(report.written) < _LISTED:
        report.written.append(path)
