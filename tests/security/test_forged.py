"""Forged content: two JPEGs with one XXH3-128. Only the SHA-256 tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fsspec
import msgspec
import pytest

from mirror import Fetcher
from mirror.config.settings import Settings
from mirror.content.digest import digest_of
from mirror.errors import CorruptObject
from mirror.system.private_folder import is_private_folder
from mirror.upkeep.pull import pull
from tests.conftest import MakePlace
from tests.support.fetch_setup import HURRY, fetching, files_of, reached, without_cache
from tests.support.mirror_setup import MirrorSetup, folder_setup, key_of
from tests.support.photos import fill, url_of

__all__ = ["folder_setup"]

HONEST, FORGED = (
    (Path(__file__).parent / "forged" / name).read_bytes() for name in ("honest.jpg", "forged.jpg")
)
URL = url_of(1)


def test_the_two_files_have_one_xxh3_128_and_one_size() -> None:
    honest, forged = digest_of(HONEST), digest_of(FORGED)
    assert (honest.content_hash, honest.size) == (forged.content_hash, forged.size)
    assert honest.sha256 != forged.sha256


def with_honest(setup: MirrorSetup) -> Settings:
    """The settings of a reader of a mirror of the honest image, without any cache."""
    fill(setup.cache, {URL: HONEST})
    assert setup.sync().exit_status == 0
    return without_cache(setup.settings())


def with_forged(setup: MirrorSetup) -> Settings:
    """The same, and another user has written the forged image over the honest one."""
    settings = with_honest(setup)
    setup.put({key_of(HONEST): FORGED})
    return settings


# --- the mirror, and the network ---


@pytest.mark.parametrize("place", ["file", "moto-obstore", "miniflare-obstore"])
def test_forged_bytes_from_the_mirror_are_an_error(
    place: str, make_place: MakePlace, tmp_path: Path
) -> None:
    setup = MirrorSetup(make_place(place), tmp_path)
    settings = with_forged(setup)
    if setup.place.server is not None and setup.place.server.public_endpoint:
        address = f"{setup.place.server.public_url(setup.place.url.bucket)}/{setup.place.url.path}"
        settings = reached(settings, public_url=address)
    with Fetcher(settings, policy=HURRY) as fetch:
        with pytest.raises(CorruptObject, match="has other bytes than the catalog says"):
            fetch(URL)
        assert fetch.stats().mismatches == 2
    with Fetcher(fetching(settings, verify="xxh3"), policy=HURRY) as fetch:
        assert fetch(URL) == FORGED  # the user has asked for the weaker check


def test_fsspec_gives_an_error_for_forged_bytes(folder_setup: MirrorSetup) -> None:
    fs = fsspec.filesystem("mirror", settings=with_forged(folder_setup), skip_instance_cache=True)
    with pytest.raises(OSError, match="has other bytes"):
        fs.cat_file(URL)


def test_pull_writes_no_forged_bytes(folder_setup: MirrorSetup, tmp_path: Path) -> None:
    settings = with_forged(folder_setup)
    section = msgspec.structs.replace(settings.cache, dir=str(tmp_path / "pulled"))
    report = pull(msgspec.structs.replace(settings, cache=section))
    assert report.exit_status == 3
    assert not list((tmp_path / "pulled").glob("*.jpg"))


# --- caches ---


def test_a_forged_file_in_the_url_keyed_cache_is_ignored(folder_setup: MirrorSetup) -> None:
    with_honest(folder_setup)
    fill(folder_setup.cache, {URL: FORGED})
    with Fetcher(folder_setup.settings(), policy=HURRY) as fetch:
        assert fetch(URL) == HONEST
        assert (fetch.stats().mirror, fetch.stats().mismatches) == (1, 1)


def nothing(_: Path) -> None:
    """Leave the fetch cache private."""


def others_may_write(part: str) -> Callable[[Path], None]:
    """Let the group write a part of the fetch cache."""

    def change(folder: Path) -> None:
        path = next(folder.glob(part)) if part else folder
        path.chmod(path.stat().st_mode | 0o020)

    return change


@pytest.mark.parametrize(
    ("share", "given"),
    [
        (nothing, FORGED),  # no other user can have written it
        (others_may_write(""), HONEST),
        (others_may_write("objects"), HONEST),
        (others_may_write("objects/??"), HONEST),
        (others_may_write("objects/??/*"), HONEST),
        (lambda folder: others_may_write("")(folder.parent), HONEST),
    ],
    ids=["private", "folder", "objects", "shard", "file", "parent"],
)
def test_xxh3_alone_counts_only_in_a_cache_of_this_user_alone(
    folder_setup: MirrorSetup, tmp_path: Path, share: Callable[[Path], None], given: bytes
) -> None:
    folder = tmp_path / "above" / "fetch"
    settings = fetching(with_honest(folder_setup), cache_dir=str(folder))
    with Fetcher(settings, policy=HURRY) as fetch:
        assert fetch(URL) == HONEST
    (file,) = files_of(settings)
    file.write_bytes(FORGED)
    for path in (folder.parent, *folder.rglob("*"), folder):
        path.chmod(path.stat().st_mode & ~0o022)  # whatever the umask is
    share(folder)
    with Fetcher(settings, policy=HURRY) as fetch:
        assert fetch(URL) == given
    assert file.read_bytes() == given  # a forged file is replaced


def test_a_folder_is_private_by_its_owner_and_those_of_its_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    assert is_private_folder(folder)
    folder.parent.chmod(0o777)
    assert not is_private_folder(folder)
    folder.parent.chmod(0o1777)  # sticky, as /tmp
    assert is_private_folder(folder)
    assert not is_private_folder(tmp_path / "absent")
    monkeypatch.setattr("os.geteuid", lambda: 54321)
    assert not is_private_folder(folder)


def test_offline_a_forged_file_is_no_image(folder_setup: MirrorSetup, tmp_path: Path) -> None:
    folder = tmp_path / "fetch"
    settings = fetching(with_honest(folder_setup), cache_dir=str(folder))
    with Fetcher(settings, policy=HURRY) as fetch:
        fetch(URL)
    (file,) = files_of(settings)
    file.write_bytes(FORGED)
    folder.chmod(0o777)
    with Fetcher(settings, offline=True, policy=HURRY) as fetch:
        assert dict(fetch.many([URL]))[URL] != FORGED
        assert fetch.stats().unavailable == 1
