"""Stage 3 of a rewrite: the keys that decide which split and sample the records of a batch go to.

`splits.assign` gathers the keys of all batches, and then assigns all records at once. The same keys
of earlier outputs pin records to their splits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mirror.cache.scan import display
from mirror.catalog.lookup import UrlLookup
from mirror.dataset.inputs import Input, read
from mirror.dataset.records import Batch, ReadOptions, whole
from mirror.dataset.rewrite.judge import JudgedBatch, firsts_of, owners_of
from mirror.dataset.rewrite.resolve import resolve, url_keys_of
from mirror.dataset.rewrite.rewrite_options import EarlierOutput, RewriteOptions
from mirror.dataset.splits.assign import BatchKeys
from mirror.dataset.splits.pins import Pins, by_precedence
from mirror.dataset.splits.split import Keys, Split
from mirror.errors import UsageError
from mirror.urls import content_hash_in


def batch_keys(judged: JudgedBatch, lookup: UrlLookup, options: RewriteOptions) -> BatchKeys:
    """The keys of a batch's written records.

    An image's key is a prefix of its content hash; an image that is not mirrored, or any image when
    leaks are allowed, goes by the key of its URL.
    """
    batch, positions, _, _, url_keys = judged.resolved
    contents = url_keys
    if not options.allow_leaks:
        contents = url_keys.copy()
        mirrored = positions >= 0
        contents[mirrored] = lookup.content_keys(positions[mirrored])
    written = judged.written_urls
    return BatchKeys(
        records=judged.keep,
        owners=owners_of(batch)[written],
        contents=contents[written],
        image_urls=url_keys[written] if options.pins else None,
        url_keys=url_keys[firsts_of(batch)],
        groups=batch.all_values(options.group) if options.group else None,
        classes=batch.others[options.stratify] if options.stratify else None,
    )


def read_pins(
    outputs: Sequence[EarlierOutput],
    splits: Sequence[Split],
    reading: ReadOptions,
    lookup: UrlLookup,
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


def _keys_of(file: Path, reading: ReadOptions, lookup: UrlLookup) -> Iterator[Keys]:
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


def _image_keys(batch: Batch, lookup: UrlLookup) -> tuple[Keys, Keys]:
    """The keys of a batch's URLs, and of the contents that are known."""
    resolved = resolve(batch, lookup)
    named = [content_hash_in(url) for url in batch.urls]
    found = resolved.positions >= 0
    found &= np.array([content_hash is None for content_hash in named], np.bool_)
    prefixes = b"".join(content_hash[:8] for content_hash in named if content_hash is not None)
    contents = np.frombuffer(prefixes, ">u8").astype(np.uint64)
    known = lookup.content_keys(resolved.positions[found])
    return resolved.url_keys, np.concatenate([contents, known])


def _source_keys(batch: Batch, source: tuple[str, ...]) -> Keys:
    """The keys of a batch's original URLs."""
    values = batch.all_values(source)
    return url_keys_of([url.encode() for urls in values for url in urls if isinstance(url, str)])
