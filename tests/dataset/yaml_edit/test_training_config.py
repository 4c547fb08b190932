"""Values in a training configuration are set, and every other byte stays."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator
from copy import deepcopy
from itertools import takewhile
from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import (
    DoubleQuotedScalarString,
    FoldedScalarString,
    LiteralScalarString,
    SingleQuotedScalarString,
)

from mirror.dataset.yaml_edit.assignment import Assignment, parse_assignment
from mirror.dataset.yaml_edit.training_config import with_values
from mirror.errors import UsageError
from tests.dataset.yaml_edit.config_example import TRAINING_CONFIG, assigned


def in_1_2(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def in_1_1(text: str) -> Any:
    return pyyaml.safe_load(text)


READERS = [in_1_2, in_1_1]

SPLICES = {
    "plain": ("a: b\n", "a=c", "a: c\n"),
    "plain with a comment": ("a: b   # c: d\n", "a=x", "a: x   # c: d\n"),
    "single quotes": ("a: 'b' # c\n", "a=x", "a: 'x' # c\n"),
    "single quotes with one inside": ("a: 'b'\n", "a=it's", "a: 'it''s'\n"),
    "double quotes": ('a: "b"\n', "a=x", 'a: "x"\n'),
    "double quotes with escapes": ('a: "b"\n', 'a=C:\\"x"', 'a: "C:\\\\\\"x\\""\n'),
    "single quotes cannot hold a line break": ("a: 'b'\n", "a=x\ny", 'a: "x\\ny"\n'),
    "deep": ("a:\n  b:\n    c: d\n    e: f\n", "a.b.c=x", "a:\n  b:\n    c: x\n    e: f\n"),
    "four spaces": ("a:\n    b: c\n", "a.b=x", "a:\n    b: x\n"),
    "one space": ("a:\n b: c\n", "a.b=x", "a:\n b: x\n"),
    "aligned colons": ("a  :   b\nlong:  c\n", "a=x", "a  :   x\nlong:  c\n"),
    "list": ("a:\n  - b\n  - c\n", "a.1=x", "a:\n  - b\n  - x\n"),
    "list without indentation": ("a:\n- b\n-   c\n", "a.1=x", "a:\n- b\n-   x\n"),
    "list of mappings": ("a:\n-  b: 1\n   c: d\n", "a.0.c=x", "a:\n-  b: 1\n   c: x\n"),
    "list of lists": ("- - a\n  - b\n- - c\n", "0.1=x", "- - a\n  - x\n- - c\n"),
    "flow mapping": ("a: {b: c, d: 'e'} # f\n", "a.b=x", "a: {b: x, d: 'e'} # f\n"),
    "flow list": ("a: [b,c ,  d]\n", "a.1=x", "a: [b,x ,  d]\n"),
    "flow over lines": ("a: {\n  b: c, # d\n  e: f\n}\n", "a.b=x", "a: {\n  b: x, # d\n  e: f\n}\n"),
    "comma in flow": ("a: [b, c]\n", "a.0=x,y", "a: ['x,y', c]\n"),
    "colon in flow": ("{a: b}\n", "a=s3://c", "{a: 's3://c'}\n"),
    "comma in block": ("a: b\n", "a=x,y", "a: x,y\n"),
    "brackets in block": ("a: b\n", "a=[1]", "a: '[1]'\n"),
    "brackets at a number": ("a: 1\n", "a=[1]", "a: '[1]'\n"),
    "JSON": ('{"a":"b","c":1}', "a=x", '{"a":"x","c":1}'),
    "JSON number": ('{"a":"b","c":1}', "c=2", '{"a":"b","c":2}'),
    "JSON null": ('{"a": null}', "a=x", '{"a": x}'),
    "CRLF": ("a: b\r\nc: 'd'\r\n", "a=x", "a: x\r\nc: 'd'\r\n"),
    "CR": ("a: b\rc: d\r", "c=x", "a: b\rc: x\r"),
    "mixed line ends": ("a: b\r\nc: d\ne: f\r\n", "c=x", "a: b\r\nc: x\ne: f\r\n"),
    "byte order mark": ("\ufeffa: b\n", "a=x", "\ufeffa: x\n"),
    "no final line end": ("a: b\nc: d", "c=x", "a: b\nc: x"),
    "only a key": ("a:", "a=x", "a: x"),
    "spaces at line ends": ("a: b  \nc:  \n", "a=x", "a: x  \nc:  \n"),
    "document marks": ("%YAML 1.2\n---\na: b\n...\n", "a=x", "%YAML 1.2\n---\na: x\n...\n"),
    "empty": ("a:\nb: c\n", "a=x", "a: x\nb: c\n"),
    "empty before a comment": ("a:   # c\nb: c\n", "a=x", "a: x   # c\nb: c\n"),
    "empty before comment lines": ("a:\n  # c\n\n# d\nb:\n", "a=x", "a: x\n  # c\n\n# d\nb:\n"),
    "empty item": ("a:\n-\n- b\n", "a.0=x", "a:\n- x\n- b\n"),
    "empty in flow": ("{a: , b: c}\n", "a=x", "{a: x , b: c}\n"),
    "empty with an anchor": ("a: &b # c\n", "a=x", "a: &b x # c\n"),
    "empty becomes a number": ("a:\n", "a=3", "a: 3\n"),
    "empty becomes the empty text": ("a:\n", "a=", "a: ''\n"),
    "value in the next line": ("a:\n  # c\n  b\nd: e\n", "a=x", "a:\n  # c\n  x\nd: e\n"),
    "plain over lines": ("a: b\n  c\n\n  d # e\nf: g\n", "a=x", "a: x # e\nf: g\n"),
    "double quotes over lines": ('a: "b\n  c" # d\n', "a=x", 'a: "x" # d\n'),
    "single quotes over lines": ("a: 'b\n\n  c'\nd: e\n", "a=x", "a: 'x'\nd: e\n"),
    "literal block": ("a: |\n  b\n  # no comment\nc: d\n", "a=x", "a: x\nc: d\n"),
    "folded block": ("a: >-\n  b\n  c\n\n# d\nc: d\n", "a=x", "a: x\n\n# d\nc: d\n"),
    "block with a comment": ("a: |2- # e\n   b\nc: d\n", "a=x", "a: x # e\nc: d\n"),
    "block in CRLF": ("a: |\r\n  b\r\n\r\nc: d\r\n", "a=x", "a: x\r\n\r\nc: d\r\n"),
    "block at the end": ("a: |\n  b\n  c", "a=x", "a: x"),
    "block that keeps blank lines": ("a: |+\n  b\n\n\nc: d\n", "a=x", "a: x\n\n\nc: d\n"),
    "block of nothing": ("a: |\nc: d\n", "a=x", "a: x\nc: d\n"),
    "block in a list": ("- |\n b\n- c\n", "0=x", "- x\n- c\n"),
    "block with spaces at its end": ("a: |\n  b  \nc: d\n", "a=x", "a: x\nc: d\n"),
    "block before an indented comment": ("a:\n  b: |\n    c\n  # d\n", "a.b=x", "a:\n  b: x\n  # d\n"),
    "anchor that nobody uses": ("a: &b c\nd: e\n", "a=x", "a: &b x\nd: e\n"),
    "beside an alias": ("a: &b c\nd: *b\ne: f\n", "e=x", "a: &b c\nd: *b\ne: x\n"),
    "own key over a merged one": (
        "a: &a {b: c}\nd:\n  <<: *a\n  b: e\n", "d.b=x", "a: &a {b: c}\nd:\n  <<: *a\n  b: x\n",
    ),
    "anchor used again": ("a: &b c\nd: &b e\n", "d=x", "a: &b c\nd: &b x\n"),
    "text by its tag": ("a: !!str 5 # c\n", "a=6", "a: !!str '6' # c\n"),
    "text by its tag, with an anchor": ("a: !!str &b c\n", "a=x", "a: !!str &b x\n"),
    "text by its tag, of what looks like a list": ("a: !!str\n  b\n", "a=- c", "a: !!str\n  '- c'\n"),
    "foreign tags elsewhere": ("a: !env HOME\nb: c\n", "b=x", "a: !env HOME\nb: x\n"),
    "explicit key": ("? a\n: b\n", "a=x", "? a\n: x\n"),
    "quoted key": ('"a": b\n\'c\': d\n', "a=x", '"a": x\n\'c\': d\n'),
    "key with a dot": ("a.b: c\nd:\n  e.f: g\n", 'd."e.f"=x', "a.b: c\nd:\n  e.f: x\n"),
    "key that is a number": ("a:\n  0: b\n  01: c\n", "a.01=x", "a:\n  0: b\n  01: x\n"),
    "unicode": ("días: árbol # ñ\nb: 🌱\n", "días=日本", "días: 日本 # ñ\nb: 🌱\n"),
    "same key elsewhere": ("a: 1\nb:\n  a: 1\n", "b.a=2", "a: 1\nb:\n  a: 2\n"),
    "twice elsewhere": ("a: 1\na: 2\nb: c\n", "b=x", "a: 1\na: 2\nb: x\n"),
    "Windows path, plain": ("a: b\n", "a=C:\\new\\t.jsonl", "a: C:\\new\\t.jsonl\n"),
    "Windows path, in double quotes": ('a: "b"\n', "a=C:\\new", 'a: "C:\\\\new"\n'),
    "URL": ("a: b\n", "a=s3://c/d?e=f", "a: s3://c/d?e=f\n"),
    "colon and space": ("a: b\n", "a=x: y", "a: 'x: y'\n"),
    "space and hash": ("a: b\n", "a=x #y", "a: 'x #y'\n"),
    "hash": ("a: b\n", "a=x#y", "a: x#y\n"),
    "spaces around": ("a: b\n", "a= x ", "a: ' x '\n"),
    "alias by its look": ("a: &b 1\nc: 2\n", "c=*b", "a: &b 1\nc: '*b'\n"),
    "anchor by its look": ("a: 1\n", "a=&b c", "a: '&b c'\n"),
    "tag by its look": ("a: 1\n", "a=!!str b", "a: '!!str b'\n"),
    "placeholder": ("a: b\n", "a={train}", "a: '{train}'\n"),
    "nothing": ("a: b\n", "a=", "a: ''\n"),
    "control characters": ("a: b\n", "a=\x00\x1b\u2028\ufeff", 'a: "\\U00000000\\U0000001B\\U00002028\\U0000FEFF"\n'),
    "number by number": ("a: 0.001\n", "a=0.5", "a: 0.5\n"),
    "number by what is a number in YAML 1.2 only": ("a: 1e-3\n", "a=5e-4", "a: 5e-4\n"),
    "number of YAML 1.2 only, with an o": ("a: 0o7\n", "a=0o17", "a: 0o17\n"),
    "text by what only few readers take for a number": ("a: b\n", "a=.5e3", "a: '.5e3'\n"),
    "number by text": ("a: 3\n", "a=auto", "a: auto\n"),
    "truth by truth": ("a: true # b\n", "a=false", "a: false # b\n"),
    "truth of YAML 1.1": ("a: yes\n", "a=no", "a: no\n"),
    "null by text": ("a: ~\n", "a=x", "a: x\n"),
    "text by null": ("a: b\n", "a=null", "a: 'null'\n"),
    "number by null": ("a: 5\n", "a=null", "a: null\n"),
    "quoted number by number": ('a: "1"\n', "a=2", 'a: "2"\n'),
    "what it is already": ("a: | # c\n  b\n", "a=b\n", "a: | # c\n  b\n"),
    "what it is already, spelled otherwise": ('a: "\\x62"\n', "a=b", 'a: "\\x62"\n'),
}  # fmt: skip


@pytest.mark.parametrize(("old", "setting", "new"), SPLICES.values(), ids=SPLICES)
def test_the_value_changes_and_nothing_else(old: str, setting: str, new: str) -> None:
    assert with_values(old, assigned(setting), "c.yaml") == new
    assert with_values(new, assigned(setting), "c.yaml") == new


def test_several_values_change_at_once() -> None:
    new = with_values(
        TRAINING_CONFIG,
        assigned("data.val_jsonl=v", "model.width=7", "data.train_jsonl=t: t"),
        "c.yaml",
    )
    assert new == TRAINING_CONFIG.replace("/data/old/train.jsonl", "'t: t'").replace(
        '"/data/old/val.jsonl"', '"v"'
    ).replace("1_024", "7")


AMBIGUOUS = [
    "yes", "No", "on", "OFF", "y", "true", "False", "null", "~", "Null", "", "<<", "=", "1", "-1",
    "+1", "007", "08", "0o7", "0x1F", "0b1", "1_000", "_1", "1:30", "190:20:30.15", "1e3", "1E3",
    "1e-3", "1.", ".5", "-.5", ".5e3", "-.5e3", "+.5E-3", "1.5e3", ".inf", "-.INF", ".nan", "2024-01-01",
    "2001-12-14t21:59:43.10-05:00", "-", "- a", "?", "? a", ":", "a:", ":a", "#", "#a", "@a", "`a",
    "%a", "!a", "&a", "*a", "|", ">", "'", '"', "'a'", '"a"', "[a", "{a}", "a]", ",", "---", "...",
    "--- a", "a\\n", "\ta", "a\tb", " ", "\n", "a\r\nb", "é", "\x85", "\xa0", "a\u2028b", "a\ufeffb", "\ud7ff", "🌱", "\x7f",
    "a b", "a  b", "a: b", "a :b", "a #b", "C:\\x", "\\\\host\\share", "http://x:80/?a=b&c#d", "{out}/t",
]  # fmt: skip
OLD_TEXTS = [
    "a: b\nz: 1\n",
    "a: 'b'\nz: 1\n",
    'a: "b"\nz: 1\n',
    "{a: b, z: 1}",
    "a: >-\n  b\nz: 1\n",
]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("old", OLD_TEXTS)
@pytest.mark.parametrize("value", AMBIGUOUS)
def test_a_text_stays_a_text_for_every_reader(old: str, value: str, reader: Any) -> None:
    new = with_values(old, [Assignment(("a",), value)], "c.yaml")
    assert reader(new) == {"a": value, "z": 1}


@given(st.text(), st.sampled_from(OLD_TEXTS))
@settings(deadline=None)
def test_any_text_can_be_set(value: str, old: str) -> None:
    new = with_values(old, [Assignment(("a",), value)], "c.yaml")
    for reader in READERS:
        assert reader(new) == {"a": value, "z": 1}


@pytest.mark.parametrize("old", ["a: 3", "a: true", "a: 0.5", "a: null", "a: ~", "a:"])
@pytest.mark.parametrize(
    ("value", "read"),
    [("4", 4), ("-0.25", -0.25), ("false", False), ("null", None), ("", ""), ("x", "x"),
     ("a: b", "a: b"), ("1.5e+3", 1500.0)],
)  # fmt: skip
def test_what_was_no_text_takes_what_is_given_as_if_it_were_typed(
    old: str, value: str, read: object
) -> None:
    new = with_values(f"{old} # c\n", [Assignment(("a",), value)], "c.yaml")
    assert new.endswith(" # c\n")
    for reader in READERS:
        assert reader(new) == {"a": read}
        assert type(reader(new)["a"]) is type(read)


REFUSED = {
    "absent": ("a: b\n", "c=x", r"^c\.yaml has no key c, and keys are never added; add it"),
    "mistyped": (TRAINING_CONFIG, "data.train_json=x", r"no key data\.train_json, .*mean data\.train_jsonl\?$"),
    "without its section": (TRAINING_CONFIG, "val_jsonl=x", r"did you mean data\.val_jsonl\?"),
    "in the wrong section": (TRAINING_CONFIG, "train.lr=x", r"did you mean optimizer\.lr\?"),
    "below a value": (TRAINING_CONFIG, "model.name.x=x", r"no key model\.name\.x, .*mean model\.name\?"),
    "beyond a list": ("a: [b, c]\n", "a.2=x", r"no key a\.2"),
    "beyond one list of two": (
        "data: {files: [b]}\nclasses: [c, d]\n", "data.files.1=x", r"did you mean data\.files\.0\?"
    ),
    "before a list": ("a: [b, c]\n", "a.-1=x", r"no key a\.-1"),
    "list by a name": ("a: [b, c]\n", "a.b=x", r"no key a\.b"),
    "key with a dot": ("a.b: c\n", "a.b=x", r'did you mean "a\.b"\?'),
    "mapping": (TRAINING_CONFIG, "data=x", r"^data of c\.yaml is a mapping; name .*, such as data\.train_jsonl\.$"),
    "list": ("a: [b, c]\n", "a=x", r"^a of c\.yaml is a list; .*such as a\.0\.$"),
    "empty mapping": ("a: {}\n", "a=x", r"^a of c\.yaml is a mapping; name one value of it\.$"),
    "alias": ("a: &x b\nc: *x\n", "c=y", r"^c of c\.yaml is used in several places by an alias"),
    "anchor of an alias": ("a: &x b\nc: *x\n", "a=y", r"^a of c\.yaml is used in several places"),
    "below an alias": ("a: &x {b: c}\nd: *x\n", "d.b=y", r"^d of c\.yaml is used in several"),
    "below an aliased anchor": ("a: &x {b: c}\nd: *x\n", "a.b=y", r"^a of c\.yaml is used in several"),
    "deep below": ("a: &x {b: {c: d}}\ne: [*x]\n", "a.b.c=y", r"^a of c\.yaml is used in several"),
    "below a merged anchor": ("a: &x {b: c}\nd:\n  <<: *x\n", "a.b=y", r"^a of c\.yaml is used in"),
    "used as a key": ("a: &x b\n*x : c\n", "a=y", r"^a of c\.yaml is used in several places"),
    "root used inside": ("&r\na: b\nc: *r\n", "a=x", r"^a of c\.yaml is used in several places"),
    "merged": ("a: &x {b: c}\nd:\n  <<: *x\n", "d.b=y", r"^d\.b of c\.yaml comes from another mapping"),
    "merged from a list": ("a: &x {b: c}\nd:\n  <<: [*x]\n", "d.b=y", r"^d\.b of c\.yaml comes from"),
    "merged twice over": (
        "a: &x {b: c}\ne: &y {<<: *x}\nd: {<<: *y}\n", "d.b=y", r"^d\.b of c\.yaml comes from"
    ),
    "merged into itself": ("a: &x {<<: *x}\n", "a.b=y", r"a of c\.yaml is used in several places"),
    "twice there": ("a:\n  b: 1\n  b: 2\n", "a.b=3", r"^a\.b of c\.yaml occurs 2 times; keep one"),
    "section twice there": ("a: {b: 1}\na: {b: 2}\n", "a.b=3", r"^a of c\.yaml occurs 2 times"),
    "key without a colon": ("{a, b: c}\n", "a=x", r"^a of c\.yaml is a key without a colon"),
    "explicit key without a value": ("? a\n", "a=x", r"^a of c\.yaml is a key without a colon"),
    "foreign tag": ("a: !env HOME\n", "a=x", r"^a of c\.yaml has the tag !env"),
    "foreign tag after an anchor": ("a: &b !env HOME\n", "a=x", r"^a of c\.yaml has the tag !env"),
    "foreign tag before an anchor": ("a: !env &b HOME\n", "a=x", r"^a of c\.yaml has the tag !env"),
    "text by a tag that gives way to null": ("a: ! b\n", "a=null", r"^a of c\.yaml cannot be changed without"),
    "tag of a number": ("a: !!int 5\n", "a=x", r"^a of c\.yaml has the tag tag:yaml"),
    "tag of nothing": ("a: !!null\n", "a=x", r"^a of c\.yaml has the tag tag:yaml"),
    "nothing at all": ("", "a=x", r"^c\.yaml has no keys"),
    "only comments": ("# a: b\n", "a=x", r"^c\.yaml has no keys"),
    "one value": ("hello\n", "a=x", r"^c\.yaml has no keys"),
    "two documents": ("a: b\n---\na: c\n", "a=x", r"^c\.yaml holds 2 YAML documents"),
    "tab": ("a:\n\tb: c\n", "a.b=x", r"^c\.yaml, line 2, is not YAML: found character '\\t'"),
    "bracket": ("a: b\nc: [d\ne: f\n", "a=x", r"^c\.yaml, line \d, is not YAML: "),
    "TOML": ("[a]\nb = 1\n", "a.b=x", r"^c\.yaml, line 2, is not YAML"),
    "unknown alias": ("a: b\nc: *d\n", "a=x", r"^c\.yaml, line 2, is not YAML: found undefined alias"),
    "control character": ("a: \x01\n", "a=x", r"^c\.yaml is not YAML: special characters"),
    "version to come": ("%YAML 1.3\n---\na: b\n", "a=x", r"^c\.yaml is not readable YAML"),
    "escape beyond Unicode": ('a: "\\UFFFFFFFF"\n', "a=x", r"^c\.yaml is not readable YAML"),
    "a thousand brackets": ("[" * 700, "a=x", r"^c\.yaml is not readable YAML"),
    "block at the line's beginning": ("a:\n|\n b\n", "a=x", r"^a of c\.yaml cannot be changed without changing"),
    "not text": ("a: b\n", "a=\udcff", r"^The value for a is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "setting", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_set_is_said_in_a_sentence(text: str, setting: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as raised:
        with_values(text, assigned(setting), "c.yaml")
    assert "\n" not in str(raised.value)


def test_a_key_gets_one_value() -> None:
    with pytest.raises(UsageError, match=r"^--set names a\.b twice; give it one value\.$"):
        with_values("a: {b: c}\n", assigned("a.b=1", 'a."b"=1'), "c.yaml")


PATHS = {
    "a=b": (("a",), "b"),
    "a.b.c=d": (("a", "b", "c"), "d"),
    "data.files.0=x": (("data", "files", "0"), "x"),
    'data."my.key".x=y': (("data", "my.key", "x"), "y"),
    '"a=b"=c': (("a=b",), "c"),
    r'"a\"b\\c"=d': (('a"b\\c',), "d"),
    '""=a': (("",), "a"),
    "a=": (("a",), ""),
    "a=b=c": (("a",), "b=c"),
    "a= b ": (("a",), " b "),
    "a-b_c d=e": (("a-b_c d",), "e"),
    "a=x.y": (("a",), "x.y"),
}


@pytest.mark.parametrize(("text", "parsed"), PATHS.items(), ids=PATHS)
def test_an_assignment_is_a_path_and_a_text(text: str, parsed: tuple[tuple[str, ...], str]) -> None:
    assert parse_assignment(text) == Assignment(*parsed)


@pytest.mark.parametrize(
    "text",
    ["", "a", "=", "=a", ".a=b", "a.=b", "a..b=c", "a.b", '"a=b', '"a"b=c', 'a"b"=c', r'"a\n"=b', '""'],
)  # fmt: skip
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--set .* is not understood; write KEY=VALUE"):
        parse_assignment(text)


@given(st.lists(st.text(), min_size=1).map(tuple), st.text())
def test_a_key_is_written_as_it_is_parsed(path: tuple[str, ...], value: str) -> None:
    assignment = Assignment(path, value)
    assert parse_assignment(f"{assignment.key}={value}") == assignment


# Random configurations.

SCALARS = st.one_of(
    st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False),
    st.builds(
        lambda style, text: style(text),
        st.sampled_from([str, DoubleQuotedScalarString, SingleQuotedScalarString]),
        st.text(st.sampled_from("ab 1:#-'\"\\é,{}[]\n"), max_size=12),
    ),
    st.builds(
        lambda style, lines: style("".join(f"{line}\n" for line in lines)),
        st.sampled_from([LiteralScalarString, FoldedScalarString]),
        st.lists(st.sampled_from(["a", "b # c", "", "d: e"]), min_size=1),
    ),
)  # fmt: skip
KEYS = st.text(st.sampled_from("abc_.é"), min_size=1, max_size=4)
CONFIGS = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=8,
    ),
    min_size=1,
    max_size=4,
)


@st.composite
def config_texts(draw) -> Any:
    """A configuration as ruamel.yaml writes it in some layout, with comments inserted."""
    writer = YAML()
    writer.default_flow_style = draw(st.sampled_from([False, None]))
    dash = draw(st.integers(0, 3))
    writer.indent(mapping=draw(st.integers(1, 5)), sequence=dash + 2, offset=dash)
    writer.width = draw(st.sampled_from([20, 80]))
    writer.explicit_start = draw(st.booleans())
    out = io.StringIO()
    writer.dump(draw(CONFIGS), out)
    lines = out.getvalue().splitlines()
    chance = random.Random(draw(st.integers(0, 2**32)))
    for at in range(len(lines), -1, -1):
        if at and chance.random() < 0.3:
            lines[at - 1] += f"  # end{at}"
        if chance.random() < 0.2:
            lines.insert(at, f"{' ' * chance.randrange(5)}# line{at}")
    return draw(st.sampled_from(["\n", "\r\n"])).join([*lines, *draw(st.sampled_from([[""], []]))])


def leaves(data: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from leaves(value, (*path, str(index)))
    else:
        yield path, data


def with_leaf(data: Any, path: tuple[str, ...], value: Any) -> Any:
    copy = deepcopy(data)
    inner = copy
    for part in path[:-1]:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    inner[int(path[-1]) if isinstance(inner, list) else path[-1]] = value
    return copy


def alike(one: list[str], other: list[str]) -> int:
    """How many lines at the beginning are equal."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


