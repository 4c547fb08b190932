"""Counts agree with their nouns and verbs."""

import pytest

from mirror.system.display_text import plural


@pytest.mark.parametrize(
    ("number", "verb", "text"),
    [
        (0, "", "0 images"),
        (1, "", "1 image"),
        (2000, "", "2,000 images"),
        (1, "are", "1 image is"),
        (2, "are", "2 images are"),
        (1, "have", "1 image has"),
        (1, "were", "1 image was"),
        (3, "were", "3 images were"),
    ],
)
def test_a_count_agrees_with_its_noun_and_verb(number: int, verb: str, text: str) -> None:
    assert plural(number, "image", verb) == text
