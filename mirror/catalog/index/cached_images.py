"""A cache folder in place of a mirror: the images that a training can read without a bucket."""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from urllib.parse import quote_from_bytes

import numpy as np
from numpy.typing import NDArray

from mirror.catalog.index.catalog_index import Index
from mirror.catalog.index.index_columns import FORMAT_CODES, VERDICT_CODES, Batch
from mirror.catalog.index.sorted_keys import halves
from mirror.content.perceptual_hash import STORED_BYTES
from mirror.inspection.inspect_cache import Findings


class CachedImages:
    """The inspected files of a cache, as an index of sightings and as `file://` URLs.

    They take about 280 bytes of memory per file.

    Attributes:
        index: one sighting for each URL with a file; a good file wins over a flagged image.
    """

    def __init__(self, folder: Path, findings: Findings) -> None:
        self._base = b"file://" + quote_from_bytes(os.fsencode(folder.absolute())).encode() + b"/"
        digests, hashes, sha256, paths = bytearray(), bytearray(), bytearray(), bytearray()
        near, no_hash = bytearray(), bytes(STORED_BYTES)
        ends, numbers = array("q"), array("q")
        for image in findings.files():
            digests += image.url_md5
            hashes += image.content_hash
            sha256 += image.sha256
            near += image.near or no_hash
            paths += image.path
            ends.append(len(paths))
            numbers.extend((image.size, image.width, image.height))
            numbers.extend((FORMAT_CODES[image.format], VERDICT_CODES[image.verdict]))
        self._paths, self._ends = paths, ends
        size, width, height, formats, verdict = np.array(numbers, "i8").reshape(-1, 5).T
        url_hi, url_lo = halves(bytes(digests))
        hash_hi, hash_lo = halves(bytes(hashes))
        good = verdict == VERDICT_CODES["ok"]
        batch: Batch = {
            "url_hi": url_hi,
            "url_lo": url_lo,
            "hash_hi": hash_hi,
            "hash_lo": hash_lo,
            "sha256": np.frombuffer(bytes(sha256), "V32"),
            "size": size,
            "width": width.astype("i4"),
            "height": height.astype("i4"),
            "format": formats.astype("u1"),
            "verdict": verdict.astype("u1"),
            "sourced": np.zeros(len(size), "?"),
            "seen_at": good.astype("i8"),  # the latest sighting wins, so good ones are later
            # A cache tells no order in which its contents came.
            "first_seen": np.zeros(len(size), "i8"),
            "near": np.frombuffer(bytes(near), f"V{STORED_BYTES}"),
            "photo": np.zeros(len(size), "u8"),
        }
        self.index = Index.empty().merged([batch], 0, frozenset())
        self._file = self._files_of(bytes(digests), good)

    def _files_of(self, digests: bytes, good: NDArray[np.bool_]) -> NDArray[np.intp]:
        """For each sighting the number of its file in `findings`."""
        file = np.zeros(len(self.index), np.intp)
        positions = self.index.find(digests)
        file[positions] = np.arange(len(positions))
        file[positions[good]] = np.flatnonzero(good)
        return file

    def file_urls(self, positions: NDArray[np.intp]) -> list[bytes]:
        """`file://` URLs of the sightings at these positions of the index."""
        return [self._base + self._quoted(file) for file in self._file[positions].tolist()]

    def path(self, position: int) -> bytes:
        """The path in the cache of the sighting at a position of the index."""
        return self._path(int(self._file[position]))

    def _path(self, file: int) -> bytes:
        begin = self._ends[file - 1] if file else 0
        return bytes(self._paths[begin : self._ends[file]])

    def _quoted(self, file: int) -> bytes:
        return quote_from_bytes(self._path(file)).encode()
