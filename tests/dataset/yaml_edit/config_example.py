"""A training configuration, and assignments as the command line gives them."""

from __future__ import annotations

from mirror.dataset.yaml_edit.assignment import Assignment, parse_assignment

TRAINING_CONFIG = """\
# All regions
data:
    train_jsonl:   /data/old/train.jsonl   # 900k
    val_jsonl: "/data/old/val.jsonl"

model: {name: 'vit-l', width: 1_024}   # flow
optimizer:
  lr: 1e-3
...
"""


def assigned(*texts: str) -> list[Assignment]:
    return [parse_assignment(text) for text in texts]
