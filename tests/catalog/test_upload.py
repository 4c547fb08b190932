"""Uploads to a key that exists already, whole and in parts."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from mirror.content.digest import Digest, digest_of
from mirror.errors import NotFound
from mirror.layout import object_key
from tests.support.mirror_setup import MirrorSetup, aged, folder_setup, key_of
from tests.support.photos import fill, photo, url_of

__all__ = ["folder_setup"]

# From XXH3's secret: the words mixed with the first four bytes of stripes 3 and 5 of a block.
SECRET = {3: bytes.fromhex("7240a4a4"), 5: bytes.fromhex("825ad07d")}


@pytest.fixture(params=[False, True], ids=["whole", "in parts"])
def in_parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param:
        monkeypatch.setattr("mirror.cache.prepare.WHOLE_UP_TO", 1 << 10)
    return bool(request.param)


def colliding() -> tuple[bytes, bytes]:
    """Two contents with one XXH3-128: where a product in it is 0, only a sum of two words counts."""
    made = []
    for words in ((1000, 1000), (1001, 999)):
        body = bytearray(b"\xff\xd8\xff\xe0".ljust(6000, b"\x11"))
        for (stripe, secret), word in zip(SECRET.items(), words, strict=True):
            struct.pack_into("<4sI", body, 2 * 1024 + stripe * 64, secret, word)
        made.append(bytes(body))
    return made[0], made[1]


def test_two_contents_can_have_one_xxh3_128() -> None:
    first, second = map(digest_of, colliding())
    assert first.content_hash == second.content_hash
    assert first.sha256 != second.sha256


def test_a_content_never_replaces_another_with_the_same_hash(
    folder_setup: MirrorSetup, in_parts: bool
) -> None:
    """There is no row, as while another machine's upload waits for its commit."""
    standing, ours = colliding()
    key = key_of(ours)
    folder_setup.put({key: standing})
    fill(folder_setup.cache, {url_of(1): ours})
    report = folder_setup.sync(inspect="off")
    assert (report.uploaded, report.failed, report.collided, report.exit_status) == (0, 0, 1, 0)
    assert key in report.warnings[0]
    assert folder_setup.objects() == {key: standing}


def test_a_large_content_of_another_size_does_not_either(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.cache.prepare.WHOLE_UP_TO", 1 << 10)
    ours, standing = photo(1) + bytes(2000), photo(2)
    digest = digest_of(ours)

    async def collides(*_: Any) -> Digest:
        return Digest(digest.content_hash, digest_of(standing).sha256, len(standing))

    monkeypatch.setattr("mirror.catalog.upload.digest_in", collides)
    key = object_key(digest.content_hash, "jpeg")
    folder_setup.put({key: standing})
    fill(folder_setup.cache, {url_of(1): ours})
    report = folder_setup.sync(inspect="off")
    assert (report.uploaded, report.collided) == (0, 1)
    assert folder_setup.objects() == {key: standing}


def test_a_large_object_that_is_deleted_during_its_rewrite_is_not_named(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion that was under way may also delete what is written now."""
    monkeypatch.setattr("mirror.cache.prepare.WHOLE_UP_TO", 1 << 10)
    ours = photo(1) + bytes(2000)
    folder_setup.put({key_of(ours): ours})
    aged(Path(folder_setup.place.url.path), days=3)
    fill(folder_setup.cache, {url_of(1): ours})

    async def gone(*_: object) -> None:
        raise NotFound("HEAD: there is no such object.")

    with monkeypatch.context() as patch:
        patch.setattr("mirror.catalog.upload.overwrite", gone)
        report = folder_setup.sync(inspect="off")
    assert (report.uploaded, report.deduplicated, report.failed) == (0, 0, 1)
    assert folder_setup.sync(inspect="off").failed == 0


@pytest.mark.parametrize(
    "damage", [lambda body: body[:-20], lambda body: bytes(len(body))], ids=["cut", "zeros"]
)
def test_an_object_whose_bytes_do_not_match_its_key_is_overwritten(
    folder_setup: MirrorSetup, in_parts: bool, damage: Any
) -> None:
    ours = photo(1) + bytes(2000)
    folder_setup.put({key_of(ours): damage(ours)})
    fill(folder_setup.cache, {url_of(1): ours})
    report = folder_setup.sync(inspect="off")
    assert (report.uploaded, report.failed) == (1, 0)
    assert folder_setup.objects() == {key_of(ours): ours}
