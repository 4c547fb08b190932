"""docs/security.md says of each key what terraform/ gives it and what the tests find enough."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from mirror.backfill.answers import MOST_REDIRECTS
from mirror.fetch.http.transport import _MOST_REDIRECTS
from tests.security.test_keys import LEAST
from tests.servers import GC, READER, WRITER, Identity

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text()
COLUMNS = ("objects/ab/x.jpg", "catalog/part-1.parquet", "format.json", "gc.json", "doctor/x")
# The table's words as actions on an object; to overwrite is to put, and a condition is the writer's.
WORDS = {"read": "GetObject", "add": "PutObject", "write": "PutObject", "overwrite": "PutObject", "delete": "DeleteObject"}  # fmt: skip


def may(identity: Identity, action: str, key: str) -> bool:
    """What its policy says of a key below a prefix."""
    for statement in json.loads(identity.policy)["Statement"]:
        for resource in statement["Resource"]:
            pattern = re.escape(resource.removeprefix("arn:aws:s3:::")).replace(r"\*", ".*")
            if f"s3:{action}" in statement["Action"] and re.fullmatch(pattern, f"bucket/p/{key}"):
                return True
    return False


@pytest.mark.parametrize("identity", [WRITER, READER, GC], ids=lambda identity: identity.name)
def test_what_each_key_may_do_is_what_it_may(identity: Identity) -> None:
    (row,) = re.findall(rf"^\| {identity.name} \|(.*)\|$", TEXT, re.MULTILINE)[:1]
    for key, cell in zip(COLUMNS, row.split("|"), strict=True):
        told = {WORDS[word.split()[0]] for word in cell.strip().split(", ")}
        assert told == {action for action in WORDS.values() if may(identity, action, key)}, key


def test_whose_key_is_enough() -> None:
    table = TEXT.split("| key | commands |\n|---|---|\n")[1].split("\n\n")[0]
    told = {
        name.strip(): set(re.findall(r"`([a-z-]+)`", cell))
        for name, cell in re.findall(r"^\| (\w+) \|(.*)\|$", table, re.MULTILINE)
    }
    for name, key in LEAST.items():
        # doctor writes a probe where it may; as LEAST has it, it is told not to.
        wanted = "writer" if name == "doctor" else key or "none"
        assert name in told[wanted], name
    assert sum(map(len, told.values())) == len(LEAST)


def test_the_numbers_are_the_codes() -> None:
    numbers = {3: "three", 5: "five"}
    assert f"redirects: {numbers[MOST_REDIRECTS]} at most" in TEXT
    assert f"{numbers[_MOST_REDIRECTS]} are followed within it" in TEXT


def test_workflows_run_what_the_makefile_has() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    ran = set()
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            commands = [step.get("run", "") for step in job["steps"]]
            ran |= {
                word for command in commands for word in re.findall(r"\bmake ([a-z-]+)", command)
            }
    assert "audit" in ran
    assert ran <= targets


def test_it_can_be_read_at_one_sitting() -> None:
    assert len(TEXT.splitlines()) <= 140
