"""The format of a dataset file, by its name. Pure."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Final, Literal, NamedTuple

from mirror.dataset.compression import extension_of

Kind = Literal["jsonl", "csv", "tsv", "parquet"]

SPLIT: Final = "{split}"
REJECTED: Final = ".rejected.jsonl"
_AROUND_SPLIT: Final = re.compile(r"[_.-]?\{split\}")

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

    @property
    def is_known(self) -> bool:
        """Whether the name has an ending that says the format."""
        return self.suffix != extension_of(self.suffix)

    @property
    def names_split(self) -> bool:
        """Whether the path says where the name of a split belongs."""
        return SPLIT in str(self.path)

    @property
    def foreign_ending(self) -> str:
        """An ending that is none of ours, such as `.xlsx`; empty if there is none."""
        return "" if self.is_known else PurePath(self.stem).suffix

    def split(self, name: str) -> PurePath:
        """The file name of a split: `OUT_train.jsonl` for `OUT.jsonl`.

        `{split}` in the path stands for the name of the split.
        """
        if self.names_split:
            return PurePath(str(self.path).replace(SPLIT, name))
        packed = extension_of(self.suffix)
        inner = self.suffix.removesuffix(packed) or ".jsonl"
        return self.path.with_name(f"{self.stem}_{name}{inner}{packed}")

    def rejected(self) -> PurePath:
        """The file name for invalid records: `OUT.rejected.jsonl`."""
        stem = self.stem and (_AROUND_SPLIT.sub("", self.stem) or "dataset")
        folder = PurePath(*(_AROUND_SPLIT.sub("", part) for part in self.path.parent.parts))
        return folder / f"{stem}{REJECTED}"
