"""The two kinds of datasets that a DataLoader takes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain, islice, tee
from multiprocessing import current_process
from typing import Any, Unpack

from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from mirror.errors import FetchError, UsageError
from mirror.fetch.client import Fetcher
from mirror.torch.epoch_order import EpochOrder
from mirror.torch.resume import Resumable
from mirror.torch.sampler import rank_of
from mirror.torch.samples import SampleOptions, Samples


class MirrorDataset(Samples, Dataset[Any]):
    """A dataset with a length, whose samples are asked for by number: for any sampler.

    A DataLoader asks for a whole batch at once, which is fetched at once. `dataset`, `fetch` and the
    options are those of `Samples`.
    """

    def __init__(
        self, dataset: str | os.PathLike[str], fetch: Fetcher, **options: Unpack[SampleOptions]
    ) -> None:
        super().__init__(dataset, fetch, world_size=rank_of(None, None)[1], **options)

    def __getitem__(self, index: int) -> Any:
        """One sample. A bad one is replaced where they are skipped, too, if `replace_from` was said.

        Raises:
            IndexError: there is no such sample.
            FetchError: it is not to be had, and `on_bad` is `raise`.
            TooManyBadSamples: the budget is used up.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Samples fetched together, in order; without the bad ones where they are skipped."""
        places = [self._place_of(index) for index in indices]
        loaded = list(self.loaded(places))
        for index, sample in loaded:
            if isinstance(sample, FetchError):
                self.note(index, sample)
        samples = []
        for index, sample in loaded:
            if not isinstance(sample, FetchError):
                samples.append(sample)
            elif self._on_bad == "resample":
                samples.append(self.replacement(index, places))
        # A batch without a sample would be no batch, and this rank would wait for the others for ever.
        return samples or [self.replacement(places[0], places)]

    def set_epoch(self, epoch: int) -> None:
        """Of which epoch replacements are; a ResumableSampler says it."""
        self._place.set(self._place.seed, epoch, 0)

    def _place_of(self, index: int) -> int:
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f"sample {index} of {length}")
        return int(index) % length


class MirrorIterableDataset(Samples, Resumable, IterableDataset[Any]):
    """A stream of samples in an order of its own, fetched ahead across batches.

        dataset = MirrorIterableDataset("train.jsonl", fetch, batch_size=64, label_field="species")
        loader = DataLoader(dataset, batch_size=64, num_workers=4, persistent_workers=True)
        for epoch in range(dataset.epoch, epochs):
            for images, labels in dataset.track(loader):
                ...
                checkpoint["dataset"] = dataset.state_dict()

    Workers take turns by whole batches, and a DataLoader takes batches from workers in turns: so the
    batches are the same with any number of them, and the same that `MirrorDataset` gives with a
    ResumableSampler of the same seed.

    In a stream nothing can be left out without moving all that comes after it, so that `skip` does as
    `resample` does.

    Args:
        dataset: as `Samples` has it, like all other options.
        fetch: the same.
        batch_size: that of the DataLoader.
        shuffle: False keeps the dataset's order.
        drop_last: every rank has equally many samples: with it by leaving out the remainder, else by
            taking some twice.
        rank: None asks torch.distributed, or the environment that torchrun sets.
        world_size: the same.
    """

    def __init__(
        self,
        dataset: str | os.PathLike[str],
        fetch: Fetcher,
        *,
        batch_size: int,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        **options: Unpack[SampleOptions],
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; it is the DataLoader's, at least 1.")
        rank, world_size = rank_of(rank, world_size)
        Samples.__init__(self, dataset, fetch, world_size=world_size, **options)
        Resumable.__init__(
            self,
            len(self._table),
            self.fingerprint,
            seed=options.get("seed", 0),
            rank=rank,
            world_size=world_size,
            shuffle=shuffle,
            drop_last=drop_last,
        )
        self.replace_from(range(len(self._table)))
        self._batch_size = batch_size
        self._iterations = 0, 0  # a process, and how many more than one it has begun

    def __len__(self) -> int:
        """Samples that this rank has left of the epoch."""
        return self.share.left

    def __iter__(self) -> Iterator[Any]:
        """This worker's part of this rank's samples, from where the epoch is now."""
        return self._drawn(*self._begun())

    def _drawn(self, seed: int, epoch: int, begin: int) -> Iterator[Any]:
        ahead, batches = tee(self._batches(seed, epoch, begin))
        loaded = self.loaded(chain.from_iterable(ahead))
        for batch in batches:
            for index, sample in islice(loaded, len(batch)):
                if isinstance(sample, FetchError):
                    self.note(index, sample)
                    yield self.replacement(index, batch)
                else:
                    yield sample

    def _begun(self) -> tuple[int, int, int]:
        """Seed, epoch and position at which this iteration begins, the same for all of its workers.

        A worker is made when an iteration begins, and its first one begins where it says itself: what
        is shared may have moved on by then. One that persists has it all from there.
        """
        worker = get_worker_info()
        process, number = self._iterations
        number = number + 1 if process == os.getpid() else 0
        self._iterations = os.getpid(), number
        if worker is None or number == 0:
            return self._seed, self.epoch, self._consumed
        # The seed may be another loader's, too. Processes are counted, and those of a loader in a row:
        # what its first one is counted as is no other's.
        counted = current_process()._identity[-1]  # noqa: SLF001 - the name has it, too, as text
        loader = (worker.seed - worker.id) ^ (counted - worker.id)
        return self._place.of_iteration(loader, number)

    def _batches(self, seed: int, epoch: int, begin: int) -> Iterator[list[int]]:
        share = self.share._replace(begin=begin)
        order = EpochOrder(len(self._table), seed, epoch, shuffle=self._shuffle)
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        size = self._batch_size
        for first in range(number * size, share.left, workers * size):
            yield order.at(share.positions(first, first + size)).tolist()

    def track(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """The loader's batches for the rest of the epoch; each counts as consumed once it is handed over.

        After the last one the next epoch has begun.

        Raises:
            UsageError: the loader is of another dataset, makes batches of another size, or has
                `in_order=False`.
        """
        if loader.dataset is not self:
            raise UsageError("The loader is of another dataset: DataLoader(dataset, …).")
        if loader.batch_size != self._batch_size:
            raise UsageError(
                f"The loader makes batches of {loader.batch_size}, and the dataset was told "
                f"{self._batch_size}: what a batch consumes could not be told. Give both the same."
            )
        return self._tracked(loader, self._batch_size)

    def advance(self, samples: int) -> None:
        """As `Resumable.advance`; an iteration that begins now goes on from there."""
        super().advance(samples)
        self._begin_here()

    def _fetched(self) -> Any:
        return self.stats()

    def _begin_here(self) -> None:
        self._place.set(self._seed, self.epoch, self._consumed)
