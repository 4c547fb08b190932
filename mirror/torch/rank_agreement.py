"""The ranks of a training share an epoch only if they agree on its samples, order and position.

Each rank also has to be the one for which its share was computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.distributed

from mirror.errors import UsageError


def check_same_rank(name: str, rank: int, world_size: int) -> None:
    """Check that a rank that was found earlier is the one that torch.distributed has now.

    It does nothing if torch.distributed is not initialised.

    Args:
        name: the class that divides samples by this rank, for the error.
        rank: the rank found earlier, from 0.
        world_size: the number of ranks found earlier.

    Raises:
        UsageError: this process has another rank now, or the number of ranks has changed.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    now, ranks = distributed.get_rank(), distributed.get_world_size()
    if (now, ranks) != (rank, world_size):
        raise UsageError(
            f"This {name} was made as rank {rank} of {world_size}, but the process is now rank {now} "
            f"of {ranks}, so samples would be repeated or lost. Make it once torch.distributed is "
            "initialised (with Lightning: in train_dataloader), or give rank and world_size."
        )


def check_ranks_agree(rank: int, world_size: int, facts: Mapping[str, Any]) -> None:
    """Compare facts among all ranks of torch.distributed, and raise the same error on all of them.

    Every rank must call it at the same point, because the ranks wait for each other. It does nothing
    if torch.distributed is not initialised, or if `rank` and `world_size` are not its own: such a
    position was chosen by the caller, for example for a validation on one rank.

    Args:
        rank: this rank, from 0.
        world_size: number of ranks.
        facts: what must be equal on all ranks; the keys are the names in the error.

    Raises:
        UsageError: the ranks differ.
    """
    distributed = torch.distributed
    if world_size == 1 or not (distributed.is_available() and distributed.is_initialized()):
        return
    if (rank, world_size) != (distributed.get_rank(), distributed.get_world_size()):
        return
    of_ranks = _gathered(dict(facts), world_size)
    for other, its in enumerate(of_ranks):
        names = [name for name in facts if its[name] != of_ranks[0][name]]
        if names:
            raise UsageError(_difference(names, of_ranks[0], other, its))


def _gathered(facts: dict[str, Any], world_size: int) -> list[dict[str, Any]]:
    """The facts of all ranks, in order."""
    distributed = torch.distributed
    of_ranks: list[Any] = [None] * world_size
    if distributed.get_backend() == "gloo":
        distributed.all_gather_object(of_ranks, facts)
        return of_ranks
    # NCCL would send them from GPU to GPU, and a rank may not have chosen its own GPU yet.
    group = distributed.new_group(backend="gloo")
    try:
        distributed.all_gather_object(of_ranks, facts, group)
    finally:
        distributed.destroy_process_group(group)
    return of_ranks


def _difference(names: list[str], first: dict[str, Any], rank: int, its: dict[str, Any]) -> str:
    def shown(values: dict[str, Any]) -> str:
        return ", ".join(f"{name}={values[name]!r}" for name in names)

    if "samples" in names or "fingerprint" in names:
        advice = (
            "drop missing images once, with mirror rewrite, then start all ranks with the same file "
            "and the same version of the mirror"
        )
    else:
        advice = "give all ranks the same options, and load the same state on all of them"
    return (
        f"The ranks would not share one epoch, because rank 0 has {shown(first)} and rank {rank} has "
        f"{shown(its)}; {advice}."
    )
