"""New values for keys of a training's YAML configuration, and not one other byte of it changed.

Loading and dumping a YAML file loses what people put into it: comments, quotes, alignment, line
endings. So the text of one scalar is replaced where the parser saw it, the result is parsed again,
and it counts only if nothing but the value asked for reads differently.

    the old value                      the new value is written
    'quoted'                           in single quotes; in double quotes if it has what those lack
    "quoted"                           in double quotes
    plain text, a block (| or >)       plain if every reader takes it for that text, else quoted
    3, 0.5, true, yes, null, nothing   plain as given, so 0.5 is a number; quoted if plain cannot be

A text thus stays a text (`name: resnet` set to 50 becomes `name: '50'`), whether the training reads
YAML 1.1 (PyYAML, OmegaConf) or 1.2 (ruamel.yaml, most others). Values are never read as YAML: `[1]`
is three characters. Keys are changed, never added.
"""

from __future__ import annotations

import io
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches, unified_diff
from pathlib import Path
from typing import Any, Final, Protocol

from mirror.errors import UsageError
from mirror.system.files import replacing

_TEXT: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"
_BARE: Final = re.compile(r'[^."=]+')
_KEY: Final = re.compile(r'([^."=]+)|"((?:[^"\\]|\\["\\])*)"')
_CORE_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BLOCK_HEADER: Final = re.compile(r"[|>][-+0-9]*")
_TO_LAST_TEXT: Final = re.compile(r"(?s:.*\S)?[^\S\r\n]*")
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Mark(Protocol):
    index: int


class Token(Protocol):
    """What is used here of a token of ruamel.yaml."""

    id: str
    start_mark: Mark
    end_mark: Mark


class Node(Protocol):
    """What is used here of a node of ruamel.yaml: a scalar, sequence or mapping."""

    id: str
    tag: str
    anchor: str | None
    value: Any  # a scalar's text, a sequence's nodes, a mapping's pairs of nodes
    style: str | None  # of a scalar: ' " | > or none
    flow_style: bool | None  # of the others
    start_mark: Mark
    end_mark: Mark


@dataclass(frozen=True, slots=True)
class Assignment:
    """One `--set`.

    Attributes:
        path: keys from the root on; the index of a list's item is its decimal digits.
        value: the text to set, as it is: no YAML.
    """

    path: tuple[str, ...]
    value: str

    @property
    def key(self) -> str:
        """The path as it is written on the command line."""
        return _dotted(self.path)


@dataclass(frozen=True, slots=True)
class Update:
    """What became of a configuration.

    Attributes:
        path: the file, as it was named.
        diff: unified diff of what changed, or in a dry run would change; empty if nothing.
        backup: the file as it was before, or None if nothing was written.
    """

    path: Path
    diff: str
    backup: Path | None

    @property
    def changed(self) -> bool:
        return bool(self.diff)


def parse_assignment(text: str) -> Assignment:
    """Parse `data.files.0=train.jsonl`; a key with a dot, quote or `=` is quoted: `a."b.c".d=1`.

    Raises:
        UsageError: the text is not of that form.
    """
    path: list[str] = []
    at = 0
    while match := _KEY.match(text, at):
        bare, quoted = match.groups()
        path.append(bare or re.sub(r"\\(.)", r"\1", quoted))
        at = match.end() + 1
        if text[at - 1 : at] == "=":
            return Assignment(tuple(path), text[at:])
        if text[at - 1 : at] != ".":
            break
    raise UsageError(
        f"--set {text} is not understood; write KEY=VALUE, as in data.train_jsonl=train.jsonl, "
        'with a key that has a dot of its own in quotes: data."my.key"=VALUE.'
    )


def pointed(text: str, assignments: Sequence[Assignment], name: str) -> str:
    """The text of a configuration with other values.

    Args:
        text: YAML, one document, with the line endings and the byte order mark that it has.
        assignments: the values to set; every path is in the text and occurs here once.
        name: what errors call the text.

    Raises:
        UsageError: an assignment cannot be made, or not without changing something else.
    """
    paths = [assignment.path for assignment in assignments]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise UsageError(f"--set names {_dotted(path)} twice; give it one value.")
    for assignment in assignments:
        text = _with_value(text, assignment, name)
    return text


def diff(old: str, new: str, name: str) -> str:
    """Unified diff of two texts, for people and for `patch`; empty if they are equal."""
    # str.splitlines breaks lines at characters that no diff tool takes for a line's end.
    lines = unified_diff(list(io.StringIO(old)), list(io.StringIO(new)), name, name)
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def check(path: Path, assignments: Sequence[Assignment]) -> None:
    """Raise what `update` would raise for these keys, before any work is done.

    The values may be preliminary: any key that takes one text takes another.

    Raises:
        UsageError: the file cannot be read or replaced, or an assignment cannot be made.
    """
    pointed(_read(path)[1], assignments, str(path))
    folder = Path(os.path.realpath(path)).parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"{path} cannot be updated, because its folder {folder} is read-only; "
            "change the folder's permissions."
        )


