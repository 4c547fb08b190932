"""`Samples`: the common base of both datasets, which reads, decodes and handles bad samples."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray

from mirror.content.decode import rgb
from mirror.dataset.inputs import Input
from mirror.errors import (
    CorruptObject,
    FetchError,
    Flagged,
    NotMirrored,
    TooManyBadSamples,
    Undecodable,
    UsageError,
)
from mirror.fetch.client import Fetcher
from mirror.fetch.sample_table import OnMissing, read_table
from mirror.fetch.shared_memory import SharedPosition
from mirror.fetch.statistics import FetchStats
from mirror.system.display_text import plural, printable
from mirror.torch.bad_samples import BadSample, BadSamples, OnBad, budget_of_rank
from mirror.torch.epoch_order import batch_candidates, candidate
from mirror.torch.worker_stats import WorkerStats

# Errors of a single sample. A store that does not answer is no fault of the sample: training on
# without the images it should have sent would be another training.
_BAD: Final = (NotMirrored, Flagged, CorruptObject, Undecodable)
_ATTEMPTS: Final = 32

_log = logging.getLogger(__name__)


class SampleOptions(TypedDict, total=False):
    """Options of both datasets; `MirrorDataset` documents them."""

    url_field: str
    label_field: str | None
    multi_label: bool
    classes: Sequence[str] | None
    fields: Sequence[str]
    decode: Callable[[bytes], Any]
    transform: Callable[[Any], Any] | None
    on_missing: OnMissing
    missing_file: str | Path | None
    on_bad: OnBad
    budget: float
    seed: int


class Samples:
    """The base class of both datasets; `MirrorDataset` documents its options.

    Args:
        world_size: ranks that train together, and divide the budget.

    Attributes:
        check: which of the dataset's URLs the mirror has.
    """

    def __init__(
        self,
        dataset: str | os.PathLike[str],
        fetch: Fetcher,
        *,
        url_field: str = "image_url",
        label_field: str | None = None,
        multi_label: bool = False,
        classes: Sequence[str] | None = None,
        fields: Sequence[str] = (),
        decode: Callable[[bytes], Any] = rgb,
        transform: Callable[[Any], Any] | None = None,
        on_missing: OnMissing = "raise",
        missing_file: str | Path | None = None,
        on_bad: OnBad = "raise",
        budget: float = 0.001,
        seed: int = 0,
        world_size: int = 1,
    ) -> None:
        _require("on_missing", on_missing, ("raise", "drop"))
        _require("on_bad", on_bad, ("raise", "skip", "resample"))
        source = Input(os.fspath(dataset))
        self._shown = source.shown
        self._table, self.check = read_table(
            source,
            fetch.coverage,
            url_field=url_field,
            label_field=label_field,
            multi_label=multi_label,
            classes=classes,
            fields=fields,
            on_missing=on_missing,
            missing_file=missing_file,
        )
        self._fetch = fetch
        self._decode = decode
        self._transform = transform
        self._on_bad = on_bad
        self._bad = BadSamples(budget_of_rank(len(self._table), budget, world_size))
        self._all_may_replace = False
        self._replacement_sets: list[NDArray[np.int64]] = []
        self._position = SharedPosition.at(seed)
        self._worker_stats = WorkerStats()

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        classes = (
            f", {len(self.classes):,} {'class' if len(self.classes) == 1 else 'classes'}"
            if self._table.labelled
            else ""
        )
        return f"<{type(self).__name__} of {self._shown}: {plural(len(self._table), 'sample')}{classes}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of their numbers."""
        return self._table.classes

    @property
    def labels(self) -> NDArray[np.int32]:
        """(n,) class numbers of all samples, for weights and statistics."""
        return self._table.labels

    @property
    def fingerprint(self) -> str:
        """Hash of all URLs and class numbers in order: 16 hexadecimal digits."""
        return self._table.fingerprint

    @property
    def bad_samples(self) -> list[BadSample]:
        """The bad samples found so far, by this process and its workers."""
        return self._bad.all()

    def stats(self) -> FetchStats:
        """The fetch statistics so far, of this process and its workers."""
        return self._worker_stats.total()

    def url(self, index: int) -> str:
        """The URL of a sample, as the dataset has it."""
        return self._table.url(index)

    def replace_from(self, indices: Sequence[int]) -> None:
        """Set the samples that may replace each other, for batches without a good sample.

        Call it before workers start: `dataset.replace_from(train.indices)`. A ResumableSampler calls
        it for the samples that it draws from.

        Args:
            indices: sample numbers; negative ones count from the end.

        Raises:
            UsageError: there is no such sample.
        """
        length = len(self._table)
        if isinstance(indices, range) and indices == range(length):
            self._all_may_replace = True  # without a list of ten million numbers
            return
        numbers = np.asarray(indices, np.int64)
        if ((numbers < -length) | (numbers >= length)).any():
            raise UsageError(f"replace_from: samples are numbered 0 to {length - 1}.")
        replacements = np.unique(numbers % length)
        if not any(np.array_equal(replacements, known) for known in self._replacement_sets):
            self._replacement_sets.append(replacements)

    def _load(self, indices: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """Yield `(index, sample or FetchError)` in order; many are fetched at a time.

        Raises:
            FetchError: an error that is no fault of the sample, such as an unreachable store.
        """
        pending: deque[int] = deque()

        def urls() -> Iterator[str]:
            for index in indices:
                pending.append(index)
                yield self._table.url(index)

        # Closing reports the last statistics; the garbage collector would do so at an unknown time.
        reading = self._fetch._read(urls(), self._worker_stats.add)  # noqa: SLF001 - internal
        with closing(reading) as results:
            for url, result in results:
                index = pending.popleft()
                yield index, self._sample(index, url, result)

    def _sample(self, index: int, url: str, result: bytes | FetchError) -> Any:
        if isinstance(result, FetchError):
            if not isinstance(result, _BAD):
                raise result
            return result
        try:
            image = self._decode(result)
        except Exception as error:  # noqa: BLE001 - decoders share no exception class
            bad = Undecodable(f"{url} does not decode: {type(error).__name__}: {error}")
            bad.__cause__ = error
            return bad
        if self._transform is not None:
            image = self._transform(image)
        parts = [image]
        if self._table.labelled:
            parts.append(self._table.target(index))
        if self._table.has_fields:
            parts.append(self._table.fields(index))
        return image if len(parts) == 1 else tuple(parts)

    def _record_bad(self, index: int, error: FetchError) -> None:
        """Raise the error of a bad sample, or count it against the budget.

        Raises:
            FetchError: the error, if `on_bad` is `raise`.
            TooManyBadSamples: the budget is used up.
        """
        if self._on_bad == "raise":
            raise error
        said = printable(str(error))  # the URL is text of strangers
        _log.warning("Sample %s is left out (on_bad=%r): %s", index, self._on_bad, said)
        bad = BadSample(self._position.epoch, index, self._table.url(index), str(error))
        self._bad.record(bad)

    def _replacement(self, index: int, batch: Sequence[int]) -> Any:
        """Load the sample that replaces a bad one. Every run that meets the same chooses the same.

        It comes from the same batch if that has a good sample. Other samples are used only if
        `replace_from` allows them: the dataset may have been split.

        Raises:
            TooManyBadSamples: the budget is used up, or no good sample was found.
        """
        epoch = self._position.epoch
        for other in self._candidates(index, batch):
            if other == index or self._bad.is_known(epoch, other):
                continue
            ((_, sample),) = self._load([other])
            if not isinstance(sample, FetchError):
                return sample
            self._record_bad(other, sample)
        raise TooManyBadSamples(
            f"No good sample was found to replace {self._table.url(index)}: its batch has none. Run "
            "mirror verify to see what is wrong, use larger batches, or name the samples that may "
            "replace it: dataset.replace_from(train.indices)."
        )

    def _candidates(self, index: int, batch: Sequence[int]) -> Iterator[int]:
        """The samples to try in place of a bad one, in order."""
        seed, epoch = self._position.seed, self._position.epoch
        yield from batch_candidates(batch, seed, epoch, index)
        # The smallest set: another sampler may draw from all samples.
        whole = range(len(self._table) if self._all_may_replace else 0)
        sets = (numbers for numbers in self._replacement_sets if index in numbers)
        among = min(sets, key=len, default=whole)
        for attempt in range(_ATTEMPTS if len(among) else 0):
            yield int(among[candidate(len(among), seed, epoch, index, attempt)])


def _require(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{option} is {value!r}; it can be {', '.join(known)}.")
