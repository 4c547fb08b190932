"""Images with their classes, by number: what both kinds of datasets are made of."""

from __future__ import annotations

import io
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray

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
from mirror.torch.bad_samples import BadSample, BadSamples, OnBad, allowance
from mirror.torch.epoch_order import replacement, turns_instead
from mirror.torch.worker_stats import WorkerStats

# What is wrong with one sample. That the store is out of reach is no sample's fault: training on
# without whatever was asked for meanwhile would be another training.
_BAD: Final = (NotMirrored, Flagged, CorruptObject, Undecodable)
_ATTEMPTS: Final = 32

_log = logging.getLogger(__name__)


def rgb(data: bytes) -> Any:
    """An image's bytes as a PIL image in RGB, decoded to its end.

    Of greys of 16 bits the upper 8 are kept.

    Raises:
        ValueError: its greys have no known range.
    """
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        # Pillow's own conversion cuts off what is above 255, and leaves a white frame.
        if image.mode.startswith("I;16"):
            return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
        if image.mode in ("I", "F"):
            raise ValueError(
                f"which of its greys (mode {image.mode}) are black and white it does not say; "
                "decode= is for a function that knows"
            )
        return image.convert("RGB")


class SampleOptions(TypedDict, total=False):
    """What both datasets take by keyword; `Samples` says what each means."""

    url_field: str
    label_field: str | None
    classes: Sequence[str] | None
    decode: Callable[[bytes], Any]
    transform: Callable[[Any], Any] | None
    on_missing: OnMissing
    missing_file: str | Path | None
    on_bad: OnBad
    budget: float
    seed: int


