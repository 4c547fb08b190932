"""Stage 3 of a rewrite: the keys that decide which split and sample the records of a batch go to.

`splits.assign` gathers the keys of all batches, and then assigns all records at once. The same keys
of earlier outputs pin records to their splits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mirror.cache.scan import display
from mirror.catalog.index import halves
from mirror.catalog.lookup import Positions, UrlLookup
from mirror.content.photo import SIZE_BITS, photo_key
from mirror.dataset.inputs import Input, read
from mirror.dataset.records import Batch, ReadOptions, whole
from mirror.dataset.rewrite.judge import JudgedBatch, firsts_of, owners_of
from mirror.dataset.rewrite.resolve import resolve, url_keys_of
from mirror.dataset.rewrite.rewrite_options import EarlierOutput, RewriteOptions
from mirror.dataset.splits.assign import BatchKeys, CopyRules
from mirror.dataset.splits.image_keys import LAST, ImageKeys
from mirror.dataset.splits.pins import Pins, by_precedence
from mirror.dataset.splits.split import Keys, Split
from mirror.duplicates.copy_groups import (
    DROPPED,
    GROUPED,
    CopyGroups,
    contents_of,
    copy_groups,
    usable,
)
from mirror.errors import UsageError
from mirror.run.progress import Progress
from mirror.urls import content_hash_in


@dataclass(frozen=True)
class ImageKeyFinder:
    """Finds images, and the keys that are equal for copies of one photograph.

    Attributes:
        urls: finds images by their URLs.
        groups: copies that belong together; None if copies are not looked for.
        alike: copies of which one is enough; None if none is dropped.
        hashed: for each content of the index whether it has a perceptual hash that counts.
    """

    urls: UrlLookup
    groups: CopyGroups | None
    alike: CopyGroups | None
    hashed: NDArray[np.bool_]

    @classmethod
    def of(cls, urls: UrlLookup, rules: CopyRules, progress: Progress) -> Self:
        """Find the copies that these rules are about. For a large mirror that takes a while."""
        near, index = rules.near_duplicates, urls.index
        return cls(
            urls,
            None if near == "keep" else copy_groups(index, GROUPED, progress),
            None if near != "drop" else copy_groups(index, DROPPED, progress),
            usable(index.objects["near"]),
        )

    def keys_of(self, positions: Positions) -> tuple[Keys, NDArray[np.int64]]:
        """The keys of images at n positions of the index, and their places in time. None is -1.

        A key is a prefix of the content hash of the group's leader.
        """
        keys, orders = self.urls.content_keys(positions), np.full(len(positions), LAST)
        if self.groups is not None:
            contents = contents_of(self.urls.index, positions)
            named = contents >= 0
            keys[named], orders[named] = self.groups.keys_of(contents[named])
        return keys, orders

    def images(self, judged: JudgedBatch) -> ImageKeys:
        """The keys of a batch's written images. Those that are not mirrored go by their URLs."""
        batch, positions, _, _, url_keys = judged.resolved
        written = np.flatnonzero(judged.written_urls)
        positions, urls = positions[written], url_keys[written]
        count = len(written)
        images = ImageKeys(
            record=owners_of(batch)[written],
            key=urls.copy(),
            order=np.full(count, LAST),
            content=urls.copy(),
            url=urls,
            photo=np.zeros(count, np.uint64),
            hashed=np.zeros(count, bool),
            same=urls.copy(),
            pixels=np.zeros(count, np.int64),
        )
        mirrored = np.flatnonzero(positions >= 0)
        positions = positions[mirrored]
        images.content[mirrored] = self.urls.content_keys(positions)
        images.key[mirrored], images.order[mirrored] = self.keys_of(positions)
        if self.groups is None:
            return images
        contents = contents_of(self.urls.index, positions)
        named, contents = mirrored[contents >= 0], contents[contents >= 0]
        images.hashed[named] = self.hashed[contents]
        columns = self.urls.index.sightings
        images.photo[mirrored] = columns["photo"][positions]
        for at in np.flatnonzero(images.photo == 0).tolist():
            images.photo[at] = photo_key(batch.urls[written[at]].decode(errors="replace"))
        images.photo[:] >>= np.uint64(SIZE_BITS)
        if self.alike is not None:
            images.same[named] = self.alike.keys_of(contents)[0]
            sides = (columns[name][positions].astype(np.int64) for name in ("width", "height"))
            images.pixels[mirrored] = np.multiply(*sides)
        return images


def batch_keys(judged: JudgedBatch, lookup: ImageKeyFinder, options: RewriteOptions) -> BatchKeys:
    """The keys of a batch's written records."""
    batch = judged.resolved.batch
    return BatchKeys(
        records=judged.keep,
        images=lookup.images(judged),
        url_keys=judged.resolved.url_keys[firsts_of(batch)],
        groups=batch.all_values(options.group) if options.group else None,
        classes=batch.others[options.stratify] if options.stratify else None,
        labels=batch.others[options.label] if options.label else None,
    )


def read_pins(
    outputs: Sequence[EarlierOutput],
    splits: Sequence[Split],
    reading: ReadOptions,
    lookup: ImageKeyFinder,
) -> Pins:
    """Read the splits of the images and URLs in earlier outputs.

    An image is known by the content hash in its URL, or by looking its URL up. Its URL and the
    original URL count as well, because an image that is not mirrored goes by its URL.

    Args:
        outputs: the files.
        splits: of this rewrite; each output is of one of them.
        reading: the fields of the URL and of the original URL.
        lookup: finds the images.

    Raises:
        UsageError: a file cannot be read, or has an invalid record.
    """
    names = [splits[index].name for index in by_precedence(splits)]
    return Pins(
        (keys, names.index(output.split))
        for output in outputs
        for keys in _keys_of(output.file, reading, lookup)
    )


def _keys_of(file: Path, reading: ReadOptions, lookup: ImageKeyFinder) -> Iterator[Keys]:
    source = (*reading.url[:-1], reading.source)
    try:
        for batch in read(
            Input(str(file)), ReadOptions(reading.url, reading.source, whole(source))
        ):
            for record in batch.rejected:
                raise UsageError(
                    f"{display(os.fsencode(file))}, record {record.number}: {record.reason}; "
                    "--pin needs a file that an earlier rewrite wrote."
                )
            yield np.unique(
                np.concatenate([*_image_keys(batch, lookup), _source_keys(batch, source)])
            )
    except OSError as error:
        raise UsageError(
            f"{display(os.fsencode(file))} cannot be read to its end ({error.strerror or error})."
        ) from None


def _image_keys(batch: Batch, lookup: ImageKeyFinder) -> tuple[Keys, Keys]:
    """The keys of a batch's URLs, and of the contents that they name or that are known of them."""
    resolved = resolve(batch, lookup.urls)
    named = [content_hash_in(url) for url in batch.urls]
    hashes = b"".join(content_hash for content_hash in named if content_hash is not None)
    found = lookup.urls.index.find_contents(hashes)
    gone = halves(hashes)[0][found < 0]
    by_url = resolved.positions[[content_hash is None for content_hash in named]]
    known, _ = lookup.keys_of(np.concatenate([found[found >= 0], by_url[by_url >= 0]]))
    return resolved.url_keys, np.concatenate([gone, known])


def _source_keys(batch: Batch, source: tuple[str, ...]) -> Keys:
    """The keys of a batch's original URLs."""
    values = batch.all_values(source)
    return url_keys_of([url.encode() for urls in values for url in urls if isinstance(url, str)])
