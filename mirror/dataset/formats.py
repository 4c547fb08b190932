"""Which format a dataset's file has: by its name. Pure."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final, Literal, NamedTuple

from mirror.dataset.compression import EXTENSIONS

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
        name = path.name
        packed = next((end for end in EXTENSIONS if name.lower().endswith(end)), "")
        inner = PurePath(name[: len(name) - len(packed)])
        kind = _KINDS.get(inner.suffix.lower())
        if kind is None:
            suffix = name[len(name) - len(packed) :]
            return cls(path, name[: len(name) - len(packed)], suffix, "jsonl")
        suffix = name[len(inner.stem) :]
        return cls(path, inner.stem, suffix, kind)

    def split(self, name: str) -> PurePath:
        """The file of one split: `OUT_train.jsonl` for `OUT.jsonl`."""
        suffix = self.suffix
        if suffix in ("", *EXTENSIONS):
            suffix = f".jsonl{suffix}"
        return self.path.with_name(f"{self.stem}_{name}{suffix}")

    def rejected(self) -> PurePath:
        """Where records that could not be read are written."""
        return self.path.with_name(f"{self.stem}.rejected.jsonl")
