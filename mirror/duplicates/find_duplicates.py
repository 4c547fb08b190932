"""`mirror duplicates` as a function: the copies of one photograph, in a cache or in a mirror."""

from __future__ import annotations

import asyncio
import csv
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from mirror.cache.scan import display
from mirror.catalog.index import Index
from mirror.catalog.index.cached_images import CachedImages
from mirror.catalog.open_mirror import open_mirror, read_index
from mirror.config.settings import Settings
from mirror.content import digest
from mirror.content.digest import WHOLE_UP_TO
from mirror.content.image import VERDICTS
from mirror.duplicates.copy_groups import usable
from mirror.duplicates.duplicates_page import PageHeading, Place, write_page
from mirror.duplicates.photo_groups import Copy, PhotoGroup, photo_groups
from mirror.errors import EXIT_DONE, EXIT_SOME_FAILED, MirrorError
from mirror.inspection.csv_report import no_formula
from mirror.inspection.inspect_cache import inspect_cache, inspection_arguments
from mirror.inspection.inspection_report import opened_page
from mirror.layout import object_key
from mirror.run.failures import Failures
from mirror.run.progress import Progress
from mirror.system.display_text import printable

COLUMNS: Final = ("group", "image", "content_hash", "format", "width", "height", "size", "distance")
# Names of one content that the JSON lists; the CSV has all.
_NAMES: Final = 10


@dataclass
class DuplicatesReport:
    """The copies that were found.

    Attributes:
        place: where: `cache` or `mirror`.
        checked: files of the cache, or URLs of the mirror.
        counts: those by verdict. Only `ok` images are compared.
        contents: different `ok` contents.
        without_phash: contents without a perceptual hash that counts. Only equal bytes and one photo's
            number join them with others.
        near_groups: groups with several contents.
        redundant: images beyond the first of each group.
        groups: groups of images of one photograph, those of the most images first.
        warnings: sentences about groups to look at.
        failed: files that could not be read.
        failures: the first of them.
    """

    place: Place
    checked: int = 0
    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(VERDICTS, 0)))
    contents: int = 0
    without_phash: int = 0
    near_groups: int = 0
    redundant: int = 0
    groups: list[PhotoGroup] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failed: int = 0
    failures: Failures = field(default_factory=Failures)
    seconds: float = 0.0

    @property
    def exit_status(self) -> int:
        return EXIT_SOME_FAILED if self.failed else EXIT_DONE

    def as_json(self) -> dict[str, Any]:
        return {
            "place": self.place,
            "checked": self.checked,
            **{str(verdict): number for verdict, number in self.counts.items()},
            "contents": self.contents,
            "without_phash": self.without_phash,
            "near_groups": self.near_groups,
            "redundant": self.redundant,
            "groups": [_group_as_json(group) for group in self.groups],
            "warnings": self.warnings,
            "failed": self.failed,
            "failures": self.failures.as_json(),
            "seconds": round(self.seconds, 3),
        }


def _group_as_json(group: PhotoGroup) -> dict[str, Any]:
    return {
        "images": group.images,
        "farthest": group.farthest,
        "copies": [
            {
                "images": len(copy.names),
                "names": copy.names[:_NAMES],
                "content_hash": copy.content_hash.hex(),
                "size": copy.size,
                "width": copy.width,
                "height": copy.height,
                "format": copy.format,
                "distance": copy.distance,
            }
            for copy in group.copies
        ],
    }


@dataclass(frozen=True)
class _Images:
    """The images that are compared.

    Attributes:
        index: of them.
        name_of: gives the name of the sighting at a position of the index.
        bodies: gives the bytes of copies, in order; None where they cannot be read.
        where: the cache's folder, or the mirror's URL.
    """

    index: Index
    name_of: Callable[[int], str]
    bodies: Callable[[Iterable[Copy]], Iterator[bytes | None]]
    where: str


