"""`Resumable`: the position of a training in its epochs, saved with a checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any, Final

from mirror.errors import UsageError
from mirror.torch.epoch_order import EpochOrder, Share
from mirror.torch.rank_agreement import check_ranks_agree, check_same_rank

_log = logging.getLogger(__name__)

_STATE: Final = ("epoch", "seed", "consumed", "samples", "fingerprint", "shuffle")


class Resumable:
    """Counts the samples that training has consumed of an order that all ranks share.

    A sample is consumed when the training loop receives it, not when a worker reads it ahead: `track`
    counts each batch as it yields it. So a state that is saved after a step includes that step's
    batch, and a resumed run goes on with the next one. The count is that of all ranks together, which
    receive equally many. So the number of ranks and workers may change between runs.

    The ranks of torch.distributed compare their datasets, options and positions when each is made
    and when each epoch begins: all ranks must do both, in the same order.

    Args:
        length: samples of the dataset.
        fingerprint: hash of the dataset's samples and their order; None if nothing is known of them.
        seed: seed of the order.
        rank: this rank, from 0.
        world_size: number of ranks.
        rank_given: the caller chose rank and number of ranks. Otherwise they were found, and must be
            those of torch.distributed whenever samples are divided.
        shuffle: False keeps the dataset's order.
        drop_last: leave out the samples that do not divide evenly among ranks, instead of repeating
            some.

    Attributes:
        epoch: the current epoch, from 0.
        rank: this rank, from 0.
        world_size: number of ranks.

    Raises:
        UsageError: there is no such rank, or the ranks differ in their dataset or options.
    """

    def __init__(
        self,
        length: int,
        fingerprint: str | None,
        *,
        seed: int,
        rank: int,
        world_size: int,
        rank_given: bool,
        shuffle: bool,
        drop_last: bool,
    ) -> None:
        if not 0 <= rank < world_size:
            raise UsageError(f"Rank {rank} is not one of {world_size}, which count from 0.")
        self.epoch = 0
        self.rank = rank
        self.world_size = world_size
        self._rank_given = rank_given
        self._seed = seed
        self._consumed = 0
        self._samples = length
        self._fingerprint = fingerprint
        self._shuffle = shuffle
        self._drop_last = drop_last
        self._check_ranks()

    def _check_ranks(self) -> None:
        """Raise UsageError on all ranks if they would not share this epoch."""
        facts = Resumable.state_dict(self) | {"drop_last": self._drop_last}
        check_ranks_agree(self.rank, self.world_size, facts)

    @property
    def _share(self) -> Share:
        """The positions that this rank has left of the epoch.

        Raises:
            UsageError: the rank of this process has changed.
        """
        return self._share_from(Resumable.state_dict(self))

    def _share_from(self, state: dict[str, Any]) -> Share:
        """The positions that this rank has left of the epoch of a state."""
        self._check_rank()
        begin = state["consumed"]
        return Share(self._samples, begin, self.rank, self.world_size, self._drop_last)

    def _order_of(self, state: dict[str, Any]) -> EpochOrder:
        """The order of the epoch of a state."""
        return EpochOrder(self._samples, state["seed"], state["epoch"], shuffle=self._shuffle)

    def _check_rank(self) -> None:
        """Raise UsageError if the rank of this process has changed since it was found."""
        if not self._rank_given:
            check_same_rank(type(self).__name__, self.rank, self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch. For the current epoch, this changes nothing."""
        if epoch != self.epoch:
            self.epoch, self._consumed = epoch, 0
        self._share_position()

    def advance(self, samples: int) -> None:
        """Count samples as consumed, for loops without `track`. Every rank must count the same number.

        Args:
            samples: samples of this rank's batch, including those that `on_bad` has skipped or
                replaced.
        """
        self._consumed = min(self._samples, self._consumed + samples * self.world_size)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, as JSON-serialisable values.

        It holds the epoch, the seed, the samples consumed by all ranks together, and what identifies
        the dataset and the order.
        """
        position = self.epoch, self._seed, self._consumed
        source = self._samples, self._fingerprint, self._shuffle
        return dict(zip(_STATE, position + source, strict=True))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of a checkpoint, whatever its number of ranks.

        Raises:
            UsageError: the state is no sampler state, or of another dataset, subset or order.
        """
        try:
            epoch, seed, consumed, samples, fingerprint, shuffle = (state[name] for name in _STATE)
        except (KeyError, TypeError):
            raise UsageError(
                f"This is no sampler state: it needs the keys {', '.join(_STATE)}."
            ) from None
        # Two datasets without a fingerprint are compared by length: nothing else is known of them.
        if (samples, fingerprint) != (self._samples, self._fingerprint):
            raise UsageError(
                f"The checkpoint is of a dataset of {samples:,} samples (fingerprint {fingerprint}), "
                f"this one has {self._samples:,} ({self._fingerprint}), so its epoch cannot be "
                "continued. Train on the same file and the same split, or start the epoch without the "
                "sampler's state."
            )
        if shuffle != self._shuffle:
            raise UsageError(
                f"The checkpoint has shuffle={shuffle}, this one has shuffle={self._shuffle}, so the "
                "remaining samples would differ. Use the same shuffle, or start the epoch without "
                "the sampler's state."
            )
        self.epoch, self._seed, self._consumed = epoch, seed, consumed
        self._share_position()

    def _tracked(self, loader: Any, batch_size: int) -> Iterator[Any]:
        """Yield the loader's batches, each counted before it is yielded.

        Raises:
            UsageError: the loader does not keep the order of batches, or counts them itself.
        """
        if hasattr(loader, "load_state_dict"):  # as torchdata's StatefulDataLoader
            raise UsageError(
                "The loader keeps a state of its own, and two counts would not agree. Iterate over the "
                "loader itself and save loader.state_dict(), or give track a DataLoader of torch."
            )
        if not getattr(loader, "in_order", True):  # the option exists since PyTorch 2.6
            raise UsageError(
                "The loader has in_order=False, so the number of batches does not say which ones were "
                "consumed, and no run could resume. Leave in_order out."
            )
        return self._counted_batches(loader, batch_size)

    def _counted_batches(self, loader: Any, batch_size: int) -> Iterator[Any]:
        self._check_ranks()
        self._share_position()
        left = self._share.left
        before, batches = self._fetch_stats(), 0
        started = requested = time.monotonic()
        waited = 0.0
        for batch in loader:
            waited += time.monotonic() - requested
            taken = min(batch_size, left)
            left -= taken
            batches += 1
            consumed = self._consumed
            try:
                self.advance(taken)
                yield batch
            except GeneratorExit:
                raise  # the loop has this batch, and takes no other
            except BaseException:
                # A signal handler (Ctrl-C, or torch's for a killed worker) raised before the loop was
                # handed the batch. A state that is saved now must not count it.
                self._consumed = consumed
                self._share_position()
                raise
            requested = time.monotonic()
        now = time.monotonic()
        _log.info(
            "epoch %d, rank %d of %d: %d batches in %.1f s, %.1f s of them without data%s",
            *(self.epoch, self.rank, self.world_size, batches, now - started),
            waited + now - requested,
            "" if before is None else f"; {self._fetch_stats() - before}",
        )
        self.set_epoch(self.epoch + 1)

    def _share_position(self) -> None:
        """Tell the dataset the epoch and position at which the next iteration begins."""

    def _fetch_stats(self) -> Any:
        """The dataset's fetch statistics so far; None if the dataset is not one of ours."""
