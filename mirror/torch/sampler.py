"""`ResumableSampler`: for a DataLoader over a dataset with a length."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sized
from typing import Any, Final

import numpy as np
import torch.distributed
from torch.utils.data import DataLoader, Sampler, Subset

from mirror.errors import UsageError
from mirror.torch.resume import Resumable
from mirror.torch.samples import Samples

_BLOCK: Final = 4096


class ResumableSampler(Resumable, Sampler[int]):
    """In place of DistributedSampler: shuffled, shared between ranks, and resumed in mid-epoch.

        sampler = ResumableSampler(dataset)
        loader = DataLoader(dataset, batch_size=64, sampler=sampler, num_workers=4)
        for epoch in range(sampler.epoch, epochs):
            for images, labels in sampler.track(loader):
                ...
                checkpoint["sampler"] = sampler.state_dict()

    Args:
        dataset: what is sampled from; anything that has a length.
        seed: of the order.
        shuffle: False keeps the dataset's order.
        drop_last: every rank has equally many samples: with it by leaving out the remainder, else
            by taking some twice.
        rank: None asks torch.distributed, or the environment that torchrun sets.
        world_size: the same.

    Raises:
        UsageError: the dataset is empty, or there is no such rank.
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
            raise UsageError("The dataset has no samples to take turns with.")
        rank, world_size = rank_of(rank, world_size)
        # Workers need the epoch to choose replacements, and only the dataset goes to them.
        self._source, indices = _unwrapped(dataset)
        if isinstance(self._source, Samples) and indices is not None:
            self._source.replace_from(indices)
        super().__init__(
            len(dataset),
            getattr(dataset, "fingerprint", None),
            seed=seed,
            rank=rank,
            world_size=world_size,
            shuffle=shuffle,
            drop_last=drop_last,
        )
        self._begin_here()

    def __len__(self) -> int:
        """Samples that this rank has left of the epoch."""
        return self.share.left

    def __iter__(self) -> Iterator[int]:
        share, order = self.share, self.order
        for first in range(0, share.left, _BLOCK):
            yield from order.at(share.positions(first, first + _BLOCK)).tolist()

    def track(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """The loader's batches for the rest of the epoch; each counts as consumed once it is handed over.

        After the last one the next epoch has begun.

        Raises:
            UsageError: the loader does not draw from this sampler, or by a batch sampler of its own, or
                has `in_order=False`.
        """
        if loader.sampler is not self:
            raise UsageError("The loader has another sampler: DataLoader(…, sampler=sampler).")
        if loader.batch_sampler is not None and loader.batch_size is None:
            raise UsageError(
                "With a batch sampler of its own the loader does not tell the size of a batch: "
                "iterate over it, and tell sampler.advance(samples) after each step."
            )
        return self._tracked(loader, loader.batch_size or 1)

    def _fetched(self) -> Any:
        stats = getattr(self._source, "stats", None)
        return None if stats is None else stats()

    def _begin_here(self) -> None:
        if set_epoch := getattr(self._source, "set_epoch", None):
            set_epoch(self.epoch)


def _unwrapped(dataset: Any) -> tuple[Any, Any]:
    """What is below subsets and other wrappers, and which of its samples they have, if that is known."""
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
    """Rank and number of ranks: as given, else torch.distributed's, else torchrun's, else 0 of 1.

    Raises:
        UsageError: only one of them is given.
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
