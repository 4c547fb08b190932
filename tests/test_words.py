"""Sentences of the documents and of the help texts are short and plain."""

from __future__ import annotations

import pytest

from tests.support.prose import Page, documents, help_texts, mean, split

DOCUMENTS = documents()
PAGES = [*DOCUMENTS, *help_texts()]

# Pages that are still to be rewritten by the rules of CONTRIBUTING.md.
UNFINISHED: frozenset[str] = frozenset()

# Good sentences that the rules refuse, by page: the beginning of each, with the reason.
EXCEPTIONS: dict[str, tuple[str, ...]] = {
    "docs/benchmarks.md": ("Versions: ",),  # a list of programs, written from the results
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sentences_are_short_and_plain(page: Page) -> None:
    if page.name in UNFINISHED:
        return
    excepted = EXCEPTIONS.get(page.name, ())
    faulty = [s for s in page.faulty if not s.text.startswith(excepted)]
    assert not faulty, "\n".join(f"{s.fault}: {s.text}" for s in faulty)


def test_sentences_have_at_most_fifteen_words_on_average() -> None:
    finished = [page for page in DOCUMENTS if page.name not in {*UNFINISHED, "docs/cli.md"}]
    assert mean(finished) <= 15


def test_exceptions_are_sentences_that_exist() -> None:
    names = {page.name: page for page in PAGES}
    assert names.keys() >= UNFINISHED
    for name, beginnings in EXCEPTIONS.items():
        for beginning in beginnings:
            assert any(s.text.startswith(beginning) for s in names[name].faulty), beginning


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("It reads the file. Then it sends `a b c` to [the bucket](https://x/y).", ""),
        ("The run deletes what no row names.", "'what' as the subject"),
        ("Who looks less undoes nothing.", "'who' without a noun"),
        ("Who may read the bucket?", ""),
        ("The user who owns the folder runs it.", ""),
        ("Nobody downloads it again.", "an indefinite person"),
        ("The state is made anew.", "an old word"),
        ("It ends when nothing comes for so long.", "a 'so many' without its measure"),
        ("It is deleted, nor does it return.", "an inversion"),
        (f"It reads{' one more file and' * 7} stops.", "31 words"),
    ],
)
def test_a_fault_is_found(text: str, fault: str) -> None:
    assert ", ".join(filter(None, (s.fault for s in split(text)))) == fault
