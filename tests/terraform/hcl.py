"""Reads Terraform's files as values for the tests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hcl2

ROOT = Path(__file__).resolve().parents[2]
TERRAFORM = ROOT / "terraform"
MODULES = sorted(TERRAFORM.glob("*/"))
EXAMPLES = sorted(TERRAFORM.glob("*/examples/*/"))
FILES = sorted(TERRAFORM.rglob("*.tf"))

Body = dict[str, Any]


@dataclass(frozen=True)
class Folder:
    """All blocks of a folder's files: `resources` and `data` by `(kind, name)`, others by name."""

    path: Path
    text: str
    resources: dict[tuple[str, str], Body] = field(default_factory=dict)
    data: dict[tuple[str, str], Body] = field(default_factory=dict)
    variables: dict[str, Body] = field(default_factory=dict)
    outputs: dict[str, Body] = field(default_factory=dict)
    modules: dict[str, Body] = field(default_factory=dict)
    local: dict[str, Any] = field(default_factory=dict)
    providers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Folder:
        files = sorted(path.glob("*.tf"))
        folder = cls(path, "\n".join(file.read_text() for file in files))
        for file in files:
            parsed = hcl2.loads(
                file.read_text(),
                serialization_options=hcl2.SerializationOptions(with_comments=False),
            )
            for kind, target in (("resource", folder.resources), ("data", folder.data)):
                for block in parsed.get(kind, ()):
                    ((quoted, named),) = _blocks(block)
                    ((name, body),) = _blocks(named)
                    target[quoted, name] = body
            for kind, by_name in (
                ("variable", folder.variables),
                ("output", folder.outputs),
                ("module", folder.modules),
            ):
                for block in parsed.get(kind, ()):
                    by_name.update(_blocks(block))
            for block in parsed.get("locals", ()):
                folder.local.update(_written(block))
            for block in parsed.get("terraform", ()):
                for required in block["required_providers"]:
                    for name, wanted in _written(required).items():
                        folder.providers[name] = unquoted(wanted["version"])
        return folder

    @property
    def code(self) -> str:
        """The text without comments."""
        return re.sub(r"^\s*#.*$", "", self.text, flags=re.MULTILINE)


def _written(body: Body) -> Body:
    return {name: value for name, value in body.items() if name != "__is_block__"}


def _blocks(body: Body) -> Iterator[tuple[str, Any]]:
    for label, value in _written(body).items():
        yield unquoted(label), value


def unquoted(value: str) -> str:
    """The text of a string literal."""
    literal = json.loads(value)
    assert isinstance(literal, str)
    return literal


def is_block(value: Any) -> bool:
    """True for `name { … }`, false for `name = …`."""
    return isinstance(value, list) and bool(value) and is_body(value[0])


def is_body(value: Any) -> bool:
    return isinstance(value, dict) and "__is_block__" in value


def literal(value: Any) -> Any:
    """The Python value of a literal. An expression stays text."""
    if isinstance(value, str):
        return unquoted(value) if value.startswith('"') else value
    if isinstance(value, list):
        return [literal(item) for item in value]
    if isinstance(value, dict):
        return {name: literal(item) for name, item in _written(value).items()}
    return value
