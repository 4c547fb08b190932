"""Parses a YAML document, and finds the scalar at a path of keys."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Final, Protocol

from mirror.dataset.yaml_edit.assignment import dotted
from mirror.errors import UsageError

_MERGE: Final = "tag:yaml.org,2002:merge"


class Mark(Protocol):
    index: int


class Token(Protocol):
    """The used part of a token of ruamel.yaml."""

    id: str
    start_mark: Mark
    end_mark: Mark


class Node(Protocol):
    """The used part of a node of ruamel.yaml: a scalar, sequence or mapping."""

    id: str
    tag: str
    anchor: str | None
    value: Any  # a scalar's text, a sequence's nodes, a mapping's pairs of nodes
    style: str | None  # of a scalar: ' " | > or none
    flow_style: bool | None  # of the others
    start_mark: Mark
    end_mark: Mark


def parse_yaml(text: str, name: str) -> tuple[Node, list[Token]]:
    """The root of a document's node graph, and its tokens that are not empty, in order."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    def parser() -> YAML:
        return YAML(typ="safe", pure=True)

    composing = parser()
    composing.composer.warn_double_anchors = False  # YAML 1.2 allows an anchor to be used again
    try:
        documents = list(composing.compose_all(text))
        tokens = [t for t in parser().scan(text) if t.start_mark.index < t.end_mark.index]
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}," if error.problem_mark else ""
        raise UsageError(f"{name}{line} is not YAML: {error.problem}; fix it first.") from None
    except YAMLError as error:
        reason = getattr(error, "reason", "it cannot be read")
        raise UsageError(f"{name} is not YAML: {reason}; fix it first.") from None
    # The parser raises these for an unknown version, an escape beyond Unicode, or a thousand brackets.
    except (AssertionError, ArithmeticError, LookupError, ValueError, RecursionError):
        raise UsageError(f"{name} is not readable YAML; fix it first.") from None
    if len(documents) > 1:
        raise UsageError(
            f"{name} holds {len(documents)} YAML documents, and each may have the key; "
            "name a file with one."
        )
    if not documents or documents[0].id == "scalar":
        raise UsageError(f"{name} has no keys; name the YAML file with the keys to set.")
    return documents[0], tokens


def find_scalar(root: Node, path: tuple[str, ...], name: str) -> tuple[Node, bool]:
    """The scalar at a path, and whether it is inside {} or [].

    Raises:
        UsageError: there is no such scalar, or the document uses it in several places.
    """
    shared = _shared_nodes(root)
    node, in_flow = root, False
    for depth, part in enumerate(path, 1):
        key = f"{dotted(path[:depth])} of {name}"
        found = [value for key, value in _entries(node) if key == part]
        if not found and _is_merged(node, part):
            raise UsageError(
                f"{key} comes from another mapping by a merge (<<), and would change there too; "
                "write it out first, or set it where it comes from."
            )
        if not found:
            raise UsageError(
                f"{name} has no key {dotted(path)}, and keys are never added; {_hint(root, path)}"
            )
        if len(found) > 1:
            raise UsageError(f"{key} occurs {len(found)} times; keep one.")
        node, in_flow = found[0], bool(node.flow_style)
        if id(root) in shared or id(node) in shared:
            raise UsageError(
                f"{key} is used in several places by an alias (*), and would change in all; "
                "write its value out first."
            )
    if node.id != "scalar":
        kind = "mapping" if node.id == "mapping" else "list"
        inner = next((f", such as {dotted(p)}" for p in _scalars(node, path)), "")
        raise UsageError(f"{dotted(path)} of {name} is a {kind}; name one value of it{inner}.")
    return node, in_flow


def _hint(root: Node, path: tuple[str, ...]) -> str:
    known = {dotted(known): known[-1] for known in _scalars(root, ())}
    wanted = dotted(path)
    same_name = [key for key, last in known.items() if last == path[-1] and not last.isdecimal()]
    close = get_close_matches(wanted, same_name, 1, cutoff=0) or get_close_matches(wanted, known, 1)
    return f"did you mean {close[0]}?" if close else "add it to the file first."


def _entries(node: Node) -> list[tuple[str, Node]]:
    """The values of a mapping or list, with the key or index that names them in a path."""
    if node.id == "mapping":
        return [(key.value, value) for key, value in node.value if key.id == "scalar"]
    if node.id == "sequence":
        return [(str(index), item) for index, item in enumerate(node.value)]
    return []


def children(node: Node) -> list[Node]:
    """The keys and values of a mapping, or the items of a list."""
    if node.id == "mapping":
        return [child for pair in node.value for child in pair]
    return list(node.value) if node.id == "sequence" else []


def _shared_nodes(root: Node) -> set[int]:
    """Identities of the nodes that the document uses more than once."""
    seen: set[int] = set()
    shared: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            shared.add(id(node))
        else:
            seen.add(id(node))
            waiting += children(node)
    return shared


def _scalars(root: Node, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Paths of all scalars below a node, in order; each scalar once, at its first path."""
    seen: set[int] = set()
    waiting = [(root, path)]
    while waiting:
        node, position = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.id == "scalar":
            yield position
        waiting += [(child, (*position, key)) for key, child in reversed(_entries(node))]


def _is_merged(mapping: Node, key: str) -> bool:
    """Whether a mapping gets a key from another by `<<: *other` or `<<: [*one, *two]`."""
    seen: set[int] = set()
    waiting = [mapping]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.id == "sequence":
            waiting += node.value
        elif any(name == key for name, _ in _entries(node)):
            return True
        elif node.id == "mapping":
            waiting += [value for name, value in node.value if name.tag == _MERGE]
    return False


def tokens_of(node: Node, tokens: list[Token]) -> tuple[Token, list[Token]]:
    """The token before a scalar, and its own tokens: anchor and tag in either order, then the text.

    An empty value has no text, and its marks may point at the next key instead of its position.
    """
    *before, last = (token for token in tokens if token.end_mark.index <= node.end_mark.index)
    own: list[Token] = []
    if last.id == "<scalar>" and last.start_mark.index >= node.start_mark.index:
        own, last = [last], before.pop()
    while last.id in ("<anchor>", "<tag>"):
        own, last = [last, *own], before.pop()
    return last, own
