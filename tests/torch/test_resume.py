"""Consumed and remaining samples over checkpoints, ranks and epochs, without DataLoader workers."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader

from mirror.errors import UsageError
from mirror.torch import ResumableSampler
from mirror.torch.sampler import rank_of


class Numbers:
    """A dataset whose samples are their own numbers."""

    def __init__(self, length: int, fingerprint: str | None = "same") -> None:
        self._length = length
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> int:
        return index


def loader_of(sampler: ResumableSampler, batch_size: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(
        Numbers(sampler.state_dict()["samples"]),  # type: ignore[arg-type]
        batch_size=batch_size,
        sampler=sampler,
        **options,
    )


def ranks(
    length: int, world_size: int, state: dict[str, Any] | None, **options: Any
) -> list[ResumableSampler]:
    samplers = [
        ResumableSampler(Numbers(length), rank=rank, world_size=world_size, **options)
        for rank in range(world_size)
    ]
    for sampler in samplers:
        if state is not None:
            sampler.load_state_dict(state)
    return samplers


def taken(
    samplers: Sequence[ResumableSampler], batch_size: int, batches: int | None
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """`(numbers of all ranks in one step, the state after it)`, step by step."""
    tracked = [sampler.track(loader_of(sampler, batch_size)) for sampler in samplers]
    step = 0
    while batches is None or step < batches:
        together = [batch for one in tracked if (batch := next(one, None)) is not None]
        if not together:
            return
        assert len(together) == len(samplers), "ranks differ in their number of batches"
        sizes = {len(one) for one in together}
        assert len(sizes) == 1, "ranks differ in the size of a batch"
        states = [json.dumps(sampler.state_dict()) for sampler in samplers]
        assert len(set(states)) == 1, "ranks differ in their state"
        yield [int(number) for one in together for number in one], json.loads(states[0])
        step += 1


def test_a_checkpoint_counts_yielded_batches_only() -> None:
    sampler = ResumableSampler(Numbers(100), seed=5)
    seen = []
    for batch in sampler.track(loader_of(sampler, 8, num_workers=2, prefetch_factor=4)):
        seen += batch.tolist()
        assert sampler.state_dict()["consumed"] == len(seen)
        if len(seen) == 24:
            break
    again = ResumableSampler(Numbers(100), seed=99)
    again.load_state_dict(sampler.state_dict())
    rest = [number for batch in again.track(loader_of(again, 8)) for number in batch.tolist()]
    assert sorted(seen + rest) == list(range(100))


def test_a_resumed_run_takes_the_same_batches_as_an_unbroken_one() -> None:
    whole = ResumableSampler(Numbers(50))
    batches = [b.tolist() for _ in range(3) for b in whole.track(loader_of(whole, 8))]
    for done in range(len(batches)):
        first = ResumableSampler(Numbers(50))
        got: list[list[int]] = []
        while len(got) < done:
            for batch in first.track(loader_of(first, 8)):
                got.append(batch.tolist())
                if len(got) == done:
                    break
        second = ResumableSampler(Numbers(50))
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        while second.epoch < 3:
            got += [b.tolist() for b in second.track(loader_of(second, 8))]
        assert got == batches


@given(
    st.integers(1, 300),
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 6), st.integers(1, 20)), max_size=4),
    st.booleans(),
)
def test_no_sample_is_lost_or_repeated_when_the_number_of_ranks_changes(
    length: int, phases: list[tuple[int, int, int]], drop_last: bool
) -> None:
    """Phases of a run: number of ranks, steps until the stop, batch size."""
    state, seen = None, Counter[int]()
    ranks_met = []
    for world_size, steps, batch_size in [*phases, (1, 10**9, 7)]:
        samplers = ranks(length, world_size, state, drop_last=drop_last)
        if samplers[0].epoch:
            break
        ranks_met.append(world_size)
        for numbers, after in taken(samplers, batch_size, steps):
            seen.update(numbers)
            state = after
        if state is None:
            state = samplers[0].state_dict()
    assert all(seen[number] >= (0 if drop_last else 1) for number in range(length))
    # Only the last step of an epoch may repeat or leave out samples: fewer than one a rank.
    assert seen.total() - length < max(ranks_met)
    assert length - len(seen) < max(ranks_met)


def test_one_rank_then_four_then_two() -> None:
    length, state, seen = 1000, None, Counter[int]()
    for world_size, steps in ((1, 7), (4, 5), (2, None)):
        for numbers, after in taken(ranks(length, world_size, state), 16, steps):
            seen.update(numbers)
            state = after
    assert seen == Counter(range(length))
    assert state is not None
    assert state["consumed"] == length


def test_after_the_last_batch_the_next_epoch_begins() -> None:
    sampler = ResumableSampler(Numbers(10))
    first = [n for b in sampler.track(loader_of(sampler, 4)) for n in b.tolist()]
    assert sampler.epoch == 1
    assert sampler.state_dict()["consumed"] == 0
    second = [n for b in sampler.track(loader_of(sampler, 4)) for n in b.tolist()]
    assert first != second
    assert sorted(first) == sorted(second) == list(range(10))


def test_the_loader_may_drop_a_short_last_batch() -> None:
    sampler = ResumableSampler(Numbers(10))
    assert len(list(sampler.track(loader_of(sampler, 4, drop_last=True)))) == 2
    assert sampler.epoch == 1


def test_setting_the_current_epoch_does_not_restart_it() -> None:
    sampler = ResumableSampler(Numbers(100))
    sampler.load_state_dict(sampler.state_dict() | {"epoch": 3, "consumed": 40})
    sampler.set_epoch(3)
    assert len(sampler) == 60
    sampler.set_epoch(4)
    assert len(sampler) == 100


def test_a_custom_loop_counts_with_advance() -> None:
    sampler = ResumableSampler(Numbers(100), rank=0, world_size=2)
    for _ in zip(range(3), loader_of(sampler, 10), strict=False):
        sampler.advance(10)
    assert sampler.state_dict()["consumed"] == 60


STATE = ResumableSampler(Numbers(10)).state_dict() | {"consumed": 8}


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"epoch": 1},
        STATE | {"samples": 11},
        STATE | {"fingerprint": "another"},
        STATE | {"shuffle": False},
        {name: value for name, value in STATE.items() if name != "shuffle"},
    ],
)
def test_a_state_of_another_dataset_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ResumableSampler(Numbers(10)).load_state_dict(state)


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_state_of_another_order_is_refused(shuffle: bool) -> None:
    """The remaining samples would differ. The sampler keeps its own position."""
    state = json.loads(json.dumps(ResumableSampler(Numbers(10), shuffle=shuffle).state_dict()))
    ResumableSampler(Numbers(10), shuffle=shuffle).load_state_dict(state)
    other = ResumableSampler(Numbers(10), shuffle=not shuffle)
    with pytest.raises(UsageError, match=f"shuffle={shuffle}, this one has shuffle={not shuffle}"):
        other.load_state_dict(state | {"epoch": 3})
    assert other.epoch == 0


def test_datasets_without_a_fingerprint_are_compared_by_length() -> None:
    state = ResumableSampler(Numbers(10, None)).state_dict() | {"epoch": 3}
    sampler = ResumableSampler(Numbers(10, None))
    sampler.load_state_dict(state)
    assert sampler.epoch == 3
    with pytest.raises(UsageError, match="10 samples"):
        ResumableSampler(Numbers(11, None)).load_state_dict(state)


@pytest.mark.parametrize(("saved", "now"), [(None, "known"), ("known", None)])
def test_a_fingerprint_on_one_side_only_is_refused(saved: str | None, now: str | None) -> None:
    """One of the two is another dataset, or a wrapper that chooses samples of its own."""
    state = ResumableSampler(Numbers(10, saved)).state_dict()
    with pytest.raises(UsageError, match="same split"):
        ResumableSampler(Numbers(10, now)).load_state_dict(state)


def test_a_batch_that_an_interrupt_withholds_is_not_consumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C between the count of a batch and the loop, which then saves its state."""
    really_advance = ResumableSampler.advance

    def advance(sampler: ResumableSampler, samples: int) -> None:
        really_advance(sampler, samples)
        if sampler.state_dict()["consumed"] == 8:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ResumableSampler, "advance", advance)
    sampler = ResumableSampler(Numbers(20), shuffle=False)
    tracked = sampler.track(loader_of(sampler, 4))
    assert next(tracked).tolist() == [0, 1, 2, 3]
    with pytest.raises(KeyboardInterrupt):
        next(tracked)
    assert sampler.state_dict()["consumed"] == 4
    monkeypatch.undo()
    rest = sampler.track(loader_of(sampler, 4))
    assert next(rest).tolist() == [4, 5, 6, 7]
    rest.close()  # type: ignore[attr-defined]
    assert sampler.state_dict()["consumed"] == 8


