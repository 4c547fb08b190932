"""Collections on servers: of every kind, with faults, and with keys that lack permissions."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.config.settings import Settings
from mirror.errors import AccessDenied
from mirror.layout import GC_LEASE_KEY
from mirror.upkeep.gc import GcOptions, GcReport, gc
from tests.conftest import MakePlace
from tests.servers import READER, WRITER
from tests.servers.process import eventually
from tests.support.fault_proxy import SLOW_DOWN, Fault, FaultProxy, Request, ResetAfter, Rule
from tests.support.mirror_setup import PLACES, SOON, Workshop, key_of
from tests.support.photos import photo
from tests.upkeep.aged_mirrors import is_whole, keys, objects, stocked


def at_once(shop: Workshop) -> Settings:
    """No grace period, for places whose clock a test cannot set."""
    return shop.place.settings(
        cache={"dir": str(shop.cache)}, state={"dir": str(shop.state)}, gc={"grace_days": 0.0}
    )


@pytest.mark.parametrize("name", PLACES)
def test_every_kind_of_place_loses_the_same_objects(
    name: str, make_place: MakePlace, tmp_path: Path
) -> None:
    shop = Workshop(make_place(name), tmp_path)
    stocked(shop)
    shop.put({key_of(photo(70)): photo(70), "objects/ab/readme.txt": b"mine"})
    reports: list[GcReport] = []

    def gone() -> bool:
        # The store's clock counts seconds: an object of the current second is not old yet.
        reports.append(gc(at_once(shop)))
        return reports[-1].deleted == 1

    assert eventually(gone, within=30)
    report = reports[-1]
    assert (report.error, report.strangers) == (None, 1)
    assert "grace_days" in report.warnings[0]
    assert objects(shop) == keys(0, 1, 2, 3, 4, 5) | {"objects/ab/readme.txt"}
    is_whole(shop)


@pytest.mark.parametrize("name", ["seaweedfs-obstore", "seaweedfs-aioboto3", "miniflare-obstore"])
def test_uploads_that_were_never_completed_are_aborted(
    name: str, make_place: MakePlace, tmp_path: Path
) -> None:
    from mirror.store.s3_access import S3Access

    place = make_place(name)
    shop = Workshop(place, tmp_path)
    stocked(shop)
    client = S3Access(place.url, place.settings().bucket).client()
    key = f"{place.url.path}/{key_of(photo(70))}"
    begun = client.create_multipart_upload(Bucket=place.url.bucket, Key=key)
    client.upload_part(
        Bucket=place.url.bucket, Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"x"
    )
    assert gc(shop.settings()).uploads in (0, None)

    def ended() -> bool:
        report = gc(at_once(shop))
        assert report.error is None
        return report.uploads in (1, None)

    assert eventually(ended, within=30)
    report = gc(at_once(shop))
    if report.uploads is None:
        assert name.startswith("miniflare")  # it has no such request
    else:
        assert report.uploads == 0


def once(path: str, method: str, fault: Fault) -> Rule:
    """Apply the fault to the first request of a method for a path with this ending."""
    met: list[Request] = []

    def rule(request: Request) -> Fault | None:
        if request.method != method or not request.path.endswith(path):
            return None
        met.append(request)
        return fault if len(met) == 1 else None

    return rule


@pytest.mark.parametrize("nth", ["its first", "another"])
def test_a_lease_that_was_written_but_not_answered_is_recognised(
    nth: str, make_place: MakePlace, tmp_path: Path
) -> None:
    shop = Workshop(make_place("moto-obstore"), tmp_path)
    stocked(shop)
    assert shop.place.server is not None
    if nth == "another":
        assert gc(shop.settings()).error is None
    with FaultProxy(shop.place.server.endpoint, once(GC_LEASE_KEY, "PUT", ResetAfter())) as proxy:
        report = gc(shop.through(proxy), GcOptions(retry=SOON))
    assert report.error is None


def test_a_busy_store_is_asked_again_for_uncompleted_uploads(
    make_place: MakePlace, tmp_path: Path
) -> None:
    shop = Workshop(make_place("moto-obstore"), tmp_path)
    stocked(shop)
    assert shop.place.server is not None
    met = 0

    def rule(request: Request) -> Fault | None:
        nonlocal met
        asks = "uploads" in request.target
        met += asks
        return SLOW_DOWN if asks and met < 3 else None

    with FaultProxy(shop.place.server.endpoint, rule) as proxy:
        report = gc(shop.through(proxy), GcOptions(retry=SOON))
    assert (report.error, report.uploads, met) == (None, 0, 3)


def test_a_key_that_may_not_delete_gets_a_clear_error(
    make_place: MakePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Workshop(make_place("seaweedfs-obstore"), tmp_path)
    stocked(shop)
    shop.put({key_of(photo(70)): photo(70)})
    for identity in (WRITER, READER):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", identity.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", identity.secret_key)

        def refused() -> bool:
            report = gc(at_once(shop))
            return isinstance(report.error, AccessDenied)

        assert eventually(refused, within=30)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", shop.place.server.access_key)  # type: ignore[union-attr]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", shop.place.server.secret_key)  # type: ignore[union-attr]
    assert len(objects(shop)) == 7
