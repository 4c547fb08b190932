"""The rules for copies of one photograph, on keys alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.dataset.splits.image_keys import (
    LAST,
    NO_LABEL,
    ImageKeys,
    count_copies,
    label_conflicts,
    not_winning,
)
from mirror.dataset.splits.split import by_key, parse_splits

THREE = parse_splits("train=0.8,val=0.1,test=0.1")


class Image(NamedTuple):
    record: int
    key: int
    content: int = 0
    order: int = 0
    photo: int = 0
    same: int = 0
    pixels: int = 1


def keys(images: list[Image]) -> ImageKeys:
    def column(name: str, kind: str) -> np.ndarray:
        return np.array([getattr(image, name) for image in images], kind)

    return ImageKeys(
        record=column("record", "i8"),
        key=column("key", "u8"),
        order=column("order", "i8"),
        content=column("content", "u8"),
        url=column("content", "u8"),
        photo=column("photo", "u8"),
        hashed=np.ones(len(images), bool),
        same=column("same", "u8"),
        pixels=column("pixels", "i8"),
    )


# --- one photo in several sizes ---


def test_images_of_one_photo_take_the_key_that_was_seen_first() -> None:
    images = keys(
        [Image(0, 7, order=5, photo=1), Image(1, 3, order=9, photo=1), Image(2, 4, photo=2)]
    ).with_photos_joined()
    assert images.key.tolist() == [7, 7, 4]
    assert images.order.tolist() == [5, 5, 0]


def test_a_photo_joins_all_images_of_the_groups_that_it_links() -> None:
    images = keys(
        [Image(0, 7, order=5), Image(1, 7, order=5, photo=1), Image(2, 3, order=9, photo=1),
         Image(3, 3, order=9), Image(4, 5, order=1)]
    ).with_photos_joined()  # fmt: skip
    assert images.key.tolist() == [7, 7, 7, 7, 5]


def test_images_without_a_photo_are_not_joined() -> None:
    assert keys([Image(0, 7), Image(1, 3)]).with_photos_joined().key.tolist() == [7, 3]


IMAGES = st.lists(
    st.tuples(st.integers(0, 9), st.integers(1, 6), st.integers(0, 3)).map(
        lambda image: Image(image[0], image[1], order=image[1], photo=image[2])
    ),
    max_size=12,
)


@given(IMAGES)
def test_equal_photos_and_equal_keys_stay_together(images: list[Image]) -> None:
    found = keys(images).with_photos_joined().key.tolist()
    for one, key in zip(images, found, strict=True):
        for other, other_key in zip(images, found, strict=True):
            if one.key == other.key or (one.photo and one.photo == other.photo):
                assert key == other_key
    assert set(found) <= {image.key for image in images}


# --- counts ---


def test_copies_are_counted_by_content() -> None:
    images = keys(
        [Image(0, 1, content=1), Image(1, 1, content=1), Image(2, 2, content=2),
         Image(3, 2, content=3), Image(4, 2, content=3), Image(5, 4, content=4)]
    )  # fmt: skip
    assert count_copies(images, (), 0) == (1, 0)
    assert count_copies(keys([]), THREE, 0) == (0, 0)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=9, unique=True), st.integers(0, 99))
def test_a_group_crosses_if_its_contents_alone_would_be_in_several_splits(
    contents: list[int], seed: int
) -> None:
    images = keys([Image(at, 1, content=content) for at, content in enumerate(contents)])
    splits = set(by_key(np.array(contents, "u8"), THREE, seed).tolist())
    assert count_copies(images, THREE, seed) == (1, len(splits) > 1)


# --- the best of several copies ---


@pytest.mark.parametrize(
    ("images", "losing"),
    [
        ([Image(0, 1, 1, pixels=4), Image(1, 1, 2, pixels=9)], [0]),
        ([Image(0, 1, 2, pixels=9), Image(1, 1, 1, pixels=9)], [0]),
        ([Image(0, 1, 1, pixels=9), Image(1, 1, 1, pixels=9)], [1]),
        ([Image(0, 1, 1, same=1), Image(1, 1, 2, same=2)], []),
        ([Image(0, 1, 1, order=LAST), Image(1, 1, 1, order=LAST)], []),
        # A record stays for the best of its images.
        ([Image(0, 1, 1, pixels=4), Image(0, 1, 5, same=5), Image(1, 1, 2, pixels=9)], []),
    ],
)
def test_the_largest_copy_wins(images: list[Image], losing: list[int]) -> None:
    assert np.flatnonzero(not_winning(keys(images), 2)).tolist() == losing


# --- labels ---


def test_a_photograph_under_two_classes_is_a_conflict() -> None:
    images = keys([Image(0, 1), Image(1, 1), Image(2, 2), Image(3, 2), Image(4, 1), Image(5, 3)])
    labels = np.array([0, 1, 1, 1, NO_LABEL, 0], np.int32)
    found = label_conflicts(images, labels, ["ash", "oak"])
    assert found.photographs == 1
    assert np.flatnonzero(found.records).tolist() == [0, 1]
    assert [(one.classes, one.records) for one in found.listed] == [(["ash", "oak"], [0, 1])]


def test_no_image_has_no_conflict() -> None:
    found = label_conflicts(keys([]), np.zeros(0, np.int32), [])
    assert (found.photographs, found.listed) == (0, [])
