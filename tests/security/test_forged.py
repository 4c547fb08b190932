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
from mirror.errors import CorruptObject, Flagged
from mirror.layout import url_md5
from mirror.sync.run_sync import sync
from mirror.system.private_folder import is_private_folder
from mirror.upkeep.change_limit import ChangeLimit
from mirror.upkeep.pull import pull
from mirror.upkeep.repair import RepairOptions, repair
from mirror.upkeep.verify import VerifyOptions
from tests.conftest import MakePlace
from tests.support.fetch_setup import HURRY, fetching, files_of, reached, without_cache
from tests.support.mirror_setup import MirrorSetup, folder_setup, key_of
from tests.support.photos import fill, name_of, url_of

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


# --- syncs ---

OTHER_URL = url_of(2)


def latest(setup: MirrorSetup) -> dict[str, tuple[str, bytes]]:
    """Verdict and SHA-256 of the latest row of each URL."""
    rows = setup.rows()
    found = {}
    for url in (URL, OTHER_URL):
        if row := rows.get(url_md5(url)):
            found[url] = (row["verdict"], row["sha256"])
    return found


@pytest.mark.parametrize("together", [True, False], ids=["in one run", "in two runs"])
def test_a_sync_names_both_files_and_does_not_fail(
    folder_setup: MirrorSetup, together: bool
) -> None:
    fill(folder_setup.cache, {URL: FORGED})
    if not together:
        assert folder_setup.sync().uploaded == 1
    fill(folder_setup.cache, {OTHER_URL: HONEST})
    for run in range(2):
        report = folder_setup.sync()
        assert (report.collided, report.failed, report.exit_status) == (1, 0, 0), run
        (warning,) = report.warnings
        assert name_of(URL)[:32] in warning
        assert name_of(OTHER_URL)[:32] in warning
        assert report.as_json()["collided"] == 1
    assert len(latest(folder_setup)) == 1
    assert list(folder_setup.objects()) == [key_of(HONEST)]


def test_the_steps_of_the_document_let_the_honest_file_in(folder_setup: MirrorSetup) -> None:
    fill(folder_setup.cache, {URL: FORGED})
    folder_setup.sync()
    fill(folder_setup.cache, {OTHER_URL: HONEST})
    assert folder_setup.sync().collided == 1
    (folder_setup.cache / name_of(URL)).unlink()
    folder_setup.remove(key_of(FORGED))
    repaired = repair(folder_setup.settings(), RepairOptions(limit=ChangeLimit(number=1)))
    assert repaired.error is None, repaired.error
    report = folder_setup.sync()
    assert (report.uploaded, report.collided, report.warnings) == (1, 0, [])
    assert folder_setup.objects() == {key_of(HONEST): HONEST}
    assert latest(folder_setup) == {
        URL: ("corrupt", digest_of(FORGED).sha256),
        OTHER_URL: ("ok", digest_of(HONEST).sha256),
    }
    with Fetcher(without_cache(folder_setup.settings()), policy=HURRY) as fetch:
        assert fetch(OTHER_URL) == HONEST
        with pytest.raises(Flagged):
            fetch(URL)


def test_a_flagged_forgery_does_not_flag_the_honest_image(
    folder_setup: MirrorSetup, tmp_path: Path
) -> None:
    """A placeholder is final for its content hash, so its row must not have an image's hash."""
    fill(folder_setup.cache, {URL: HONEST})
    folder_setup.sync()
    fill(folder_setup.cache, {OTHER_URL: FORGED})
    known_bad = tmp_path / "known_bad"
    known_bad.write_text(digest_of(FORGED).sha256.hex())
    settings = folder_setup.place.settings(
        cache={"dir": str(folder_setup.cache)},
        state={"dir": str(folder_setup.state)},
        inspect={"known_bad": str(known_bad)},
    )
    assert sync(settings).collided == 1
    assert latest(folder_setup) == {URL: ("ok", digest_of(HONEST).sha256)}


def test_repair_writes_the_honest_image_over_a_forged_object(folder_setup: MirrorSetup) -> None:
    with_forged(folder_setup)
    report = repair(folder_setup.settings(), RepairOptions(verify=VerifyOptions(share=1.0)))
    assert (report.mismatched, report.repaired, report.error) == (1, 1, None)
    assert folder_setup.objects() == {key_of(HONEST): HONEST}
