"""`ResumableSampler`: a sampler for a map-style dataset, which resumes within an epoch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any, Final

import numpy as np
import torch.distributed
from torch.utils.data import DataLoader, DistributedSampler, Subset

from mirror.errors import UsageError
from mirror.system.display_text import plural
from mirror.torch.dataset_fingerprint import fingerprint_of
from mirror.torch.resume import Resumable
from mirror.torch.samples import Samples

_BLOCK: Final = 4096


class ResumableSampler(Resumable, DistributedSampler[int]):
    """A sampler that shuffles, divides samples among ranks, and resumes within an epoch.

    Use it in place of `torch.utils.data.DistributedSampler`. It is a subclass of it, so Lightning
    knows that it divides the samples and does not divide them again.

        sampler = ResumableSampler(dataset)
        loader = DataLoader(dataset, batch_size=64, sampler=sampler, num_workers=4)
        for epoch in range(sampler.epoch, epochs):
            for images, labels in sampler.track(loader):
                ...
                checkpoint["sampler"] = sampler.state_dict()

    Args:
        dataset (Sized): the dataset to draw from: a MirrorDataset, a Subset of one, or any other
            with a length. A wrapper of your own that chooses or reorders samples should have a
            `fingerprint`, a string that changes with them: states are compared by it.
        seed (int): seed of the order. Default: `0`.
        shuffle (bool): False keeps the dataset's order. Default: `True`.
        drop_last (bool): every rank gets equally many samples. True leaves the remainder out, False
            repeats some samples. Default: `False`.
        rank (int | None): this process, from 0. Default: from torch.distributed, else from the
            environment that torchrun sets, else 0.
        world_size (int | None): number of ranks. Default: likewise, else 1.

    Attributes:
        epoch: the current epoch, from 0.

    Raises:
        UsageError: the dataset is empty, there is no such rank, or the ranks of torch.distributed
            differ in their dataset or options.
    """

    def __init__(
        self,
        dataset: Sized,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if not len(dataset):
            raise UsageError("The dataset has no samples to draw.")
        given = rank is not None
        rank, world_size = rank_of(rank, world_size)
        # Workers choose replacements by the epoch, and they receive the dataset, not the sampler.
        self._source, indices = _unwrapped(dataset)
        if isinstance(self._source, Samples) and indices is not None:
            self._source.replace_from(indices)
        Resumable.__init__(
            self,
            len(dataset),
            fingerprint_of(dataset),
            seed=seed,
            rank=rank,
            world_size=world_size,
            rank_given=given,
            shuffle=shuffle,
            drop_last=drop_last,
        )
        # Programs that know DistributedSampler read its attributes.
        DistributedSampler.__init__(self, dataset, world_size, rank, shuffle, seed, drop_last)  # type: ignore[arg-type]
        self._share_position()

    def __len__(self) -> int:
        """Samples that this rank has left of the epoch."""
        return self._share.left

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} of {plural(self._samples, 'sample')}: epoch {self.epoch}, "
            f"{self._consumed:,} consumed, rank {self.rank} of {self.world_size}>"
        )

    def __iter__(self) -> DrawnSamples:
        return DrawnSamples(self, self._numbers_from)

    def _numbers_from(self, state: dict[str, Any]) -> Iterator[int]:
        """Yield the sample numbers that this rank has left of the epoch of a state."""
        share, order = self._share_from(state), self._order_of(state)
        for first in range(0, share.left, _BLOCK):
            yield from order.at(share.positions(first, first + _BLOCK)).tolist()

    def track(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """Yield the loader's batches for the rest of the epoch, and count each as consumed.

        After the last batch, the next epoch begins.

        Args:
            loader: a DataLoader that draws from this sampler.

        Raises:
            UsageError: the loader has another sampler, a batch sampler, `in_order=False` or a state of
                its own; or, at the first batch, the ranks have loaded different states.
        """
        if loader.sampler is not self:
            raise UsageError("The loader has another sampler: DataLoader(…, sampler=sampler).")
        if loader.batch_sampler is not None and loader.batch_size is None:
            raise UsageError(
                "A loader with a batch sampler does not know its batch size: iterate over the loader, "
                "and call sampler.advance(samples) after each step."
            )
        return self._tracked(loader, loader.batch_size or 1)

    def _fetch_stats(self) -> Any:
        stats = getattr(self._source, "stats", None)
        return None if stats is None else stats()

    def _share_position(self) -> None:
        if set_epoch := getattr(self._source, "set_epoch", None):
            set_epoch(self.epoch)


class DrawnSamples(Iterator[int]):
    """The sample numbers that one iteration draws, from the sampler's position on.

    torchdata's StatefulDataLoader saves the state of this iterator with a batch, and restores it. The
    count in it is that of the samples drawn, so the loader needs no `track` or `advance`.

    Args:
        sampler: the sampler that is iterated.
        numbers_from: yields the sample numbers of the sampler's rank from a state on.
    """

    def __init__(
        self,
        sampler: ResumableSampler,
        numbers_from: Callable[[dict[str, Any]], Iterator[int]],
    ) -> None:
        self._sampler = sampler
        self._numbers_from = numbers_from
        self._start: dict[str, Any] | None = None
        self._drawn = 0
        self._numbers = self._draw()

    def __next__(self) -> int:
        number = next(self._numbers)
        self._drawn += 1
        return number

    def state_dict(self) -> dict[str, Any]:
        """Return a state of the sampler that has consumed the samples drawn so far."""
        start = self._start or self._sampler.state_dict()
        drawn = self._drawn * self._sampler.world_size
        return start | {"consumed": min(start["samples"], start["consumed"] + drawn)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Draw the rest of the epoch from a state on; the sampler's next iteration draws all of it.

        If nothing is left of the epoch, the sampler begins the next one.

        Raises:
            UsageError: the state is no sampler state, or of another dataset, subset or order.
        """
        self._sampler.load_state_dict(state)
        self._start, self._drawn, self._numbers = state, 0, self._draw()
        ended = not len(self._sampler)
        # The loader counts from here: a second count would shorten the epochs that follow.
        self._sampler.load_state_dict(state | {"consumed": 0})
        if ended:
            self._sampler.set_epoch(self._sampler.epoch + 1)

    def _draw(self) -> Iterator[int]:
        # The first draw decides where it begins: set_epoch may be called after iter().
        if self._start is None:
            self._start = self._sampler.state_dict()
        yield from self._numbers_from(self._start)


def _unwrapped(dataset: Any) -> tuple[Any, Any]:
    """The dataset inside subsets and other wrappers, and which of its samples they have, if known."""
    indices: Any = range(len(dataset))
    while not hasattr(dataset, "set_epoch") and hasattr(dataset, "dataset"):
        if not isinstance(dataset, Subset):
            indices = None
        elif indices is not None:
            numbers = np.asarray(dataset.indices, np.int64)
            indices = numbers if isinstance(indices, range) else numbers[indices]
        dataset = dataset.dataset
    return dataset, indices


def rank_of(
    rank: int | None, world_size: int | None, environ: Mapping[str, str] | None = None
) -> tuple[int, int]:
    """Rank and number of ranks: as given, else from torch.distributed, else from torchrun, else 0, 1.

    Raises:
        UsageError: only one of the two is given.
    """
    if (rank is None) != (world_size is None):
        raise UsageError("Give both rank and world_size, or neither.")
    if rank is not None and world_size is not None:
        return rank, world_size
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    environ = os.environ if environ is None else environ
    if "RANK" in environ and "WORLD_SIZE" in environ:
        return int(environ["RANK"]), int(environ["WORLD_SIZE"])
    return 0, 1
