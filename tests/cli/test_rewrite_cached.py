"""`mirror rewrite --cached-only`: a cache in place of a mirror."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mirror.content.digest import digest_of
from tests.cli.rewrite_command import THREE, Rewrite, call, ids, read, rewrite, work
from tests.cli.test_bad_input import OBEYING, Run, mirror
from tests.support import damaged_caches
from tests.support.mirrored_dataset import (
    ABSENT,
    GOOD,
    MANY,
    got,
    plants,
)
from tests.support.photos import fill, name_of, photo, url_of

__all__ = ["call", "mirror", "plants", "rewrite", "work"]


# --- a cache in place of a mirror ---


@pytest.fixture
def cache(work: Path) -> Path:
    folder = work.parent / "image_cache"
    damaged_caches.make(folder)
    fill(folder, {url_of(n): photo(n) for n in MANY})
    damaged_caches.put(folder, ABSENT[0], photo(7), "sub folder/é")
    return folder


def test_the_old_scripts_job_is_one_command(call: Rewrite, work: Path, cache: Path) -> None:
    """Keep cached records and split 80/10/10, but without bad images and leaks."""
    import polars

    lines = (work / "raw.jsonl").read_bytes().splitlines()
    said = call("raw.jsonl", "-o", "data.jsonl", f"--cached-only={cache}", THREE, "--json")
    assert (said.status, said.err) == (3, "")
    outputs = [work / f"data_{name}.jsonl" for name in ("train", "val", "test")]
    written = [line for output in outputs for line in output.read_bytes().splitlines()]
    kept = [
        line
        for line in lines
        if line != b"?" and json.loads(line)["id"] in (*GOOD, *MANY, ABSENT[0])
    ]
    assert sorted(written) == sorted(kept), "byte for byte"
    assert said.json["splits"] == {
        output.stem.removeprefix("data_"): len(got(output)) for output in outputs
    }
    assert said.json["splits"]["train"] > 50
    assert polars.read_ndjson(outputs[0])["image_url"].str.starts_with("https://").all()
    assert not (work.parent / "state-home").exists(), "no state, no bucket"


def test_a_caches_files_can_be_read_by_their_urls(call: Rewrite, work: Path, cache: Path) -> None:
    said = call("raw.jsonl", "-o", "out.jsonl", f"--cached-only={cache}", "--scheme=file")
    assert said.status == 3
    records = {record["id"]: record for record in got(work / "out.jsonl")}
    assert read(records[5]["image_url"]) == photo(5)
    assert read(records[ABSENT[0]]["image_url"]) == photo(7)
    assert "sub%20folder/%C3%A9/" in records[ABSENT[0]]["image_url"]
    assert "not in the cache" in said.out


@pytest.mark.parametrize("scheme", ["public", "s3", "presigned"])
def test_a_cache_has_no_other_urls(call: Rewrite, cache: Path, scheme: str) -> None:
    said = call("raw.jsonl", "-o", "out.jsonl", f"--cached-only={cache}", f"--scheme={scheme}")
    assert said.status == 2
    assert f"A cache has no {scheme} URLs" in said.err


def test_a_cache_is_judged_as_asked(call: Rewrite, work: Path, cache: Path) -> None:
    known = work / "known.txt"
    known.write_text(f"{digest_of(photo(3)).sha256.hex()}\n")
    said = call("good.jsonl", "-o", "out.jsonl", "--json", f"--cached-only={cache}",
                f"--known-bad={known}")  # fmt: skip
    assert said.json["dropped"]["placeholder"] == 1
    assert 3 not in ids(work / "out.jsonl")
    said = call("raw.jsonl", "-o", "o.jsonl", "--json", f"--cached-only={cache}", "--level=header")
    assert (said.json["dropped"]["blank"], said.json["dropped"]["not_image"]) == (0, 4)


def test_a_configured_bucket_is_not_asked(
    call: Rewrite, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIRROR_BUCKET__URL", "s3://nobody/nowhere")
    assert call("good.jsonl", "-o", "out.jsonl", f"--cached-only={cache}").status == 0


def test_a_cache_that_is_not_there(call: Rewrite, work: Path) -> None:
    said = call("good.jsonl", "-o", "out.jsonl", f"--cached-only={work}/nowhere")
    assert said.status == 1
    assert "does not exist" in said.err
    assert not (work / "out.jsonl").exists()


def test_an_empty_cache_is_called_so(call: Rewrite, work: Path) -> None:
    (work / "empty").mkdir()
    said = call("good.jsonl", "-o", "out.jsonl", "--cached-only=empty")
    assert said.status == 1
    assert said.err == (
        "mirror: The cache has no images, so it has none of the 10 records. Nothing was written; "
        "--allow-empty writes empty outputs.\n"
    )


def test_what_cannot_be_read_in_a_cache_is_listed(mirror: Run, work: Path, cache: Path) -> None:
    bad = cache / name_of(url_of(2))
    bad.chmod(0)
    done = mirror("--json", "rewrite", "good.jsonl", "-o", "out.jsonl", f"--cached-only={cache}",
                  within=OBEYING)  # fmt: skip
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert (report["written"], report["dropped"]["not_mirrored"], report["unreadable"]) == (9, 1, 1)
    assert bad.name in done.stderr
    assert "Permission denied" in done.stderr