@given(config_texts(), st.data(), st.text(st.sampled_from("ab1.:# -'\"\\é,{}[]\n/")))
@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
def test_of_any_configuration_only_the_value_changes(text: str, data: Any, value: str) -> None:
    try:
        before = in_1_2(text)
        before_in_1_1 = in_1_1(text)
    except (YAMLError, pyyaml.YAMLError, ValueError):
        assume(False)
    assume(isinstance(before, dict))
    paths = [path for path, _ in leaves(before) if all(isinstance(part, str) for part in path)]
    assume(paths)
    path = data.draw(st.sampled_from(paths))
    old = dict(leaves(before))[path]
    assume(path in dict(leaves(before_in_1_1)))

    new = with_values(text, [Assignment(path, value)], "c.yaml")

    for read, was in ((in_1_2, before), (in_1_1, before_in_1_1)):
        now = dict(leaves(read(new)))[path]
        assert read(new) == with_leaf(was, path, now)
        if isinstance(old, str) and isinstance(dict(leaves(was))[path], str):
            assert now == value
        else:
            assert now == value or now == read(value)

    # Lines before and after those of the value are as they were, and it takes one.
    olds, news = text.split("\n"), new.split("\n")
    before_it, after_it = alike(olds, news), alike(olds[::-1], news[::-1])
    assert len(news) - before_it - after_it <= 1
    values = [str(leaf) for _, leaf in leaves(before)]
    for comment in re.findall(r"(?:end|line)\d+", text):
        assert f"# {comment}" in new or any(comment in leaf for leaf in values)
