"""`MirrorDataset` and `MirrorIterableDataset`: the two kinds of datasets that a DataLoader takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice, tee
from multiprocessing import current_process
from typing import Any, Unpack

from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from mirror.errors import FetchError, UsageError
from mirror.fetch.client import Fetcher
from mirror.torch.resume import Resumable
from mirror.torch.sampler import rank_of
from mirror.torch.samples import SampleOptions, Samples


class MirrorDataset(Samples, Dataset[Any]):
    """A map-style dataset whose images are read from the mirror; works with any sampler.

        dataset = MirrorDataset("train.jsonl", fetch, label_field="species", transform=to_tensor)
        sampler = ResumableSampler(dataset)
        loader = DataLoader(dataset, batch_size=64, sampler=sampler, num_workers=4)

    A DataLoader asks for a whole batch at once, and its images are fetched together. A sample is
    `(image, class number)` with `label_field`, `(image, fields)` with `fields`, `(image, class number,
    fields)` with both, else the image alone.

    Args:
        dataset (str | PathLike): a file in any format that `mirror rewrite` reads, or `mongodb://…`.
        fetch (Fetcher): reads the mirror.
        url_field (str): dotted path of the field with a record's URL. A list of URLs makes several
            samples. Default: `"image_url"`.
        label_field (str | None): dotted path of the field with a record's class. Default: `None`.
        multi_label (bool): the field holds a list of classes. The target is then a float32 array with
            one element a class: 1 for each class of the record, else 0. An empty list gives zeros.
            Default: `False`.
        classes (Sequence[str] | None): all class names in the order of their numbers, for example
            `train.classes` for a validation set. Default: the classes of the dataset, sorted.
        fields (Sequence[str]): dotted paths of fields that each sample has as a dict, by these names;
            None where a record lacks one. Default: none.
        decode (Callable[[bytes], Any]): makes an image from bytes. Default: `rgb`, a PIL image.
        transform (Callable[[Any], Any] | None): applied to the decoded image. Default: `None`.
        on_missing (str): what to do, before the first step, about URLs that the mirror lacks or has
            flagged, unreadable records, and records without a known class. `"raise"` stops, `"drop"`
            leaves them out; see `check`. Default: `"raise"`.
        missing_file (str | Path | None): where to list them as JSON lines. Default: `None`.
        on_bad (str): what to do, during training, about an image that cannot be read or decoded.
            `"raise"` stops. `"skip"` makes the batch shorter, but never empty. `"resample"` takes
            another sample of the batch, chosen by seed, epoch and index; see `replace_from`.
            Default: `"raise"`.
        budget (float): bad samples allowed in an epoch, as a number (int) or as a share of the
            dataset (float). Each rank may use its part, but at least one. Default: `0.001`.
        seed (int): seed of `"resample"`. Default: `0`.

    Attributes:
        check (DatasetCheck): which of the dataset's URLs the mirror has.

    Raises:
        DatasetError: samples cannot be used and `on_missing` is `"raise"`, or no sample is left.
        UsageError: the dataset cannot be read, or an option has an unknown value.
    """

    def __init__(
        self, dataset: str | os.PathLike[str], fetch: Fetcher, **options: Unpack[SampleOptions]
    ) -> None:
        super().__init__(dataset, fetch, world_size=rank_of(None, None)[1], **options)

    def __getitem__(self, index: int) -> Any:
        """Return one sample.

        A single sample cannot be skipped: with `on_bad="skip"`, too, a bad one is replaced. That
        needs `replace_from`.

        Raises:
            IndexError: there is no such sample.
            FetchError: the sample is bad, and `on_bad` is `"raise"`.
            TooManyBadSamples: the budget is used up.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return samples in order, fetched together. With `on_bad="skip"`, bad ones are left out."""
        batch = [self._position_of(index) for index in indices]
        loaded = list(self._load(batch))
        for index, sample in loaded:
            if isinstance(sample, FetchError):
                self._record_bad(index, sample)
        samples = []
        for index, sample in loaded:
            if not isinstance(sample, FetchError):
                samples.append(sample)
            elif self._on_bad == "resample":
                samples.append(self._replacement(index, batch))
        # An empty batch would be no batch, and the other ranks would wait for this one forever.
        return samples or [self._replacement(batch[0], batch)]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which chooses replacements. A ResumableSampler does this."""
        self._position.set(self._position.seed, epoch, 0)

    def _position_of(self, index: int) -> int:
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f"sample {index} of {length}")
        return int(index) % length


