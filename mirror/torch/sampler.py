"""`ResumableSampler`: a sampler for a map-style dataset, which resumes within an epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sized
from typing import Any, Final

import numpy as np
import torch.distributed
from torch.utils.data import DataLoader, Sampler, Subset

from mirror.errors import UsageError
from mirror.torch.dataset_fingerprint import fingerprint_of
from mirror.torch.resume import Resumable
from mirror.torch.samples import Samples

_BLOCK: Final = 4096


class ResumableSampler(Resumable, Sampler[int]):
    """A sampler that shuffles, divides samples among ranks, and resumes within an epoch.

    Use it in place of `torch.utils.data.DistributedSampler`.

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
        rank, world_size = rank_of(rank, world_size)
        # Workers choose replacements by the epoch, and they receive the dataset, not the sampler.
        self._source, indices = _unwrapped(dataset)
        if isinstance(self._source, Samples) and indices is not None:
            self._source.replace_from(indices)
        super().__init__(
            len(dataset),
            fingerprint_of(dataset),
            seed=seed,
            rank=rank,
            world_size=world_size,
            shuffle=shuffle,
            drop_last=drop_last,
        )
        self._share_position()

    def __len__(self) -> int:
        """Samples that this rank has left of the epoch."""
        return self._share.left

    def __iter__(self) -> Iterator[int]:
        share, order = self._share, self._order
        for first in range(0, share.left, _BLOCK):
            yield from order.at(share.positions(first, first + _BLOCK)).tolist()

    def track(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """Yield the loader's batches for the rest of the epoch, and count each as consumed.

        After the last batch, the next epoch begins.

        Args:
            loader: a DataLoader that draws from this sampler.

        Raises:
            UsageError: the loader has another sampler, a batch sampler, or `in_order=False`; or, at the
                first batch, the ranks have loaded different states.
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
