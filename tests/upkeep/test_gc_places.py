"""Collections on servers: of every kind, with faults, and with keys that lack permissions."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.config.settings import Settings
from mirror.errors import AccessDenied
from mirror.layout import GC_LEASE_KEY
from mirror.upkeep.gc import GcOptions, GcReport, gc
from tests.conftest import MakePlace, Place
from tests.servers import READER, WRITER
from tests.servers.process import eventually
from tests.support.fault_proxy import SLOW_DOWN, Fault, FaultProxy, Request, ResetAfter, Rule
from tests.support.mirror_setup import PLACES, SOON, MirrorSetup, key_of
from tests.support.photos import photo
from tests.upkeep.aged_mirrors import is_whole, keys, objects, stocked


def at_once(mirror_setup: MirrorSetup) -> Settings:
    """No grace period, for places whose clock a test cannot set."""
    return mirror_setup.place.settings(
        cache={"dir": str(mirror_setup.cache)},
        state={"dir": str(mirror_setup.state)},
        gc={"grace_days": 0.0},
    )


@pytest.mark.parametrize("name", PLACES)
def test_every_kind_of_place_loses_the_same_objects(
    name: str, make_place: MakePlace, tmp_path: Path
) -> None:
    mirror_setup = MirrorSetup(make_place(name), tmp_path)
    stocked(mirror_setup)
    mirror_setup.put({key_of(photo(70)): photo(70), "objects/ab/readme.txt": b"mine"})
    reports: list[GcReport] = []

    def gone() -> bool:
        # The store's clock counts seconds: an object of the current second is not old yet.
        reports.append(gc(at_once(mirror_setup)))
        return reports[-1].deleted == 1

    assert eventually(gone, within=30)
    report = reports[-1]
    assert (report.error, report.strangers) == (None, 1)
    assert "grace_days" in report.warnings[0]
    assert objects(mirror_setup) == keys(0, 1, 2, 3, 4, 5) | {"objects/ab/readme.txt"}
    is_whole(mirror_setup)


@pytest.mark.parametrize("name", ["seaweedfs-obstore", "seaweedfs-aioboto3", "miniflare-obstore"])
def test_uploads_that_were_never_completed_are_aborted(
    name: str, make_place: MakePlace, tmp_path: Path
) -> None:
    from mirror.store.s3_access import S3Access

    place = make_place(name)
    mirror_setup = MirrorSetup(place, tmp_path)
    stocked(mirror_setup)
    client = S3Access(place.url, place.settings().bucket).client()
    key = f"{place.url.path}/{key_of(photo(70))}"
    begun = client.create_multipart_upload(Bucket=place.url.bucket, Key=key)
    client.upload_part(
        Bucket=place.url.bucket, Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"x"
    )
    assert gc(mirror_setup.settings()).uploads in (0, None)

    def ended() -> bool:
        report = gc(at_once(mirror_setup))
        assert report.error is None
        return report.uploads in (1, None)

    assert eventually(ended, within=30)
    report = gc(at_once(mirror_setup))
    if report.uploads is None:
        assert name.startswith("miniflare")  # it has no such request
    else:
        assert report.uploads == 0


def test_uploads_of_other_programs_are_left_alone(make_place: MakePlace, tmp_path: Path) -> None:
    """The mirror is at the root of a bucket that it shares."""
    from mirror.store.s3_access import S3Access

    place = make_place("moto-obstore")
    bucket = place.url.bucket
    place = Place(place.name, place.layer | {"url": f"s3://{bucket}"}, place.server)
    mirror_setup = MirrorSetup(place, tmp_path)
    stocked(mirror_setup)
    client = S3Access(place.url, place.settings().bucket).client()
    ours = {key_of(photo(70)), "catalog/part-x.parquet"}
    others = {"videos/film.mp4", "objects/film.mp4", "catalog.zip", "gc.json.bak"}
    for key in ours | others:
        client.create_multipart_upload(Bucket=bucket, Key=key)

    def ended() -> bool:
        report = gc(at_once(mirror_setup))
        assert report.error is None
        found = client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())
        return {upload["Key"] for upload in found} == others

    assert eventually(ended, within=30)
    assert gc(at_once(mirror_setup)).uploads == 0


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
    mirror_setup = MirrorSetup(make_place("moto-obstore"), tmp_path)
    stocked(mirror_setup)
    assert mirror_setup.place.server is not None
    if nth == "another":
        assert gc(mirror_setup.settings()).error is None
    with FaultProxy(
        mirror_setup.place.server.endpoint, once(GC_LEASE_KEY, "PUT", ResetAfter())
    ) as proxy:
        report = gc(mirror_setup.through(proxy), GcOptions(retry=SOON))
    assert report.error is None


def test_a_busy_store_is_asked_again_for_uncompleted_uploads(
    make_place: MakePlace, tmp_path: Path
) -> None:
    mirror_setup = MirrorSetup(make_place("moto-obstore"), tmp_path)
    stocked(mirror_setup)
    assert mirror_setup.place.server is not None
    met = 0

    def rule(request: Request) -> Fault | None:
        nonlocal met
        asks = "uploads" in request.target
        met += asks
        return SLOW_DOWN if asks and met < 3 else None

    with FaultProxy(mirror_setup.place.server.endpoint, rule) as proxy:
        report = gc(mirror_setup.through(proxy), GcOptions(retry=SOON))
    # Two refusals, then one request for each of objects/, catalog/ and doctor/.
    assert (report.error, report.uploads, met) == (None, 0, 5)


def test_a_key_that_may_not_delete_gets_a_clear_error(
    make_place: MakePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror_setup = MirrorSetup(make_place("seaweedfs-obstore"), tmp_path)
    stocked(mirror_setup)
    mirror_setup.put({key_of(photo(70)): photo(70)})
    for identity in (WRITER, READER):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", identity.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", identity.secret_key)

        def refused() -> bool:
            report = gc(at_once(mirror_setup))
            return isinstance(report.error, AccessDenied)

        assert eventually(refused, within=30)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", mirror_setup.place.server.access_key)  # type: ignore[union-attr]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", mirror_setup.place.server.secret_key)  # type: ignore[union-attr]
    assert len(objects(mirror_setup)) == 7
