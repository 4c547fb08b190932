"""`mirror rewrite`: kinds of inputs, and schemes of the new URLs."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.cli.rewrite_command import DROPPED, Rewrite, call, key_of, read, rewrite, work
from tests.cli.test_bad_input import Run, mirror
from tests.conftest import MakePlace
from tests.servers.mongodb import MONGO_READER, MongoServer
from tests.support.mirrored_dataset import (
    BLANK,
    GOOD,
    Mirror,
    got,
    plants,
)
from tests.support.photos import fill, photo, url_of

__all__ = ["call", "mirror", "plants", "rewrite", "work"]


# --- schemes ---


def mirrored_at(name: str, make_place: MakePlace, work: Path) -> tuple[Mirror, list[str]]:
    """A mirror on a server, and the flags for it. The environment has its credentials."""
    fill(work.parent / "cache", {url_of(n): photo(n) for n in GOOD})
    place = make_place(name)
    there = Mirror.of(place, work.parent)
    layer = place.layer
    flags = [f"--bucket={layer['url']}", f"--endpoint={layer['endpoint']}"]
    return there, [*flags, f"--region={layer['region']}", f"--state={work.parent}/state"]


@pytest.fixture
def bucket(make_place: MakePlace, work: Path) -> tuple[Mirror, list[str]]:
    """A bucket that requires signatures."""
    return mirrored_at("seaweedfs-obstore", make_place, work)


def test_schemes_of_a_bucket(bucket: tuple[Mirror, list[str]], call: Rewrite, work: Path) -> None:
    there, flags = bucket
    flags += ["good.jsonl", "--force"]
    public = "--public-url=https://img.example.org/in at"
    base = {
        "s3": f"{there.settings.bucket_url}/",
        "public": "https://img.example.org/in%20at/",
    }
    for scheme, more in (("s3", []), ("s3", ["--scheme=s3", public]), ("public", [public]),
                         ("public", ["--scheme=public", public])):  # fmt: skip
        assert call("-o", "out.jsonl", *flags, *more).status == 0
        assert [r["image_url"] for r in got(work / "out.jsonl")] == [
            base[scheme] + key_of(n) for n in GOOD
        ]
        assert [r["source_url"] for r in got(work / "out.jsonl")] == [url_of(n) for n in GOOD]


def test_presigned_urls_can_be_read_by_anybody(
    bucket: tuple[Mirror, list[str]], call: Rewrite, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, flags = bucket
    done = call("good.jsonl", "-o", "out.jsonl", *flags, "--scheme=presigned", "--expires=0.5")
    assert (done.status, done.err) == (0, "")
    records = got(work / "out.jsonl")
    assert all("X-Amz-Expires=43200&" in record["image_url"] for record in records)
    # Again: they are the mirror's own, and are signed anew.
    done = call("out.jsonl", "-o", "again.jsonl", *flags, "--scheme=presigned", "--expires=1")
    again = got(work / "again.jsonl")
    assert [one["source_url"] for one in again] == [url_of(n) for n in GOOD]
    assert all("X-Amz-Expires=86400&" in record["image_url"] for record in again)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for one, other, number in zip(records, again, GOOD, strict=True):
        assert read(one["image_url"]) == read(other["image_url"]) == photo(number)
    with pytest.raises(urllib.error.HTTPError):
        read(records[0]["image_url"].partition("?")[0])


OUTPUTS = ("out.jsonl", "out.jsonl.gz", "out.csv.zst", "out.tsv", "out.parquet")


@pytest.mark.parametrize("splits", [(), ("--split=train=0.5,test=0.5",)], ids=["one", "splits"])
def test_only_the_owner_can_read_presigned_urls(
    splits: tuple[str, ...], bucket: tuple[Mirror, list[str]], call: Rewrite, work: Path
) -> None:
    _, flags = bucket
    for output in OUTPUTS:
        done = call("good.jsonl", "-o", output, *flags, "--scheme=presigned", *splits)
        assert (done.status, done.err) == (0, "")
    written = list(work.glob("out*"))
    assert len(written) == len(OUTPUTS) * (2 if splits else 1)
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}


def test_urls_signed_by_credentials_that_die_are_remarked(
    make_place: MakePlace, call: Rewrite, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, flags = mirrored_at("moto-obstore", make_place, work)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "passing")
    done = call("good.jsonl", "-o", "out.jsonl", *flags, "--scheme=presigned", "--json")
    assert done.status == 0
    (warning,) = done.json["warnings"]
    assert "credentials are temporary, and presigned URLs expire with them" in warning
    assert done.err == f"mirror: {warning}\n"
    done = call("good.jsonl", "-o", "s3.jsonl", *flags)
    assert (done.status, done.err) == (0, "")


def test_a_mirror_in_a_folder_has_urls_that_open(rewrite: Rewrite, work: Path) -> None:
    for scheme in ([], ["--scheme=file"]):
        assert rewrite("good.jsonl", "-o", "out.jsonl", "--force", *scheme).status == 0
        assert [read(r["image_url"]) for r in got(work / "out.jsonl")] == [photo(n) for n in GOOD]
    public = ["--public-url=http://img.example.org:8080", "--scheme=public"]
    assert rewrite("good.jsonl", "-o", "out.jsonl", "--force", *public).status == 0
    assert got(work / "out.jsonl")[0]["image_url"] == f"http://img.example.org:8080/{key_of(0)}"


# --- inputs ---


def test_standard_input(mirror: Run, plants: Mirror, work: Path) -> None:
    where = [f"--bucket={plants.settings.bucket.url}", f"--state={plants.settings.state.dir}"]
    command = [sys.executable, "-m", "mirror", "--json", "rewrite", "-", *where]
    for name, body in (
        ("plain", (work / "raw.jsonl").read_bytes()),
        ("packed", gzip.compress((work / "raw.jsonl").read_bytes())),
    ):
        done = subprocess.run(
            [*command, "-o", f"{name}.jsonl"], input=body, capture_output=True, check=False
        )
        assert done.returncode == 3, done.stderr
        report = json.loads(done.stdout)
        assert (report["records"], report["dropped"]) == (91, DROPPED)
        assert report["examples"]["invalid"][0]["input"] == "standard input"
        assert len(got(work / f"{name}.jsonl")) == 70


def test_several_inputs(rewrite: Rewrite, work: Path) -> None:
    (work / "more.csv").write_text(f"image_url,id\n{url_of(3)},1\n{url_of(BLANK[0])},2\n")
    said = rewrite("good.jsonl", "more.csv", "raw.jsonl", "-o", "out.csv", "--json")
    assert said.status == 3
    assert (said.json["records"], said.json["written"]) == (10 + 2 + 91, 10 + 1 + 70)
    assert said.json["examples"]["blank"][0] == {
        "input": "more.csv", "number": 3, "what": url_of(BLANK[0]),
    }  # fmt: skip


def test_a_collection_of_mongodb(mongodb: MongoServer, rewrite: Rewrite, work: Path) -> None:
    collection = mongodb.fresh_collection()
    collection.insert_many([{"image_url": url_of(n), "n": n} for n in (*GOOD, *BLANK)])
    collection.insert_one({"n": -1})
    url = mongodb.url(collection.name)
    assert quote(MONGO_READER.password, safe="") in url
    report_file = work / "report.json"
    said = rewrite(url, "-o", "out.jsonl", f"--report={report_file}", "--json")
    assert said.status == 3
    report = said.json
    assert (report["records"], report["written"]) == (14, 10)
    assert (report["dropped"]["blank"], report["dropped"]["invalid"]) == (3, 1)
    assert got(work / "out.jsonl")[0]["image_url"].endswith(key_of(0))
    assert report["examples"]["invalid"][0]["input"].startswith(f"mongodb://{mongodb.address}/")

    human = rewrite(url, "-o", "out.jsonl", "--force")
    strict = rewrite(url, "-o", "out.jsonl", "--force", "--strict")
    wrong = rewrite(url.replace("reader", "nobody"), "-o", "out.jsonl", "--force")
    assert (strict.status, wrong.status) == (1, 78)
    everything = [*said[1:], *human[1:], *strict[1:], *wrong[1:], report_file.read_text(),
                  (work / "out.rejected.jsonl").read_text()]  # fmt: skip
    for text in everything:
        assert quote(MONGO_READER.password, safe="") not in text
        assert MONGO_READER.password not in text
        assert MONGO_READER.name not in text