class MirrorIterableDataset(Samples, Resumable, IterableDataset[Any]):
    """A stream of samples from the mirror, in an order of its own, fetched ahead across batches.

        dataset = MirrorIterableDataset("train.jsonl", fetch, batch_size=64, label_field="species")
        loader = DataLoader(dataset, batch_size=64, num_workers=4, persistent_workers=True)
        for epoch in range(dataset.epoch, epochs):
            for images, labels in dataset.track(loader):
                ...
                checkpoint["dataset"] = dataset.state_dict()

    Workers take turns by whole batches, as a DataLoader takes batches from workers. So the batches
    are the same with any number of workers, and the same as those of `MirrorDataset` with a
    ResumableSampler of the same seed.

    A stream cannot leave a sample out without moving all later ones. So `on_bad="skip"` does the
    same as `"resample"`.

    Args:
        dataset (str | PathLike): as for `MirrorDataset`, like all options that are not listed here.
        fetch (Fetcher): reads the mirror.
        batch_size (int): the batch size of the DataLoader.
        shuffle (bool): False keeps the dataset's order. Default: `True`.
        drop_last (bool): every rank gets equally many samples. True leaves the remainder out, False
            repeats some samples. Default: `False`.
        rank (int | None): this process, from 0. Default: from torch.distributed, else from the
            environment that torchrun sets, else 0.
        world_size (int | None): number of ranks. Default: likewise, else 1.
        seed (int): seed of the order and of replacements. Default: `0`.

    Raises:
        DatasetError: as for `MirrorDataset`.
        UsageError: likewise, or `batch_size`, `rank` or `world_size` is wrong, or the ranks of
            torch.distributed differ in their dataset or options.
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
        given = rank is not None
        rank, world_size = rank_of(rank, world_size)
        Samples.__init__(self, dataset, fetch, world_size=world_size, **options)
        Resumable.__init__(
            self,
            len(self._table),
            self.fingerprint,
            seed=options.get("seed", 0),
            rank=rank,
            world_size=world_size,
            rank_given=given,
            shuffle=shuffle,
            drop_last=drop_last,
        )
        self.replace_from(range(len(self._table)))
        self._batch_size = batch_size
        self._iterations = 0, 0  # a process id, and the iterations it has begun after the first

    def __len__(self) -> int:
        """Samples that this rank has left of the epoch."""
        return self._share.left

    def __iter__(self) -> StreamedSamples:
        """Yield this worker's part of this rank's samples, from the current position on."""
        seed, epoch, begin = self._start_of_iteration()
        start = Resumable.state_dict(self) | {"seed": seed, "epoch": epoch, "consumed": begin}
        division = {"world_size": self.world_size, "batch_size": self._batch_size}
        return StreamedSamples(self, start, division, self._samples_from)

    def __getstate__(self) -> object:
        # A worker that is not forked knows nothing of torch.distributed, so check before it starts.
        self._check_rank()
        return super().__getstate__()

    def _samples_from(self, state: dict[str, Any], skip: int) -> Iterator[Any]:
        """Yield what this worker has of this rank's samples from a state on, without the first `skip`."""
        batches_to_skip, samples_to_skip = divmod(skip, self._batch_size)
        batches = islice(self._batches(state), batches_to_skip, None)
        return islice(self._loaded(batches), samples_to_skip, None)

    def _loaded(self, batches: Iterator[list[int]]) -> Iterator[Any]:
        ahead, batches = tee(batches)
        loaded = self._load(chain.from_iterable(ahead))
        for batch in batches:
            for index, sample in islice(loaded, len(batch)):
                if isinstance(sample, FetchError):
                    self._record_bad(index, sample)
                    yield self._replacement(index, batch)
                else:
                    yield sample

    def _start_of_iteration(self) -> tuple[int, int, int]:
        """Seed, epoch and position at which this iteration begins; the same for all its workers.

        A new worker is started for one iteration, and begins where its own copy of the dataset says:
        the shared position may have moved on. A persistent worker reads the shared position from its
        second iteration on.
        """
        worker = get_worker_info()
        process, number = self._iterations
        number = number + 1 if process == os.getpid() else 0
        self._iterations = os.getpid(), number
        if worker is None or number == 0:
            return self._seed, self.epoch, self._consumed
        # Identify the loader. Its seed is not enough, because two loaders may have the same seed.
        # multiprocessing counts processes, and one loader's workers have consecutive counts: the
        # count of its first worker belongs to no other loader.
        count = current_process()._identity[-1]  # noqa: SLF001 - public only inside the name
        loader = (worker.seed - worker.id) ^ (count - worker.id)
        return self._position.of_iteration(loader, number)

    def _batches(self, state: dict[str, Any]) -> Iterator[list[int]]:
        share, order = self._share_from(state), self._order_of(state)
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        size = self._batch_size
        for first in range(number * size, share.left, workers * size):
            yield order.at(share.positions(first, first + size)).tolist()

    def track(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """Yield the loader's batches for the rest of the epoch, and count each as consumed.

        After the last batch, the next epoch begins.

        Args:
            loader: a DataLoader of this dataset.

        Raises:
            UsageError: the loader has another dataset or batch size, `in_order=False` or a state of its
                own; or, at the first batch, the ranks have loaded different states.
        """
        if loader.dataset is not self:
            raise UsageError("The loader is of another dataset: DataLoader(dataset, …).")
        if loader.batch_size != self._batch_size:
            raise UsageError(
                f"The loader makes batches of {loader.batch_size}, but the dataset's batch_size is "
                f"{self._batch_size}, so consumed samples would be counted wrong. Give both the same."
            )
        return self._tracked(loader, self._batch_size)

    def advance(self, samples: int) -> None:
        """As `Resumable.advance`. The next iteration begins behind these samples."""
        super().advance(samples)
        self._share_position()

    def _fetch_stats(self) -> Any:
        return self.stats()

    def _share_position(self) -> None:
        # A StatefulDataLoader loads states in its workers, too, but only the training moves on.
        if get_worker_info() is None:
            self._position.set(self._seed, self.epoch, self._consumed)


class StreamedSamples(Iterator[Any]):
    """The samples of one iteration over a stream, in one worker.

    torchdata's StatefulDataLoader saves the state of this iterator with a batch, and restores it.

    Args:
        stream: the dataset that is iterated.
        start: the state of the stream at which the iteration began, for all workers.
        division: what decides, beside the number of workers, which samples a worker gets.
        samples_from: yields this worker's samples from a state on, without the first so many.
    """

    def __init__(
        self,
        stream: MirrorIterableDataset,
        start: dict[str, Any],
        division: dict[str, int],
        samples_from: Callable[[dict[str, Any], int], Iterator[Any]],
    ) -> None:
        self._stream = stream
        self._start = start
        self._division = division
        self._samples_from = samples_from
        self._yielded = 0
        self._samples = samples_from(start, 0)

    def __next__(self) -> Any:
        sample = next(self._samples)
        self._yielded += 1
        return sample

    def state_dict(self) -> dict[str, Any]:
        """Return where the iteration began, and how many samples this worker has yielded."""
        return self._start | self._division | {"yielded": self._yielded}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Yield what this worker had left; the stream's next iteration yields a whole epoch.

        If nothing is left of the epoch, the stream begins the next one.

        Raises:
            UsageError: the state is of another dataset or order, or of another number of ranks or
                batch size.
        """
        division = {name: state.get(name) for name in self._division}
        if division != self._division:
            raise UsageError(
                f"The loader's state was saved with {division}, and this stream has {self._division}, "
                "so the samples it counts are not the same. Use the same numbers, or a DataLoader with "
                "stream.track and stream.state_dict(), which may change them."
            )
        self._stream.load_state_dict(state)
        ended = get_worker_info() is None and len(self._stream) <= state["yielded"]
        self._yielded = state["yielded"]
        self._start = {name: state[name] for name in self._start}
        self._samples = self._samples_from(self._start, self._yielded)
        # The loader counts from here: a second count would shorten the epochs that follow.
        self._stream.load_state_dict(state | {"consumed": 0})
        if ended:
            self._stream.set_epoch(state["epoch"] + 1)