class Samples:
    """The samples of a dataset's file, read from the mirror.

    Args:
        dataset: a file of any format that `mirror rewrite` reads, or `mongodb://…`.
        fetch: reads the mirror.
        url_field: dotted path of the field that holds a record's URL; a list of URLs is as many
            samples.
        label_field: dotted path of the field that holds its class. With it samples are
            `(image, class number)`, without it images.
        classes: names of all classes in the order of their numbers, such as `train.classes` for a
            validation set; None takes the dataset's own, sorted.
        decode: makes an image of bytes; by default a PIL image in RGB.
        transform: is given the image.
        on_missing: `raise` stops here when the mirror lacks a URL or has it flagged, when a record
            cannot be read or has none of the classes; `drop` leaves these out. See `check`.
        missing_file: where to list them, as JSON lines.
        on_bad: what to do when during training an image is not to be had or does not decode:
            `raise`; `skip` makes the batch shorter, and never empty; `resample` takes another sample
            of the batch in its place, chosen by seed, epoch and index. See `replace_from`.
        budget: bad samples allowed in an epoch, as a number (int) or a share of the dataset (float);
            of either each rank is allowed its part, and at least one.
        seed: of `resample`, and of the order where the dataset has one.
        world_size: ranks that train together, among which the budget is divided.

    Attributes:
        check: what the dataset's URLs were to the mirror.

    Raises:
        DatasetError: samples cannot be used, and `on_missing` is `raise`.
        UsageError: the dataset cannot be read, or an option is none.
    """

    def __init__(
        self,
        dataset: str | os.PathLike[str],
        fetch: Fetcher,
        *,
        url_field: str = "image_url",
        label_field: str | None = None,
        classes: Sequence[str] | None = None,
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
        self._table, self.check = read_table(
            Input(os.fspath(dataset)),
            fetch.coverage,
            url_field=url_field,
            label_field=label_field,
            classes=classes,
            on_missing=on_missing,
            missing_file=missing_file,
        )
        self._fetch = fetch
        self._decode = decode
        self._transform = transform
        self._on_bad = on_bad
        self._bad = BadSamples(allowance(len(self._table), budget, world_size))
        self._is_whole = False
        self._together: list[NDArray[np.int64]] = []
        self._place = SharedPosition.at(seed)
        self._counted = WorkerStats()

    def __len__(self) -> int:
        return len(self._table)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""
        return self._table.classes

    @property
    def labels(self) -> NDArray[np.int32]:
        """(n,) class numbers of all samples, for weights and statistics."""
        return self._table.labels

    @property
    def fingerprint(self) -> str:
        """Of all URLs and class numbers in their order: another dataset has another one."""
        return self._table.fingerprint

    @property
    def bad_samples(self) -> list[BadSample]:
        """What could not be had so far, by any worker of this process."""
        return self._bad.all()

    def stats(self) -> FetchStats:
        """What has been fetched so far, by all workers of this process."""
        return self._counted.total()

    def url(self, index: int) -> str:
        """The URL of a sample, as the dataset has it."""
        return self._table.url(index)

    def loaded(self, indices: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """`(index, sample or FetchError)` of each, in order; many are fetched at a time.

        Raises:
            FetchError: what is no fault of the sample's, such as a store that is out of reach.
        """
        asked: deque[int] = deque()

        def urls() -> Iterator[str]:
            for index in indices:
                asked.append(index)
                yield self._table.url(index)

        # Closed here, and not some time: what it has come to is told before it is asked for.
        with closing(self._fetch.many(urls(), tell=self._counted.add)) as results:
            for url, result in results:
                index = asked.popleft()
                yield index, self._sample(index, url, result)

    def _sample(self, index: int, url: str, result: bytes | FetchError) -> Any:
        if isinstance(result, FetchError):
            if not isinstance(result, _BAD):
                raise result
            return result
        try:
            image = self._decode(result)
        except Exception as error:  # noqa: BLE001 - decoders have no exception in common
            bad = Undecodable(f"{url} does not decode: {type(error).__name__}: {error}")
            bad.__cause__ = error
            return bad
        if self._transform is not None:
            image = self._transform(image)
        return (image, self._table.label(index)) if self._table.labelled else image

    def note(self, index: int, error: FetchError) -> None:
        """A sample is bad: its error is raised, or it goes on the budget.

        Raises:
            FetchError: the error, where `on_bad` is `raise`.
            TooManyBadSamples: the budget is used up.
        """
        if self._on_bad == "raise":
            raise error
        _log.warning("%s is left out, as on_bad=%r has it: %s", index, self._on_bad, error)
        self._bad.note(BadSample(self._place.epoch, index, self._table.url(index), str(error)))

    def replace_from(self, indices: Sequence[int]) -> None:
        """Samples that may take each other's places where a batch has no good one: `train.indices`.

        Say it before workers are made. A ResumableSampler says it of what it samples from.

        Raises:
            UsageError: there is no such sample.
        """
        length = len(self._table)
        if isinstance(indices, range) and indices == range(length):
            self._is_whole = True  # no list of ten million
            return
        numbers = np.asarray(indices, np.int64)
        if ((numbers < -length) | (numbers >= length)).any():
            raise UsageError(f"replace_from: samples are numbered 0 to {length - 1}.")
        together = np.unique(numbers % length)
        if not any(np.array_equal(together, known) for known in self._together):
            self._together.append(together)

    def replacement(self, index: int, batch: Sequence[int]) -> Any:
        """The sample that takes a bad one's place: the same in every run that meets the same.

        It is of the same batch, where that has a good one. Of all others nobody knows here whether
        they are trained on: the dataset may have been split.

        Raises:
            TooManyBadSamples: the budget is used up, or there is no good one.
        """
        epoch = self._place.epoch
        for other in self._instead(index, batch):
            if other == index or self._bad.is_known(epoch, other):
                continue
            ((_, sample),) = self.loaded([other])
            if not isinstance(sample, FetchError):
                return sample
            self.note(other, sample)
        raise TooManyBadSamples(
            f"No good sample was found to take the place of {self._table.url(index)}: its batch has "
            "none. See what is wrong with mirror verify, make batches larger, or say which samples "
            "may stand in: dataset.replace_from(train.indices)."
        )

    def _instead(self, index: int, batch: Sequence[int]) -> Iterator[int]:
        """What may take the place of a sample, in the order in which it is tried."""
        seed, epoch = self._place.seed, self._place.epoch
        yield from turns_instead(batch, seed, epoch, index)
        # The smallest: a sampler of all samples may have been made, too.
        whole = range(len(self._table) if self._is_whole else 0)
        among = min((one for one in self._together if index in one), key=len, default=whole)
        for attempt in range(_ATTEMPTS if len(among) else 0):
            yield int(among[replacement(len(among), seed, epoch, index, attempt)])


def _require(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{option} is {value!r}; it can be {', '.join(known)}.")
