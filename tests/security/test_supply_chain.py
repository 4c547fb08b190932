"""What runs in a workflow or an audit is named by a hash, and has few permissions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_name_actions_by_commit(path: Path) -> None:
    """A tag can be moved to other code; the comment says which version the commit is."""
    actions = re.findall(r"\buses: *(.*)", path.read_text())
    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_only_read_the_repository(path: Path) -> None:
    workflow: dict[str, Any] = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        (checkout,) = (s for s in job["steps"] if "actions/checkout" in s.get("uses", ""))
        assert checkout["with"] == {"persist-credentials": False}


def locked(path: Path) -> dict[str, list[str]]:
    """The versions of each package in a lock file. One may have several, by Python or platform."""
    versions: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^ ;\\]+)", path.read_text(), re.MULTILINE):
        versions.setdefault(canonicalize_name(name), []).append(version)
    return versions


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_lock_files_hold_versions_and_hashes_only(path: Path) -> None:
    """The place of a package index is the installer's own setting."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
    entry = r"[\w.-]+==[\w.+!]+( ; [^\n\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    assert re.sub(entry, "", text) == ""
    assert "://" not in text


def test_the_lock_file_has_every_dependency_in_a_version_that_is_allowed() -> None:
    """After a change of pyproject.toml, `make lock` brings the lock file up to date."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = ("aioboto3", "demo", "fsspec", "mongo", "parquet", "dev")
    assert extras["all"] == [f"dataset-mirror[{','.join(names[:-1])}]"]
    versions = locked(ROOT / "requirements" / "dev.lock")
    for text in [*project["dependencies"], *(text for name in names for text in extras[name])]:
        wanted = Requirement(text)
        if wanted.name == "torch":  # requirements/without-torch.txt says why
            assert "torch" not in versions
            continue
        found = versions.get(canonicalize_name(wanted.name), [])
        assert any(wanted.specifier.contains(version) for version in found), text


def test_the_lock_file_of_the_audit_has_its_program() -> None:
    assert "pip-audit" in locked(ROOT / "requirements" / "audit.lock")
