"""Measures how long and how plain the sentences of a document are.

    python -m tests.support.prose FILE...

Prints each page's figures, then the sentences that tests/test_words.py would refuse. Without a FILE
it measures every document and the help of every command. In a Python file it measures docstrings and
comments, which the test does not check.

A code span counts as one word, and code blocks and link targets do not count at all. A table cell
counts towards the figures only if it ends like a sentence; its length is checked in any case.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from mirror.cli.main import COMMANDS, mirror

ROOT: Final = Path(__file__).resolve().parents[2]
LONGEST: Final = 30
"""No sentence may have more words."""

# Each of these makes a reader go back and decode the sentence. See "Words" in CONTRIBUTING.md.
CONSTRUCTIONS: Final = {
    "'who' without a noun": r"^who\b(?!.*\?$)|[:;(] ?who\b|\b(and|or|of|by|for|from|to|than|with|those|he|is|says?|tells?|shows?|knows?) who\b",
    "'what' as the subject": r"^what\b(?! to\b)(?!.*\?$)|; what\b|\b(is|are) what\b|\bwhat (no|nothing|neither|are)\b",
    "an indefinite person": r"\b(whoever|nobody|no one|somebody|someone|whosoever)\b",
    "'such a'": r"\bsuch an?\b",
    "a 'so many' without its measure": r"\bso (many|much|long|often)\b(?! (as|that)\b)",
    "'all that'": r"\ball that\b",
    "'is told'": r"\b(is|are|was|were|as) told\b",
    "'is to be'": r"\b(is|are|was|were|to) to be\b|\bto be looked at\b",
    "'as it is'": r"\bas (it|they) (is|are|was|were|came|comes?|stands?)(?=[.,;:)]|$| told)",
    "'no more than'": r"\b(says? )?no more than\b",
    "'nothing but'": r"\b(nothing|none|no \w+|not a \w+) but\b",
    "an inversion": r"^(nor|never (is|are|does|do|has|was)|(were|had|should) (it|the|a|this))\b|\bnor (is|are|does|do|has|was|can|may)\b",
    "an old word": r"\b(anew|ever after|lest|whence|hence|thereof|therein|whereof|wherein|whereby|hereby|of its own accord|give or take)\b",
}
_MATCHERS: Final = {name: re.compile(how, re.IGNORECASE) for name, how in CONSTRUCTIONS.items()}
_ABBREVIATIONS: Final = re.compile(r"\b(e\.g|i\.e|etc|vs|cf|No)\.(?=\s)")
_CODE: Final = "Code"


@dataclass(frozen=True)
class Sentence:
    text: str
    is_prose: bool = True
    """False for a table cell that does not end like a sentence."""

    @property
    def words(self) -> int:
        return len(re.findall(r"[^\W_][\w'.,:/%-]*", self.text))

    @property
    def constructions(self) -> list[str]:
        return [name for name, matcher in _MATCHERS.items() if matcher.search(self.text)]

    @property
    def fault(self) -> str:
        """Why the test refuses the sentence; empty for a good one."""
        found = [f"{self.words} words"] if self.words > LONGEST else []
        return ", ".join(found + self.constructions)


@dataclass(frozen=True)
class Page:
    name: str
    sentences: tuple[Sentence, ...]

    @property
    def prose(self) -> list[Sentence]:
        return [sentence for sentence in self.sentences if sentence.is_prose]

    @property
    def faulty(self) -> list[Sentence]:
        return [sentence for sentence in self.sentences if sentence.fault]


def mean(pages: Sequence[Page]) -> float:
    """Words per sentence, over all pages together."""
    words = [sentence.words for page in pages for sentence in page.prose]
    return sum(words) / len(words) if words else 0.0


def documents() -> list[Page]:
    """The README, docs/, the changelog and CONTRIBUTING.md."""
    paths = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
    return [read(path) for path in sorted([*paths, *(ROOT / "docs").glob("*.md")])]


def read(path: Path) -> Page:
    """One file, in Markdown or Python."""
    absolute = path.resolve()
    inside = absolute.is_relative_to(ROOT)
    name = absolute.relative_to(ROOT).as_posix() if inside else str(path)
    sentences = _python if path.suffix == ".py" else _markdown
    return Page(name, tuple(sentences(path.read_text())))


def help_texts() -> list[Page]:
    """What `mirror --help` and `mirror COMMAND --help` print, one page a command."""
    context = click.Context(mirror, info_name="mirror")
    pages = [_help("mirror", mirror, list(COMMANDS.values()))]
    for name in COMMANDS:
        command = mirror.get_command(context, name)
        assert command is not None
        pages.append(_help(f"mirror {name}", command))
        if isinstance(command, click.Group):
            pages += [_help(f"mirror {name} {c.name}", c) for c in command.commands.values()]
    return pages


def _help(name: str, command: click.Command, summaries: Sequence[str] = ()) -> Page:
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    texts = [text for text in paragraphs if not text.startswith("\b")]
    options = [o for o in command.params if isinstance(o, click.Option) and not o.hidden]
    texts += [re.sub(r"\s*\[[\w.]+\](?=\.?$)", "", option.help or "") for option in options]
    return Page(f"{name} --help", tuple(s for text in [*texts, *summaries] for s in split(text)))


def split(text: str) -> Iterator[Sentence]:
    """The sentences of one paragraph."""
    text = re.sub(r"``?[^`]+``?", _CODE, text)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"<https?://[^>]*>|https?://\S+", "URL", text)
    text = re.sub(r"[*]{1,2}", "", " ".join(text.split()))
    text = _ABBREVIATIONS.sub(r"\1", text)
    # A middle dot separates the items of a list that stands in one line.
    for sentence in re.split(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]*[A-Z0-9])| · ", text):
        if re.search(r"\w", sentence):
            yield Sentence(sentence.strip())


def _markdown(text: str) -> Iterator[Sentence]:
    text = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "\n\n", text, flags=re.DOTALL)
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        bare = line.strip()
        is_row = bare.startswith("|")
        # A heading, a row, an empty line and an item of a list each end the paragraph before them.
        if not bare or is_row or re.match(r"#+ |[-*+] |\d+\. ", bare):
            yield from split(" ".join(block))
            block = []
        if is_row:
            yield from _row(bare)
        elif re.match(r"#+ ", bare) or (line.startswith("    ") and not block):
            continue  # a heading is no sentence, and an indented block is code
        elif bare:
            block.append(re.sub(r"^([-*+]|\d+\.) ", "", bare))


def _row(row: str) -> Iterator[Sentence]:
    if re.fullmatch(r"[|\s:-]+", row):
        return
    for cell in re.split(r"(?<!\\)\|", row.strip("|")):
        found = list(split(cell))
        for sentence in found:
            yield Sentence(sentence.text, is_prose=sentence.text[-1] in ".!?")


def _python(text: str) -> Iterator[Sentence]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                # Each argument of a list stands alone; other indented text is code or a drawing.
                items = re.split(r"\n +(?=\w+: )", re.sub(r"^\w+:\n", "", paragraph))
                for item in items if not paragraph.startswith(" ") else []:
                    yield from split(re.sub(r"^ *\w+: (?=[a-z])", "", item))
    for comment in re.findall(r"(?:^ *# .*\n)+", text, re.MULTILINE):
        yield from split(re.sub(r"^ *# ", "", comment, flags=re.MULTILINE))


def main(arguments: Sequence[str]) -> int:
    """Print the figures. Returns 1 if there is a sentence to mend."""
    pages = [read(Path(path)) for path in arguments] or [*documents(), *help_texts()]
    print("sentences  mean  over 25  to mend  page")
    for page in pages:
        prose = page.prose
        above = sum(sentence.words > 25 for sentence in prose)
        print(
            f"{len(prose):9} {mean([page]):5.1f} {above / (len(prose) or 1):8.0%} "
            f"{len(page.faulty):8}  {page.name}"
        )
    print(f"The mean of all is {mean(pages):.1f} words.")
    for page in pages:
        for sentence in page.faulty:
            print(f"\n{page.name}: {sentence.fault}\n  {sentence.text}")
    return int(any(page.faulty for page in pages))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
