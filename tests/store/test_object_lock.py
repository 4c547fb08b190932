"""Buckets with Object Lock, which refuse every PUT of an object without a checksum."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.sync.run_sync import sync
from tests.conftest import MakePlace
from tests.diagnosis.doctor_setup import DoctorSetup, statuses
from tests.support.fault_proxy import Fault, FaultProxy, Request, refusal
from tests.support.photos import fill, photo, url_of


def locked(request: Request) -> Fault | None:
    if request.method != "PUT" or "content-md5" in request.headers:
        return None
    summed = any(name.startswith("x-amz-checksum-") for name in request.headers)
    return None if summed else refusal(400, "InvalidRequest")


@pytest.mark.parametrize("name", ["moto-obstore", "moto-aioboto3", "seaweedfs-obstore"])
def test_a_mirror_fits_into_it(name: str, make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place(name)
    fill(tmp_path / "cache", {url_of(1): photo(1)})
    folders = {"cache": {"dir": f"{tmp_path}/cache"}, "state": {"dir": f"{tmp_path}/state"}}
    with FaultProxy(place.layer["endpoint"], locked) as proxy:
        place.layer["endpoint"] = proxy.endpoint
        report = sync(place.settings(**folders))
    assert (report.error, report.uploaded, report.catalog_commits) == (None, 1, 1)


@pytest.mark.parametrize("name", ["moto-obstore", "seaweedfs-aioboto3"])
def test_the_doctors_probes_fit_too(name: str, make_place: MakePlace, tmp_path: Path) -> None:
    setup = DoctorSetup(make_place(name), tmp_path)
    with FaultProxy(setup.place.layer["endpoint"]) as proxy:
        setup.bucket["endpoint"] = proxy.endpoint
        without = statuses(setup.found(), "fail")
        proxy.rule = locked
        assert statuses(setup.found(), "fail") == without