def update(path: Path, assignments: Sequence[Assignment], *, dry_run: bool) -> Update:
    """Set values in a configuration file, which is replaced whole, and keep what it was.

    The backup `NAME.bak`, or the first free one of `NAME.bak.1` …, stands beside the file and has
    its mode and time of change. Of a symbolic link the target is replaced, not the link. Without a
    change nothing is written.

    Raises:
        UsageError: the file cannot be read or replaced, or an assignment cannot be made.
        MirrorError: the disk is full; the file is as it was.
    """
    content, old = _read(path)
    new = pointed(old, assignments, str(path))
    changes = diff(old, new, str(path))
    if dry_run or not changes:
        return Update(path, changes, None)
    target = Path(os.path.realpath(path))
    try:
        status = target.stat()
        with replacing(target) as file:
            os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
            file.write(new)
            backup = _back_up(target, content, status)
    except OSError as error:
        raise UsageError(
            f"{path} is left as it was, because it cannot be replaced ({error.strerror}); "
            "make room and set the permissions for a backup beside it."
        ) from None
    return Update(path, changes, backup)


def _read(path: Path) -> tuple[bytes, str]:
    """A file's bytes and their text, without any translation of line endings."""
    try:
        # A pipe or a terminal would make us wait, and cannot be replaced.
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is not a file; name a YAML file.")
        content = path.read_bytes()
        return content, content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}, is not UTF-8; save it as UTF-8.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); name a YAML file.") from None


def _back_up(path: Path, content: bytes, status: os.stat_result) -> Path:
    for number in itertools.count():
        backup = path.with_name(f"{path.name}.bak.{number}" if number else f"{path.name}.bak")
        try:
            file = backup.open("xb")
        except FileExistsError:
            continue
        try:
            with file:
                os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.utime(backup, ns=(status.st_atime_ns, status.st_mtime_ns))
        except BaseException:
            backup.unlink()
            raise
        return backup
    raise AssertionError  # pragma: no cover - count() has no end


