"""Where a training is in its epochs: what is saved with a checkpoint, and what is left after it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any, Final

from mirror.errors import UsageError
from mirror.torch.epoch_order import EpochOrder, Share

_log = logging.getLogger(__name__)

_STATE: Final = ("epoch", "seed", "consumed", "samples", "fingerprint", "shuffle")


class Resumable:
    """Counts what training has consumed of an order that all ranks share.

    Consumed is what the training loop was handed, not what workers have read ahead: `track` counts
    each batch as it hands it over. A state that is saved after a step therefore includes that step's
    batch, and a run that begins with the state goes on with the next. The count is of all ranks
    together, which hand over equally many, so that their number and that of workers may change.

    Args:
        length: samples of the dataset.
        fingerprint: of the dataset; None where there is none.
        seed: of the order.
        rank: from 0 on.
        world_size: ranks.
        shuffle: False keeps the dataset's order.
        drop_last: leave out what does not go evenly into ranks, in place of doubling some.
    """

    def __init__(
        self,
        length: int,
        fingerprint: str | None,
        *,
        seed: int,
        rank: int,
        world_size: int,
        shuffle: bool,
        drop_last: bool,
    ) -> None:
        if not 0 <= rank < world_size:
            raise UsageError(f"Rank {rank} is not one of {world_size}, which count from 0.")
        self.epoch = 0
        self.rank = rank
        self.world_size = world_size
        self._seed = seed
        self._consumed = 0
        self._samples = length
        self._fingerprint = fingerprint
        self._shuffle = shuffle
        self._drop_last = drop_last

    @property
    def share(self) -> Share:
        """What this rank has left of the epoch."""
        return Share(self._samples, self._consumed, self.rank, self.world_size, self._drop_last)

    @property
    def order(self) -> EpochOrder:
        """Of the present epoch."""
        return EpochOrder(self._samples, self._seed, self.epoch, shuffle=self._shuffle)

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch. Saying it of the epoch that goes on changes nothing."""
        if epoch != self.epoch:
            self.epoch, self._consumed = epoch, 0
        self._begin_here()

    def advance(self, samples: int) -> None:
        """This rank, and every other one, has trained on so many more.

        For loops without `track`. What counts are samples of the order: those that a policy has left
        out of a batch or replaced in it, too.
        """
        self._consumed = min(self._samples, self._consumed + samples * self.world_size)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: epoch, seed, samples consumed by all ranks, of which order of what."""
        place = self.epoch, self._seed, self._consumed
        of = self._samples, self._fingerprint, self._shuffle
        return dict(zip(_STATE, place + of, strict=True))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint was made, by however many ranks.

        Raises:
            UsageError: the state is of another dataset or order, or no state.
        """
        try:
            epoch, seed, consumed, samples, fingerprint, shuffle = (state[name] for name in _STATE)
        except (KeyError, TypeError):
            raise UsageError(f"This is no state of a sampler: it has not {_STATE}.") from None
        # A dataset that was wrapped in another has no fingerprint to compare.
        known = None not in (fingerprint, self._fingerprint)
        if samples != self._samples or (known and fingerprint != self._fingerprint):
            raise UsageError(
                f"The checkpoint is of a dataset of {samples:,} samples ({fingerprint}), this one has "
                f"{self._samples:,} ({self._fingerprint}): what is left of its epoch cannot be told. "
                "Train on the same file, or begin an epoch without the sampler's state."
            )
        if shuffle != self._shuffle:
            raise UsageError(
                f"The checkpoint has shuffle={shuffle}, this one has shuffle={self._shuffle}: what is "
                "left of one order is not what is left of the other. Give both the same, or begin an "
                "epoch without the sampler's state."
            )
        self.epoch, self._seed, self._consumed = epoch, seed, consumed
        self._begin_here()

    def _tracked(self, loader: Any, batch_size: int) -> Iterator[Any]:
        """Batches as the loader gives them, each counted before it is handed over.

        Raises:
            UsageError: the loader gives them in whatever order they come.
        """
        if not getattr(loader, "in_order", True):  # which PyTorch has since 2.6
            raise UsageError(
                "The loader has in_order=False: how many batches it has handed over does not tell "
                "which, so no run could go on with the rest. Leave in_order out."
            )
        return self._counted_batches(loader, batch_size)

    def _counted_batches(self, loader: Any, batch_size: int) -> Iterator[Any]:
        self._begin_here()
        left = self.share.left
        before, batches = self._fetched(), 0
        began = asked = time.monotonic()
        waited = 0.0
        for batch in loader:
            waited += time.monotonic() - asked
            taken = min(batch_size, left)
            left -= taken
            batches += 1
            self.advance(taken)
            yield batch
            asked = time.monotonic()
        now = time.monotonic()
        _log.info(
            "epoch %d, rank %d of %d: %d batches in %.1f s, %.1f s of them without data%s",
            *(self.epoch, self.rank, self.world_size, batches, now - began),
            waited + now - asked,
            "" if before is None else f"; {self._fetched() - before}",
        )
        self.set_epoch(self.epoch + 1)

    def _begin_here(self) -> None:
        """The next iteration begins at the present epoch and position: tell who has to know."""

    def _fetched(self) -> Any:
        """What the dataset's fetchers have counted so far; None where the dataset is another's."""
