# ruff: noqa: INP001 - for the scripts beside it, not a package
"""`mirror rewrite` of a million records, beside a plain Python script and DuckDB.

Each uses one core. All three look up md5(url) among a million images, keep the records with an image,
and write JSON lines. Ours and DuckDB also insert the new URL. The script has the cache as a set of
names, and its listing of the folder does not count. The catalog is that of a mirror in a folder, with
rows and without objects, because a rewrite reads no objects.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from measure import BENCH, ROOT, Contender, Runs, alternately, say
from results import Part

sys.path.insert(0, str(ROOT))

from mirror.catalog.row import Row, RowSource

FOLDER = BENCH / "rewrite"
DATASET = FOLDER / "dataset_raw.jsonl"
NAMES = FOLDER / "names.txt"
MIRROR = FOLDER / "mirror"
RECORDS = 1_000_000
# Nine of ten records are mirrored, as in a typical cache of a training.
MIRRORED = 9

OLD_SCRIPT = """
import hashlib, json, sys
dataset, names, output = sys.argv[1:]
cached = set(open(names).read().split())
with open(dataset) as records, open(output, "w") as kept:
    for line in records:
        record = json.loads(line)
        if hashlib.md5(record["image_url"].encode()).hexdigest() + ".jpg" in cached:
            kept.write(json.dumps(record, ensure_ascii=False) + "\\n")
"""

DUCKDB = """
import duckdb, sys
dataset, catalog, output = sys.argv[1:]
duckdb.sql("SET threads = 1; SET preserve_insertion_order = true")
duckdb.sql(f'''
    COPY (
        SELECT r.* REPLACE ('file:///m/objects/' || left(h, 2) || '/' || h || '.jpg' AS image_url),
               r.image_url AS source_url
        FROM read_json('{dataset}', format = 'newline_delimited') r
        JOIN (SELECT lower(hex(url_md5)) AS u, lower(hex(content_hash)) AS h
              FROM '{catalog}/*.parquet' WHERE verdict = 'ok') c ON md5(r.image_url) = c.u
    ) TO '{output}' (FORMAT json)
''')
"""


def url_of(number: int) -> str:
    return f"https://inaturalist-open-data.s3.amazonaws.com/photos/{number:09}/medium.jpg"


def make(records: int) -> None:
    """Make a dataset of 300-byte records with 20 fields, and a catalog with as many rows."""
    from mirror.catalog.delta_table import Catalog
    from mirror.config.loading import Layer, merge
    from mirror.store import open_store
    from mirror.sync.run_sync import SyncOptions, sync

    if (FOLDER / "ready").exists():
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "cache").mkdir(parents=True)
    say(f"making a dataset and a catalog of {records:,} …")
    with DATASET.open("w") as file:
        file.writelines(_lines(records))
    NAMES.write_text(
        "\n".join(hashlib.md5(url_of(n).encode()).hexdigest() + ".jpg" for n in _kept(records))  # noqa: S324
    )
    place = {
        "bucket": {"url": f"file://{MIRROR}"},
        "cache": {"dir": str(FOLDER / "cache")},
        "state": {"dir": str(FOLDER / "state")},
    }
    settings = merge([Layer("bench", place)])
    sync(settings, SyncOptions())  # creates the mirror's root
    store = open_store(settings.bucket_url, None, settings.bucket, 1)
    catalog = Catalog(store, str(MIRROR / "catalog"), dict)
    kept = _kept(records)
    while rows := [_row(number) for number in islice(kept, 100_000)]:
        catalog.append(rows)
    (FOLDER / "ready").touch()


def _kept(records: int) -> Iterator[int]:
    return (n for n in range(records) if n % 10 < MIRRORED)


def _lines(records: int) -> Iterator[str]:
    rest = ", ".join(f'"f{n}": {n}' for n in range(14))
    for n in range(records):
        yield (
            f'{{"id": {n}, "observation_id": {n // 2}, "species": "Species {n % 1000}", '
            f'"image_url": "{url_of(n)}", "license": "CC-BY-NC", "quality": "research", {rest}}}\n'
        )


def _row(number: int) -> Row:
    url = url_of(number)
    content = hashlib.sha256(url.encode()).digest()
    key = hashlib.md5(url.encode()).digest()  # noqa: S324
    return Row(
        key, content[:16], content, 45_000, "jpeg", 500, 375, "ok", "", RowSource(url), number + 1
    )


def same_records(output: Path) -> None:
    """Check the outputs. Raises RuntimeError if one has the wrong number of records."""
    parts = [output] if output.exists() else sorted(output.parent.glob(f"{output.stem}_*.jsonl"))
    found = sum(path.read_bytes().count(b"\n") for path in parts)
    expected = sum(1 for _ in _kept(RECORDS))
    if found != expected:
        raise RuntimeError(f"{output} has {found:,} records, not {expected:,}")


def run(rounds: int) -> Runs:
    make(RECORDS)
    outputs = {name: FOLDER / f"{name}.jsonl" for name in ("mirror", "script", "duckdb", "split")}
    rewrite = [
        sys.executable, "-m", "mirror", "rewrite", str(DATASET), "--force", "-q",
        "--bucket", f"file://{MIRROR}", "--state", str(FOLDER / "state"),
    ]  # fmt: skip
    splits = ["--split", "train=0.8,val=0.1,test=0.1", "--group-by", "observation_id"]
    splits += ["--stratify-by", "species"]
    script = [sys.executable, "-c", OLD_SCRIPT, str(DATASET), str(NAMES), str(outputs["script"])]
    join = [sys.executable, "-c", DUCKDB, str(DATASET), f"{MIRROR}/catalog", str(outputs["duckdb"])]

    def contender(output: str, title: str, command: list[str]) -> Contender:
        return Contender(
            title,
            command,
            check=lambda _: same_records(outputs[output]),
            environment={"PYTHONPATH": str(ROOT)},
            cpus=frozenset({0}),
        )

    return alternately(
        [
            contender("mirror", "mirror rewrite", [*rewrite, "-o", str(outputs["mirror"])]),
            contender("script", "json + md5 + set", script),
            contender("duckdb", "DuckDB, a join", join),
            contender(
                "split",
                "mirror rewrite, splits by group and class",
                [*rewrite, *splits, "-o", str(outputs["split"])],
            ),
        ],
        rounds,
    )


PARTS = [
    Part("rewrite", "1,000,000 JSONL records of 300 bytes, on one core", run, ("msgspec", "duckdb"))
]