def _with_value(text: str, assignment: Assignment, name: str) -> str:
    value = assignment.value
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"The value for {assignment.key} is not UTF-8, which {name} has to be; "
            "give it another value."
        ) from None
    root, tokens = _parse(text, name)
    node, in_flow = _find(root, assignment.path, name)
    before, own = _tokens_of(node, tokens)
    tagged = any(token.id == "<tag>" for token in own)
    if tagged and node.tag != _TEXT:
        raise UsageError(
            f"{assignment.key} of {name} has the tag {node.tag}, which may give any value another "
            "meaning; change it by hand."
        )
    if not own and before.id not in (":", "-"):
        raise UsageError(
            f"{assignment.key} of {name} is a key without a colon; write one behind it."
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
            new_root, _ = _parse(new_text, name)
        except UsageError:
            continue
        if _alike(root, new_root, node, reads_as_value):
            return new_text
    raise UsageError(
        f"{assignment.key} of {name} cannot be changed without a change to what stands beside it; "
        "change it by hand."
    )


def _parse(text: str, name: str) -> tuple[Node, list[Token]]:
    """The root of a document's node graph, and those tokens that have a length, in order."""
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
        raise UsageError(f"{name}{line} is not YAML: {error.problem}; mend it first.") from None
    except YAMLError as error:
        reason = getattr(error, "reason", "it cannot be read")
        raise UsageError(f"{name} is not YAML: {reason}; mend it first.") from None
    # What the parser raises for an unknown version, an escape beyond Unicode, a thousand brackets.
    except (AssertionError, ArithmeticError, LookupError, ValueError, RecursionError):
        raise UsageError(f"{name} is not YAML that can be read; mend it first.") from None
    if len(documents) > 1:
        raise UsageError(
            f"{name} holds {len(documents)} YAML documents, and a key may stand in each; "
            "name a file with one."
        )
    if not documents or documents[0].id == "scalar":
        raise UsageError(f"{name} has no keys; name a YAML file that has the keys to set.")
    return documents[0], tokens


def _entries(node: Node) -> list[tuple[str, Node]]:
    """A mapping's or list's values, by the key or index that names them in a path."""
    if node.id == "mapping":
        return [(key.value, value) for key, value in node.value if key.id == "scalar"]
    if node.id == "sequence":
        return [(str(index), item) for index, item in enumerate(node.value)]
    return []


def _find(root: Node, path: tuple[str, ...], name: str) -> tuple[Node, bool]:
    """The scalar that a path names, of which there is one use, and whether it stands in {} or []."""
    shared = _shared(root)
    node, in_flow = root, False
    for depth, part in enumerate(path, 1):
        here = f"{_dotted(path[:depth])} of {name}"
        found = [value for key, value in _entries(node) if key == part]
        if not found and _is_merged(node, part):
            raise UsageError(
                f"{here} comes from another mapping by a merge (<<), and would change there too; "
                "write it out first, or set it where it comes from."
            )
        if not found:
            raise UsageError(
                f"{name} has no key {_dotted(path)}, and keys are changed, never added; "
                f"{_hint(root, path)}"
            )
        if len(found) > 1:
            raise UsageError(f"{here} stands there {len(found)} times; leave one.")
        node, in_flow = found[0], bool(node.flow_style)
        if id(root) in shared or id(node) in shared:
            raise UsageError(
                f"{here} is used in several places by an alias (*), and would change in all; "
                "write its value out first."
            )
    if node.id != "scalar":
        kind = "mapping" if node.id == "mapping" else "list"
        inner = next((f", such as {_dotted(p)}" for p in _scalars(node, path)), "")
        raise UsageError(f"{_dotted(path)} of {name} is a {kind}; name one value of it{inner}.")
    return node, in_flow


def _hint(root: Node, path: tuple[str, ...]) -> str:
    known = {_dotted(known): known[-1] for known in _scalars(root, ())}
    wanted = _dotted(path)
    same_name = [key for key, last in known.items() if last == path[-1] and not last.isdecimal()]
    close = get_close_matches(wanted, same_name, 1, cutoff=0) or get_close_matches(wanted, known, 1)
    return f"did you mean {close[0]}?" if close else "write it into the file first."


def _children(node: Node) -> list[Node]:
    if node.id == "mapping":
        return [child for pair in node.value for child in pair]
    return list(node.value) if node.id == "sequence" else []


def _shared(root: Node) -> set[int]:
    """Identities of the nodes that the document refers to more than once."""
    seen: set[int] = set()
    shared: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            shared.add(id(node))
        else:
            seen.add(id(node))
            waiting += _children(node)
    return shared


def _scalars(root: Node, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Paths of a tree's scalars, in order, each node at the first path that leads to it."""
    seen: set[int] = set()
    waiting = [(root, path)]
    while waiting:
        node, here = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.id == "scalar":
            yield here
        waiting += [(child, (*here, key)) for key, child in reversed(_entries(node))]


def _is_merged(mapping: Node, key: str) -> bool:
    """Whether a mapping has a key from another by `<<: *other` or `<<: [*one, *two]`."""
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


def _tokens_of(node: Node, tokens: list[Token]) -> tuple[Token, list[Token]]:
    """The token before a scalar's, and its own: anchor and tag in either order, and its text.

    An empty value has no text. Its own marks do not tell its place: they may stand at the next key.
    """
    *before, last = (token for token in tokens if token.end_mark.index <= node.end_mark.index)
    own: list[Token] = []
    if last.id == "<scalar>" and last.start_mark.index >= node.start_mark.index:
        own, last = [last], before.pop()
    while last.id in ("<anchor>", "<tag>"):
        own, last = [last, *own], before.pop()
    return last, own


def _around(text: str, node: Node, last: Token) -> tuple[str, str]:
    """What stays before and after a scalar's new spelling, given its last token or the one before."""
    start, end = last.start_mark.index, last.end_mark.index
    if last.id != "<scalar>":
        return f"{text[:end]} ", text[end:]
    return text[:start], _after_block(text, start, end) if node.style in ("|", ">") else text[end:]


def _after_block(text: str, start: int, end: int) -> str:
    """What follows a block scalar: the comment in its first line, blank lines at its end, the rest."""
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
        tags.add("tag:yaml.org,2002:float")  # .5e3, which that resolver takes for text
    return tags


def _spellings(value: str, style: str | None, *, in_flow: bool) -> Iterator[str]:
    """Ways to write a value, those most like the old style first; the last can hold any text."""
    if value.isprintable() and style != '"':
        # Readers disagree on : and ? in brackets, where YAML 1.1 gave them a meaning.
        strange = in_flow and (":" in value or "?" in value)
        if value and style != "'" and not strange:
            yield value
        yield "'" + value.replace("'", "''") + "'"
    escaped = (_ESCAPES.get(c) or (c if c.isprintable() else f"\\U{ord(c):08X}") for c in value)
    yield '"' + "".join(escaped) + '"'


def _alike(old: Node, new: Node, target: Node, is_wanted: Callable[[Node], bool]) -> bool:
    """Whether two documents are the same, aliases, tags and styles too, but for one node."""
    partner: dict[int, int] = {}
    waiting = [(old, new)]
    while waiting:
        one, other = waiting.pop()
        if id(one) in partner:
            if partner[id(one)] != id(other):
                return False
            continue
        partner[id(one)] = id(other)
        if one is target:
            if not is_wanted(other):
                return False
            continue
        if _nature(one) != _nature(other):
            return False
        waiting += zip(_children(one), _children(other), strict=True)
    return True


def _nature(node: Node) -> tuple[object, ...]:
    """All that a node is, apart from its place and its children, of which only the number."""
    if node.id == "scalar":
        return node.id, node.tag, node.anchor, node.style, node.value
    return node.id, node.tag, node.anchor, node.flow_style, len(node.value)


def _dotted(path: Sequence[str]) -> str:
    return ".".join(
        part
        if _BARE.fullmatch(part)
        else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for part in path
    )
