"""SplitMix64 gives the published numbers: splits, samples and epochs depend on them."""

from __future__ import annotations

import numpy as np

from mirror.content.splitmix64 import mix, outputs


def test_outputs_are_the_published_ones() -> None:
    # The test vector of Rosetta Code's "Pseudo-random numbers/Splitmix64", seed 1234567.
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert outputs(1234567, range(1, 6)).tolist() == published
    assert outputs(1234567, [3, 1]).tolist() == [published[2], published[0]]


def test_mixing_works_in_place() -> None:
    words = np.array([0, 1, 2, 2**64 - 1], np.uint64)
    mixed = mix(words)
    assert mixed is words
    assert words.tolist() == [
        0,
        6238072747940578789,
        15839785061582574730,
        13029008266876403067,
    ]
