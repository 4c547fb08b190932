"""Train from the mirror with PyTorch: datasets, and a sampler that resumes within an epoch.

    from mirror import Fetcher
    from mirror.torch import MirrorDataset, ResumableSampler

    fetch = Fetcher.from_config("mirror.toml")
    dataset = MirrorDataset("train.jsonl", fetch, label_field="species", transform=to_tensor)
    sampler = ResumableSampler(dataset)
    loader = DataLoader(dataset, batch_size=64, sampler=sampler, num_workers=4)
    for images, labels in sampler.track(loader):
        ...

An image that cannot be read raises an exception or, if you choose so, is replaced by another sample;
it never becomes a black image.
"""

from __future__ import annotations

from mirror.system.extras import missing

try:
    import torch  # noqa: F401 - the files below need it, and name no extra
except ModuleNotFoundError:
    raise ModuleNotFoundError(missing("torch", "mirror.torch"), name="torch") from None

from mirror.content.decode import rgb
from mirror.fetch.sample_table import DatasetCheck
from mirror.torch.bad_samples import BadSample
from mirror.torch.datasets import MirrorDataset, MirrorIterableDataset
from mirror.torch.sampler import ResumableSampler

__all__ = [
    "BadSample",
    "DatasetCheck",
    "MirrorDataset",
    "MirrorIterableDataset",
    "ResumableSampler",
    "rgb",
]
