"""Stage 3 of a rewrite: the keys that decide which split and sample the records of a batch go to.

`splits.assign` gathers the keys of all batches, and then assigns all records at once.
"""

from __future__ import annotations

from mirror.catalog.lookup import UrlLookup
from mirror.dataset.rewrite.judge import JudgedBatch, firsts_of, owners_of
from mirror.dataset.rewrite.rewrite_options import RewriteOptions
from mirror.dataset.splits.assign import BatchKeys


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
        url_keys=url_keys[firsts_of(batch)],
        groups=batch.all_values(options.group) if options.group else None,
        classes=batch.others[options.stratify] if options.stratify else None,
    )
