"""Environment variables of other programs that libraries take for their own.

deltalake reads any variable that has the name of one of its options, such as TOKEN, and sends that one
to the bucket's server. `mirror.store.object_store_options` states every option, so the environment
does not count. Two have no value that means "none": their variables must not be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Names of options, without `aws_`.
_ENCRYPTION: Final = frozenset({"server_side_encryption"})
_TOKENS: Final = frozenset({"session_token", "token"})


def foreign_variables(environ: Mapping[str, str], *, temporary: bool = False) -> list[str]:
    """Names of the variables that change requests although no option can replace them.

    Args:
        environ: the environment.
        temporary: the credentials have a token of their own, which replaces any other.
    """
    options = _ENCRYPTION if temporary else _ENCRYPTION | _TOKENS
    return [name for name in environ if name.lower().removeprefix("aws_") in options]