def test_a_loader_with_another_sampler_is_refused() -> None:
    sampler = ResumableSampler(Numbers(10))
    numbers: Any = Numbers(10)
    with pytest.raises(UsageError, match="another sampler"):
        sampler.track(DataLoader(numbers, batch_size=2))
    with pytest.raises(UsageError, match="another sampler"):
        sampler.track(DataLoader(numbers, batch_sampler=BatchSampler(sampler, 2, False)))


@pytest.mark.parametrize(
    ("given", "environ", "found"),
    [
        ((None, None), {}, (0, 1)),
        ((None, None), {"RANK": "3", "WORLD_SIZE": "8"}, (3, 8)),
        ((None, None), {"RANK": "3"}, (0, 1)),
        ((1, 2), {"RANK": "3", "WORLD_SIZE": "8"}, (1, 2)),
    ],
)
def test_the_rank_is_found(
    given: tuple[int | None, int | None], environ: dict[str, str], found: tuple[int, int]
) -> None:
    assert rank_of(*given, environ) == found


@pytest.mark.parametrize("given", [(None, 2), (0, None)])
def test_rank_without_world_size_is_refused(given: tuple[int | None, int | None]) -> None:
    with pytest.raises(UsageError, match="both"):
        rank_of(*given, {})


@pytest.mark.parametrize(("rank", "world_size"), [(2, 2), (-1, 2)])
def test_a_rank_out_of_range_is_refused(rank: int, world_size: int) -> None:
    with pytest.raises(UsageError, match="not one of"):
        ResumableSampler(Numbers(10), rank=rank, world_size=world_size)


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(UsageError, match="no samples"):
        ResumableSampler(Numbers(0))