def find_duplicates(
    settings: Settings,
    *,
    mirror: bool = False,
    csv_path: Path | None = None,
    page_path: Path | None = None,
    progress: Progress = Progress(),
) -> DuplicatesReport:
    """Find the images that show one photograph. Nothing is changed.

    Args:
        settings: where the cache is, or the mirror.
        mirror: look in the mirror instead of the cache.
        csv_path: a file that lists all images of all groups.
        page_path: an HTML file that shows the largest groups side by side.
        progress: receives the progress of the run.

    Raises:
        CacheError: the cache's folder cannot be read.
        MirrorError: the mirror cannot be read, or a file cannot be written.
        UsageError: a file cannot be created.
    """
    report = DuplicatesReport("mirror" if mirror else "cache")
    began_at = time.monotonic()
    with ExitStack() as files:
        # Opened first: an hour of work must not end at a file that cannot be written.
        csv_file = files.enter_context(opened_page(csv_path, ".csv"))
        page_file = files.enter_context(opened_page(page_path, ".html", ".htm"))
        images = _of_mirror(settings) if mirror else _of_cache(settings, report, progress)
        index = images.index
        if mirror:
            verdicts, counts = np.unique(index.sightings["verdict"], return_counts=True)
            report.counts.update(
                {VERDICTS[v]: n for v, n in zip(verdicts.tolist(), counts.tolist(), strict=True)}
            )
            report.checked = len(index)
        hashed = usable(index.objects["near"])
        report.contents = len(hashed)
        report.without_phash = int(np.count_nonzero(~hashed))
        report.groups = list(photo_groups(index, images.name_of, progress))
        report.near_groups = sum(len(group.copies) > 1 for group in report.groups)
        report.redundant = sum(group.images - 1 for group in report.groups)
        if wide := sum(group.is_wide for group in report.groups):
            report.warnings.append(
                f"{wide:,} {'group' if wide == 1 else 'groups'} may hold more than one photograph: more "
                "than 50 copies, or copies that are far apart; look at them with --sheet."
            )
        if csv_file is not None:
            _write_csv(csv_file, report.groups)
        if page_file is not None:
            place, checked = report.place, report.checked
            heading = PageHeading(
                place, images.where, checked, report.without_phash, datetime.now(UTC)
            )
            write_page(page_file, report.groups, heading, images.bodies)
    report.seconds = time.monotonic() - began_at
    return report


def _write_csv(out: TextIO, groups: Iterable[PhotoGroup]) -> None:
    """Write one line an image, the images of a group together."""
    write = csv.writer(out, lineterminator="\n").writerow
    write(COLUMNS)
    for number, group in enumerate(groups, 1):
        for copy in group.copies:
            for name in copy.names:
                distance = "" if copy.distance is None else copy.distance
                write(
                    (
                        number, no_formula(name), copy.content_hash.hex(), copy.format,
                        copy.width or "", copy.height or "", copy.size, distance,
                    )
                )  # fmt: skip


def _of_cache(settings: Settings, report: DuplicatesReport, progress: Progress) -> _Images:
    folder = settings.cache_dir
    with inspect_cache(**inspection_arguments(settings, "decode"), progress=progress) as findings:
        cached = CachedImages(folder, findings)
        report.checked, report.failed = findings.checked, findings.failed
        report.failures = findings.failures
        report.counts.update({str(name): number for name, number in findings.counts.items()})
    root = os.fsencode(folder.absolute())

    def bodies(copies: Iterable[Copy]) -> Iterator[bytes | None]:
        for copy in copies:
            try:
                path = root + b"/" + cached.path(copy.position)
                read = digest.read(path, keep_up_to=WHOLE_UP_TO)
            except (OSError, digest.FileChanged):
                yield None
            else:
                yield read.body

    return _Images(
        cached.index,
        lambda position: printable(display(cached.path(position))),
        bodies,
        printable(display(root)),
    )


def _of_mirror(settings: Settings) -> _Images:
    _, index = read_index(settings)

    def name_of(position: int) -> str:
        return index.url_md5s(np.array([position])).tobytes().hex()

    def bodies(copies: Iterable[Copy]) -> Iterator[bytes | None]:
        keys = [object_key(copy.content_hash, copy.format) for copy in copies]
        yield from asyncio.run(_read(settings, keys))

    return _Images(index, name_of, bodies, str(settings.bucket_url))


async def _read(settings: Settings, keys: list[str]) -> list[bytes | None]:
    """The bytes of objects; None for each that cannot be read."""
    async with open_mirror(settings) as mirror:

        async def one(key: str) -> bytes | None:
            try:
                return await mirror.store.get(key)
            except MirrorError:
                return None

        return await asyncio.gather(*map(one, keys))
