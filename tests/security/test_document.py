"""docs/security.md lists the permissions of terraform/, the keys that suffice, and tests that exist."""

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
# The table's words as actions on an object. An overwrite is a put with a condition.
WORDS = {"read": "GetObject", "add": "PutObject", "write": "PutObject", "overwrite": "PutObject", "delete": "DeleteObject"}  # fmt: skip


def may(identity: Identity, action: str, key: str) -> bool:
    """True if the policy allows the action on a key below a prefix."""
    for statement in json.loads(identity.policy)["Statement"]:
        for resource in statement["Resource"]:
            pattern = re.escape(resource.removeprefix("arn:aws:s3:::")).replace(r"\*", ".*")
            if f"s3:{action}" in statement["Action"] and re.fullmatch(pattern, f"bucket/p/{key}"):
                return True
    return False


# The test server's writer may overwrite, as terraform's repairer.
KEYS = {"writer": WRITER, "repairer": WRITER, "reader": READER, "gc": GC}


@pytest.mark.parametrize(("name", "identity"), KEYS.items(), ids=KEYS)
def test_permissions_of_each_key_match_its_policy(name: str, identity: Identity) -> None:
    (row,) = re.findall(rf"^\| {name} \|(.*)\|$", TEXT, re.MULTILINE)[:1]
    assert ("overwrite" in row) == (name == "repairer")
    for key, cell in zip(COLUMNS, row.split("|"), strict=True):
        told = {WORDS[word.split()[0]] for word in cell.strip().split(", ")}
        assert told == {action for action in WORDS.values() if may(identity, action, key)}, key


def test_each_command_is_listed_with_its_least_key() -> None:
    table = TEXT.split("| key | commands |\n|---|---|\n")[1].split("\n\n")[0]
    told = {
        name.strip(): set(re.findall(r"`([a-z-]+)`", cell))
        for name, cell in re.findall(r"^\| (\w+) \|(.*)\|$", table, re.MULTILINE)
    }
    for name, key in LEAST.items():
        # doctor writes a probe if it may. LEAST has it with --read-only.
        wanted = "writer" if name == "doctor" else key or "none"
        assert name in told[wanted], name
    assert sum(map(len, told.values())) == len(LEAST)


def table_below(heading: str) -> list[list[str]]:
    """The cells of each row of the first table below a heading."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [row.removeprefix("| ").removesuffix(" |").split(" | ") for row in rows[2:]]


def test_each_row_names_a_test_that_exists() -> None:
    """A new row of "Trust" or "Checks" needs a row in the table of attacks."""
    attacks = table_below("Attacks and their tests")
    rows = [row[0] for heading in ("Trust", "Checks") for row in table_below(heading)]
    wanted = {re.sub(r" \([^()]*\)$", "", row) for row in rows}
    assert {row[0] for row in attacks} == wanted
    for what, _, cell in attacks:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", cell)
        assert named, what
        for file, test in named:
            assert f"\ndef {test}(" in (ROOT / "tests" / file).read_text(), f"{file}::{test}"


def test_numbers_match_the_code() -> None:
    numbers = {3: "three", 5: "five"}
    assert f"redirects: {numbers[MOST_REDIRECTS]} at most" in TEXT
    assert f"{numbers[_MOST_REDIRECTS]} are followed within it" in TEXT


def test_workflows_run_targets_of_the_makefile() -> None:
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


def test_the_page_is_short() -> None:
    assert len(TEXT.splitlines()) <= 210
