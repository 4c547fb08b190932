"""Reading a file once: its digests, and the check that it did not change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.content import digest
from mirror.content.digest import HEAD_BYTES, Digest, FileChanged, Hasher, Identity, read

KEEP = 4096


def expected(data: bytes) -> Digest:
    return Digest(xxhash.xxh3_128(data).digest(), hashlib.sha256(data).digest(), len(data))


def body_of(size: int, seed: int = 0) -> bytes:
    return hashlib.shake_128(b"%d" % seed).digest(size)


# Sizes around each limit: empty, the head, the kept body, a chunk.
CHUNK = 3 * KEEP
EDGES = [0, KEEP, CHUNK, 2 * CHUNK, HEAD_BYTES]
SIZES = st.builds(lambda edge, off: max(0, edge + off), st.sampled_from(EDGES), st.integers(-2, 2))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "CHUNK_BYTES", CHUNK)


@pytest.mark.usefixtures("small_chunks")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(size=SIZES, seed=st.integers(0, 100))
def test_a_file_has_the_same_digest_whether_its_body_is_kept_or_not(
    size: int, seed: int, tmp_path: Path
) -> None:
    path, body = tmp_path / "file", body_of(size, seed)
    path.write_bytes(body)
    found = read(str(path), keep_up_to=KEEP)
    stat = path.stat()
    assert found.digest == expected(body)
    assert found.identity == Identity(size, stat.st_mtime_ns, stat.st_ino)
    assert found.body == (body if size <= KEEP else None)
    # Only in this test is a chunk shorter than the head.
    assert found.head == body[: min(HEAD_BYTES, CHUNK if size > KEEP else size)]


def test_the_head_of_a_large_file_is_as_long_as_that_of_a_small_one(tmp_path: Path) -> None:
    path, body = tmp_path / "file", body_of(HEAD_BYTES + 1)
    path.write_bytes(body)
    large, small = (read(str(path), keep_up_to=keep) for keep in (0, len(body)))
    assert large.head == small.head == body[:HEAD_BYTES]
    assert (large.body, small.body) == (None, body)


@given(st.lists(st.binary(max_size=100)))
def test_pieces_have_the_same_digest_as_the_whole(pieces: list[bytes]) -> None:
    hasher = Hasher()
    for piece in pieces:
        hasher.update(piece)
    whole = b"".join(pieces)
    assert hasher.digest() == digest.digest_of(whole) == expected(whole)


def test_names_may_be_any_bytes(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xfe"
    with open(path, "wb") as file:
        file.write(b"body")
    assert read(path, keep_up_to=KEEP).body == b"body"


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(OSError, match="symbolic link"):
        read(str(tmp_path / "link"), keep_up_to=KEEP)


def test_a_folder_is_refused_and_not_left_open(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(IsADirectoryError):
        read(str(tmp_path), keep_up_to=KEEP)
    assert set(os.listdir("/proc/self/fd")) == before


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rewrite_in_place(path: Path) -> None:
    size, then = path.stat().st_size, path.stat().st_mtime_ns + 1
    path.write_bytes(bytes(size))
    os.utime(path, ns=(then, then))  # file systems' clocks tick in milliseconds


CHANGES = {"grows": append, "is cut": lambda path: os.truncate(path, 1), "is": rewrite_in_place}


def meanwhile(change: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the change while the file is hashed, after its first bytes were read."""
    real = hashlib.sha256

    def sha256(data: bytes = b"") -> object:
        change()
        return real(data)

    monkeypatch.setattr(digest, "sha256", sha256)


@pytest.mark.parametrize("size", [100, 2 * CHUNK])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.usefixtures("small_chunks")
def test_a_file_that_changes_while_it_is_read_is_refused(
    change: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(body_of(size))
    meanwhile(lambda: CHANGES[change](path), monkeypatch)
    with pytest.raises(FileChanged):
        read(str(path), keep_up_to=KEEP)


@pytest.mark.parametrize("size", [100, 2 * CHUNK])
def test_a_file_that_is_replaced_while_it_is_read_keeps_its_old_identity(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(body_of(size))
    other.write_bytes(body_of(size, seed=1))
    old = Identity.of(path.stat())
    meanwhile(lambda: other.rename(path) if other.exists() else None, monkeypatch)
    found = read(str(path), keep_up_to=KEEP)
    assert found.digest == expected(body_of(size))
    # The walk of the next run finds another inode, and reads the new file.
    assert found.identity == old
    assert Identity.of(path.stat()) != old
