"""Which format a dataset's file has: by its name. Pure."""

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
    """A dataset's file by its name: `dir/stem` + `suffix`, which says what is in it.

    `suffix` is empty for a name that says nothing: it is JSON lines then.
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
        """The file of one split: `OUT_train.jsonl` for `OUT.jsonl`."""
        packed = extension_of(self.suffix)
        inner = self.suffix.removesuffix(packed) or ".jsonl"
        return self.path.with_name(f"{self.stem}_{name}{inner}{packed}")

    def rejected(self) -> PurePath:
        """Where records that could not be read are written."""
        return self.path.with_name(f"{self.stem}.rejected.jsonl")
