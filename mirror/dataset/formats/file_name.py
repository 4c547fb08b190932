"""The format of a dataset file, by its name. Pure."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final, Literal, NamedTuple

from mirror.dataset.compression import extension_of

Kind = Literal["jsonl", "csv", "tsv", "parquet"]

_KINDS: Final[dict[str, Kind]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


class FileName(NamedTuple):
    """The name of a dataset file, divided into `dir/stem` and `suffix`, which gives the format.

    `suffix` is empty for a name without a known ending; the file is JSON lines then.
    """

    path: PurePath
    stem: str
    suffix: str
    kind: Kind

    @classmethod
    def parse(cls, path: PurePath) -> FileName:
        packed = extension_of(path.name)
        name = path.name.removesuffix(packed)
        inner = PurePath(name)
        kind = _KINDS.get(inner.suffix.lower())
        if kind is None:
            return cls(path, name, packed, "jsonl")
        return cls(path, inner.stem, inner.suffix + packed, kind)

    def split(self, name: str) -> PurePath:
        """The file name of a split: `OUT_train.jsonl` for `OUT.jsonl`."""
        packed = extension_of(self.suffix)
        inner = self.suffix.removesuffix(packed) or ".jsonl"
        return self.path.with_name(f"{self.stem}_{name}{inner}{packed}")

    def rejected(self) -> PurePath:
        """The file name for invalid records: `OUT.rejected.jsonl`."""
        return self.path.with_name(f"{self.stem}.rejected.jsonl")
