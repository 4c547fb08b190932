"""The documents and example configurations, in an installed wheel and in a checkout alike."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

# A wheel has `docs/` and `config/` in this folder of the package.
_IN_THE_WHEEL = "_resources"


def resource(path: str) -> Traversable:
    """Return a file or folder such as `config/systemd` or `docs/format.md`.

    Args:
        path: relative to the root of the repository, below `docs/` or `config/`.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    package = files("mirror")
    found = package.joinpath(_IN_THE_WHEEL).joinpath(path)
    if found.is_file() or found.is_dir():
        return found
    checkout = Path(str(package)).parent / path
    if checkout.exists():
        return checkout
    raise FileNotFoundError(f"{path} is not a part of this installation")
