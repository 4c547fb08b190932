"""Replaces the text of one scalar in a YAML document, and checks that nothing else reads differently."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from mirror.dataset.yaml_edit.assignment import Assignment
from mirror.dataset.yaml_edit.yaml_nodes import (
    Node,
    Token,
    children,
    find_scalar,
    parse_yaml,
    tokens_of,
)
from mirror.errors import UsageError

_TEXT: Final = "tag:yaml.org,2002:str"
_CORE_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BLOCK_HEADER: Final = re.compile(r"[|>][-+0-9]*")
_TO_LAST_TEXT: Final = re.compile(r"(?s:.*\S)?[^\S\r\n]*")
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def with_value(text: str, assignment: Assignment, name: str) -> str:
    """Set one value in a YAML text.

    Args:
        text: one YAML document.
        assignment: the key and the value.
        name: of the file, for messages.

    Raises:
        UsageError: the value cannot be set without changing something else.
    """
    value = assignment.value
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"The value for {assignment.key} is not UTF-8, as {name} must be; choose another value."
        ) from None
    root, tokens = parse_yaml(text, name)
    node, in_flow = find_scalar(root, assignment.path, name)
    before, own = tokens_of(node, tokens)
    tagged = any(token.id == "<tag>" for token in own)
    if tagged and node.tag != _TEXT:
        raise UsageError(
            f"{assignment.key} of {name} has the tag {node.tag}, which may give any value another "
            "meaning; change it by hand."
        )
    if not own and before.id not in (":", "-"):
        raise UsageError(
            f"{assignment.key} of {name} is a key without a colon; write one after it."
        )
    is_text = tagged or bool(node.style) or _readings(node.value) == {_TEXT}
    if node.value == value and (value or is_text):
        return text

    def reads_as_value(new: Node) -> bool:
        if (new.id, new.value, new.anchor) != ("scalar", value, node.anchor):
            return False
        always_text = new.tag == _TEXT and (bool(new.style) or _readings(value) == {_TEXT})
        return always_text or not is_text

    head, tail = _around(text, node, (own or [before])[-1])
    for written in _spellings(value, node.style, in_flow=in_flow):
        new_text = f"{head}{written}{tail}"
        try:
            new_root, _ = parse_yaml(new_text, name)
        except UsageError:
            continue
        if _alike(root, new_root, node, reads_as_value):
            return new_text
    raise UsageError(
        f"{assignment.key} of {name} cannot be changed without changing its neighbours; "
        "change it by hand."
    )


def _around(text: str, node: Node, last: Token) -> tuple[str, str]:
    """The text before and after a scalar. `last` is its last token, or for an empty one the token before."""
    start, end = last.start_mark.index, last.end_mark.index
    if last.id != "<scalar>":
        return f"{text[:end]} ", text[end:]
    return text[:start], _after_block(text, start, end) if node.style in ("|", ">") else text[end:]


def _after_block(text: str, start: int, end: int) -> str:
    """The text after a block scalar: the comment of its first line, trailing blank lines, the rest."""
    header = _BLOCK_HEADER.match(text, start)
    assert header
    body = re.compile(r"[\r\n]|$").search(text, header.end(), end)
    body_start = body.start() if body else end
    body_end = _TO_LAST_TEXT.match(text, body_start, end)
    assert body_end
    return text[header.end() : body_start] + text[body_end.end() :]


def _readings(plain: str) -> set[str]:
    """The tags that readers of YAML 1.1 and 1.2 give to an unquoted scalar."""
    from ruamel.yaml.nodes import ScalarNode
    from ruamel.yaml.resolver import VersionedResolver

    tags = {
        str(VersionedResolver(version).resolve(ScalarNode, plain, (True, False)))
        for version in ((1, 1), (1, 2))
    }
    if _CORE_FLOAT.fullmatch(plain):
        tags.add("tag:yaml.org,2002:float")  # .5e3, which that resolver reads as text
    return tags


def _spellings(value: str, style: str | None, *, in_flow: bool) -> Iterator[str]:
    """Spellings of a value, the most similar to the old style first; the last suits any text."""
    if value.isprintable() and style != '"':
        # Readers disagree on : and ? in brackets, which have a meaning in YAML 1.1.
        strange = in_flow and (":" in value or "?" in value)
        if value and style != "'" and not strange:
            yield value
        yield "'" + value.replace("'", "''") + "'"
    escaped = (_ESCAPES.get(c) or (c if c.isprintable() else f"\\U{ord(c):08X}") for c in value)
    yield '"' + "".join(escaped) + '"'


def _alike(old: Node, new: Node, target: Node, is_wanted: Callable[[Node], bool]) -> bool:
    """Whether two documents are equal except for one node, including aliases, tags and styles."""
    partner: dict[int, int] = {}
    waiting = [(old, new)]
    while waiting:
        before, after = waiting.pop()
        if id(before) in partner:
            if partner[id(before)] != id(after):
                return False
            continue
        partner[id(before)] = id(after)
        if before is target:
            if not is_wanted(after):
                return False
            continue
        if _properties(before) != _properties(after):
            return False
        waiting += zip(children(before), children(after), strict=True)
    return True


def _properties(node: Node) -> tuple[object, ...]:
    """The properties of a node, without its position; of its children only the number."""
    if node.id == "scalar":
        return node.id, node.tag, node.anchor, node.style, node.value
    return node.id, node.tag, node.anchor, node.flow_style, len(node.value)
