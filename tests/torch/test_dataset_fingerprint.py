"""A state continues only with the same samples: subsets, splits, concatenated and wrapped datasets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import ConcatDataset, StackDataset, Subset, TensorDataset, random_split

from mirror import Fetcher
from mirror.errors import UsageError
from mirror.torch import MirrorDataset, ResumableSampler
from mirror.torch.dataset_fingerprint import fingerprint_of
from tests.support.photos import url_of
from tests.torch.training_setup import Prepared, write_dataset

COUNT = 40


class Named(torch.utils.data.Dataset[Any]):
    """A dataset of numbers with a fingerprint."""

    def __init__(self, fingerprint: str, length: int = COUNT) -> None:
        self.fingerprint = fingerprint
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> int:
        return index


class Wrapper:
    """A wrapper that hides what it does to its dataset."""

    def __init__(self, dataset: Any, length: int = 10) -> None:
        self.dataset = dataset
        self._length = length

    def __len__(self) -> int:
        return self._length


A: Any = Named("a")
B: Any = Named("b")
UNKNOWN: Any = range(COUNT)


def part_of(dataset: Any, seed: int = 0) -> Any:
    """The larger part of a random split."""
    return random_split(dataset, [32, 8], torch.Generator().manual_seed(seed))[0]


def subset(dataset: Any, indices: Sequence[int]) -> Any:
    return Subset(dataset, indices)


PAIRS = {
    "another split": (part_of(A, 0), part_of(A, 1)),
    "a split of another file": (part_of(A), part_of(B)),
    "another split of an unknown dataset": (part_of(UNKNOWN, 0), part_of(UNKNOWN, 1)),
    "other indices": (subset(A, range(10)), subset(A, range(10, 20))),
    "another order": (subset(A, [1, 2, 3]), subset(A, [3, 2, 1])),
    "a subset, and all": (subset(A, range(COUNT)[::-1]), A),
    "other inner indices": (
        subset(subset(A, range(10)), range(5)),
        subset(subset(A, range(10, 20)), range(5)),
    ),
    "other outer indices": (
        subset(subset(A, range(10)), range(5)),
        subset(subset(A, range(10)), range(5, 10)),
    ),
    "another order of parts": (ConcatDataset([A, B]), ConcatDataset([B, A])),
    "another split inside": (ConcatDataset([part_of(A, 0), B]), ConcatDataset([part_of(A, 1), B])),
    "another boundary": (
        ConcatDataset([Named("a", 10), Named("b", 30)]),
        ConcatDataset([Named("a", 10), UNKNOWN[:30]]),
    ),
    "unknown parts of other lengths": (
        ConcatDataset([UNKNOWN[:10], UNKNOWN[:30]]),
        ConcatDataset([UNKNOWN[:30], UNKNOWN[:10]]),
    ),
    "other columns": (StackDataset(A, B), StackDataset(B, A)),
    "other names of columns": (StackDataset(x=A, y=B), StackDataset(y=A, x=B)),
    "another dataset in a wrapper": (Wrapper(A), Wrapper(B)),
    "another split in a wrapper": (Wrapper(part_of(A, 0)), Wrapper(part_of(A, 1))),
    "a wrapper, and its dataset": (Wrapper(A, COUNT), A),
    "unknown, and known": (UNKNOWN, A),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_a_state_of_other_samples_is_refused(pair: tuple[Any, Any]) -> None:
    for saved, now in (pair, pair[::-1]):
        state = json.loads(json.dumps(ResumableSampler(saved).state_dict()))
        with pytest.raises(UsageError, match="cannot be continued"):
            ResumableSampler(now).load_state_dict(state | {"samples": len(now)})


@pytest.mark.parametrize(
    "make",
    [
        lambda: part_of(Named("a")),
        lambda: subset(part_of(UNKNOWN), [5, -1]),
        lambda: ConcatDataset([part_of(Named("a")), UNKNOWN]),
        lambda: StackDataset(x=Named("a"), y=UNKNOWN),
        lambda: Wrapper(Wrapper(Named("a"))),
        lambda: Wrapper(object()),
        lambda: TensorDataset(torch.arange(9)),
    ],
)
def test_a_state_of_the_same_samples_is_accepted(make: Any) -> None:
    state = ResumableSampler(make()).state_dict() | {"consumed": 2}
    again = ResumableSampler(make())
    again.load_state_dict(state)
    assert again.state_dict() == state


def test_indices_of_any_kind_have_one_fingerprint() -> None:
    kinds: list[Any] = [range(8), [*range(8)], torch.arange(8), [*torch.arange(8)]]
    assert len({fingerprint_of(subset(A, kind)) for kind in kinds}) == 1


def test_a_wrapper_can_say_what_it_does() -> None:
    wrapper: Any = Wrapper(A)
    wrapper.fingerprint = "reversed a"
    state = ResumableSampler(wrapper).state_dict()
    assert state["fingerprint"] == "reversed a"
    with pytest.raises(UsageError, match="cannot be continued"):
        ResumableSampler(Wrapper(A)).load_state_dict(state)


def test_fingerprints_do_not_change_between_versions() -> None:
    """A checkpoint of an older version must find the same fingerprint."""
    assert fingerprint_of(subset(A, [3, 1, 2])) == "58494fac7c08c28c"
    assert fingerprint_of(ConcatDataset([A, B])) == "5fbd6ec558590855"


def test_a_split_of_a_reordered_file_is_refused(
    made: Prepared, fetch: Fetcher, tmp_path: Path
) -> None:
    def dataset(numbers: Sequence[int]) -> MirrorDataset:
        file = tmp_path / "split.jsonl"
        write_dataset(file, [url_of(number) for number in numbers])
        return MirrorDataset(file, fetch)

    state = ResumableSampler(part_of(dataset(range(COUNT)))).state_dict()
    ResumableSampler(part_of(dataset(range(COUNT)))).load_state_dict(state)
    for other in (part_of(dataset([*range(20, 40), *range(20)])), part_of(dataset(range(40)), 1)):
        with pytest.raises(UsageError, match="cannot be continued"):
            ResumableSampler(other).load_state_dict(state)
