"""`Mirror`: the verbs of the command line as methods of one object.

    from mirror import Mirror

    m = Mirror.open("mirror.toml")
    m.sync(progress=True)
    m.rewrite("raw.jsonl", "plants.jsonl", split={"train": 0.8, "val": 0.2})

A method has the name of its command and takes its options as keyword arguments, with underscores in
place of hyphens. Where the option's name is a Python keyword, an underscore follows: `for_`, `from_`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, TypeVar, Unpack

from mirror.config.loading import Layer, merge, path_of, read_layers
from mirror.config.option_values import (
    parse_delimiter,
    parse_duration,
    parse_hex_prefix,
    parse_share,
    seconds_until,
)
from mirror.config.settings import EngineName, InspectLevel, Settings
from mirror.errors import UsageError
from mirror.run.progress import Progress
from mirror.run.report import Report
from mirror.run.run_verb import run_and_report, run_apart

if TYPE_CHECKING:
    from mirror.duplicates.find_duplicates import DuplicatesReport
    from mirror.fetch.client import Fetcher
    from mirror.upkeep.verify import VerifyOptions

_Path = str | os.PathLike[str]
_Paths = _Path | Iterable[_Path]
_T = TypeVar("_T")
Match = Literal["url", "photo"]
Level = Literal["decode", "header"]


class FetchOptions(TypedDict, total=False):
    """How to read images: what `fetcher`, `fetch` and `prefetch` take.

    Attributes:
        fetch_cache: a folder of this machine that keeps what is read.
        cache_bytes: what that folder may hold, such as `"200G"`.
        match: `photo` also finds an iNaturalist photo under another spelling of its URL.
        offline: ask only caches of this machine.
    """

    fetch_cache: _Path | None
    cache_bytes: int | str | None
    match: Match | None
    offline: bool | None


class DepthOptions(TypedDict, total=False):
    """How far to look for damage: what `verify` and `repair` take.

    Attributes:
        exists: compare one listing with the catalog; this is the default.
        sample: read back this share of the objects as well, `0.01` or `"1%"`.
        full: read back and hash every object.
        seed: chooses the sample; without it, each run draws another.
        restart: do not continue an interrupted reading.
        report: a file for everything that is wrong, a JSON object a line.
    """

    exists: bool
    sample: float | str | None
    full: bool
    seed: int | None
    restart: bool
    report: _Path | None


class Mirror:
    """A mirror, and the cache that it is made from.

    Each verb returns a `Report`: a frozen copy of what its command prints with `--json`. Items that
    failed are listed in it, and `report.succeeded` is then False. A run that cannot begin raises a
    `MirrorError`. So does one that ends early: the error's `report` says what was done before.

    Every verb that takes time has the argument `progress`: True draws bars, by tqdm; an object of a
    class derived from `Progress` receives the progress itself.

    Args:
        layers: sources of settings, the strongest first. Use `Mirror.open`.

    Raises:
        ConfigError: the settings are wrong.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._layers = list(layers)
        self._config = merge(self._layers)

    @classmethod
    def open(
        cls,
        config: _Path | None = None,
        *,
        cache: _Path | None = None,
        bucket: _Path | None = None,
        endpoint: str | None = None,
        region: str | None = None,
        public_url: str | None = None,
        engine: EngineName | None = None,
        state: _Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Self:
        """Read the configuration, as the command line does. Nothing is asked of the network.

        Args:
            config: a configuration file. Without it `./mirror.toml`, the user's configuration and
                the system's are read, where they exist.
            cache: the cache's folder, `cache.dir`.
            bucket: `s3://BUCKET[/PREFIX]`, `file:///FOLDER` or the path of a folder, `bucket.url`.
            endpoint: the S3 endpoint, `bucket.endpoint`; none on AWS.
            region: of the bucket, `bucket.region`.
            public_url: the beginning of public URLs, `bucket.public_url`.
            engine: what moves the bytes, `bucket.engine`.
            state: the folder for the local state, `state.dir`.
            settings: further keys of the configuration, such as `{"sync.concurrency": 8}`.

        Raises:
            ConfigError: a file cannot be read, or a key or a value is wrong.
        """
        if isinstance(bucket, os.PathLike):
            bucket = Path(bucket).absolute().as_uri()
        flags: dict[str, Any] = {
            **(settings or {}),
            **_given(
                {
                    "cache.dir": _folder(cache, "cache.dir"),
                    "bucket.url": bucket,
                    "bucket.endpoint": endpoint,
                    "bucket.region": region,
                    "bucket.public_url": public_url,
                    "bucket.engine": engine,
                    "state.dir": _folder(state, "state.dir"),
                }
            ),
        }
        return cls(read_layers(config=_optional_path(config), flags=flags))

    @property
    def config(self) -> Settings:
        """The settings in use: what `mirror config show` prints."""
        return self._config

    def __repr__(self) -> str:
        return f"Mirror(bucket={self._config.bucket.url!r}, cache={self._config.cache.dir!r})"

    # --- the cache and the mirror ---

    def sync(
        self,
        *,
        dry_run: bool = False,
        inspect: InspectLevel | None = None,
        include_flagged: bool = False,
        limit_rate: str | None = None,
        concurrency: int | None = None,
        max_files: int | None = None,
        prefix: str = "",
        dataset: _Path | None = None,
        url_field: str = "image_url",
        delimiter: str | None = None,
        license_field: str = "license",
        attribution_field: str = "attribution",
        fail_fast: bool = False,
        progress: bool | Progress = False,
    ) -> Report:
        """Bring the mirror up to date with the cache: in bulk the first time, then incrementally.

        Args:
            dry_run: return the plan and its cost; upload and write nothing.
            inspect: how far to look at each image.
            include_flagged: upload blank, broken and placeholder files too.
            limit_rate: bytes a second at most, such as `"20M"`.
            concurrency: requests in flight.
            max_files: at most so many new or changed files.
            prefix: only URLs whose MD5 begins with these hex digits.
            dataset: only files that this dataset refers to; its URLs and licences go into the
                catalog.
            url_field: the dataset's field of URLs; dotted for nested ones.
            delimiter: the character between the cells of CSV; None finds it in the header.
            license_field: its field of licences.
            attribution_field: its field of attributions.
            fail_fast: stop at the first file that fails.
            progress: as the class says.
        """
        from mirror.dataset.dataset_urls import DatasetUrls, FieldNames
        from mirror.dataset.inputs import inputs_of
        from mirror.sync.run_sync import SyncOptions, sync

        settings = self._with(
            {
                "sync.inspect": inspect,
                "sync.limit_rate": limit_rate,
                "sync.concurrency": concurrency,
            }
        )
        options = SyncOptions(
            dry_run=dry_run,
            prefix=_read("prefix", parse_hex_prefix, prefix),
            max_files=max_files,
            include_flagged=include_flagged,
            fail_fast=fail_fast,
        )
        with ExitStack() as stack:
            sources = None
            if dataset is not None:
                fields = FieldNames(url_field, license_field, attribution_field)
                datasets = inputs_of(_names(dataset), _delimiter(delimiter))
                sources = stack.enter_context(DatasetUrls.read(datasets, fields))
            return run_and_report(
                "sync", lambda p: sync(settings, options, sources=sources, progress=p), progress
            )

    def backfill(
        self,
        datasets: _Paths,
        *,
        no_bucket: bool = False,
        url_field: str = "image_url",
        delimiter: str | None = None,
        match: Match = "url",
        license_field: str = "license",
        allow_license: str | Iterable[str] = (),
        balance_by: str | None = None,
        contact: str | None = None,
        per_hour: int | None = None,
        until: str | datetime | None = None,
        for_: str | timedelta | None = None,
        max_bytes: int | str | None = None,
        max_images: int | None = None,
        retry_failed: bool = False,
        from_empty: bool = False,
        known_bad: _Path | None = None,
        dry_run: bool = False,
        progress: bool | Progress = False,
    ) -> Report:
        """Download politely, from the original servers, what the mirror and the cache lack.

        Args:
            datasets: one dataset or several.
            no_bucket: do not ask the mirror; only the cache counts.
            url_field: the field of URLs; dotted for nested ones.
            delimiter: the character between the cells of CSV; None finds it in the header.
            match: `photo` also counts a photo that is mirrored under another spelling of its URL.
            license_field: the field of licences.
            allow_license: licences that may be fetched, such as `"cc-by"`.
            balance_by: a field of classes; the classes with the fewest records come first.
            contact: your e-mail address or web page, for the people who run those servers.
            per_hour: requests an hour at most.
            until: begin no request after this time, `"06:00"`.
            for_: begin no request after so long, `"2h"`.
            max_bytes: begin no request when so much has come, `"2G"`.
            max_images: stop when so many images were downloaded.
            retry_failed: ask again for what was given up.
            from_empty: the cache was emptied on purpose; fetch all of it again.
            known_bad: a file of hashes of contents that are always bad.
            dry_run: return what is wanted and how long that takes; ask for nothing.
            progress: as the class says.
        """
        from mirror.backfill.run_backfill import BackfillOptions, backfill
        from mirror.dataset.inputs import inputs_of

        settings = self._with(
            {
                "backfill.contact": contact,
                "backfill.per_hour": per_hour,
                "inspect.known_bad": _folder(known_bad, "inspect.known_bad"),
            }
        )
        inputs = inputs_of(_names(datasets), _delimiter(delimiter))
        options = BackfillOptions.of(
            settings.backfill,
            url_field=url_field,
            match=match,
            license_field=license_field,
            licenses=_names(allow_license),
            balance_by=balance_by,
            seconds=_shortest(until, for_),
            max_bytes=None if max_bytes is None else str(max_bytes),
            max_images=max_images,
            use_bucket=not no_bucket,
            retry_failed=retry_failed,
            from_empty=from_empty,
            dry_run=dry_run,
        )
        return run_and_report(
            "backfill", lambda p: backfill(settings, inputs, options, progress=p), progress
        )

    def inspect(
        self,
        *,
        level: Level = "decode",
        csv: _Path | None = None,
        sheet: _Path | None = None,
        known_bad: _Path | None = None,
        progress: bool | Progress = False,
    ) -> Report:
        """Judge every file of the cache. Reads the cache only; no bucket is needed.

        Args:
            level: decode every image to its end, or read its header only.
            csv: a file to list all files and their verdicts in.
            sheet: an HTML file to show thumbnails of everything flagged in.
            known_bad: a file of hashes of contents that are always bad.
            progress: as the class says.
        """
        from mirror.inspection.inspect_cache import inspect_cache, inspection_arguments
        from mirror.inspection.inspection_report import (
            InspectionReport,
            opened_page,
            write_findings,
        )

        settings = self._with({"inspect.known_bad": _folder(known_bad, "inspect.known_bad")})
        began_at = time.monotonic()

        def run(view: Progress) -> InspectionReport:
            with ExitStack() as stack:
                csv_out = stack.enter_context(opened_page(_optional_path(csv), ".csv"))
                sheet_page = opened_page(_optional_path(sheet), ".html", ".htm")
                sheet_out = stack.enter_context(sheet_page)
                inspection = inspect_cache(**inspection_arguments(settings, level), progress=view)
                findings = stack.enter_context(inspection)
                write_findings(findings, settings.cache_dir, level, csv_out, sheet_out)
                return InspectionReport.of(findings, time.monotonic() - began_at)

        return run_and_report("inspect", run, progress)

    def duplicates(
        self,
        *,
        mirror: bool = False,
        csv: _Path | None = None,
        sheet: _Path | None = None,
        progress: bool | Progress = False,
    ) -> Report:
        """Find copies of one photograph: equal files, other sizes, other formats. Changes nothing.

        Args:
            mirror: look in the mirror instead of the cache.
            csv: a file to list all images of all groups in.
            sheet: an HTML file to show the copies side by side in.
            progress: as the class says.
        """
        from mirror.duplicates.find_duplicates import find_duplicates

        settings = self._with({})

        def run(view: Progress) -> DuplicatesReport:
            return find_duplicates(
                settings,
                mirror=mirror,
                csv_path=_optional_path(csv),
                page_path=_optional_path(sheet),
                progress=view,
            )

        return run_and_report("duplicates", run, progress)

    def quarantine(
        self,
        to: _Path,
        *,
        restore: bool = False,
        yes: bool = False,
        level: Level = "decode",
        known_bad: _Path | None = None,
        progress: bool | Progress = False,
    ) -> Report:
        """Move flagged files out of the cache into a folder, or back. Nothing is deleted.

        Args:
            to: the folder.
            restore: move the files back into the cache.
            yes: do it; without this, return what would be done.
            level: decode every image to its end, or read its header only.
            known_bad: a file of hashes of contents that are always bad.
            progress: as the class says.
        """
        from mirror.inspection import quarantine as inspection
        from mirror.inspection.inspect_cache import inspection_arguments

        settings = self._with({"inspect.known_bad": _folder(known_bad, "inspect.known_bad")})
        folder = Path(to).absolute()

        def run(view: Progress) -> Any:
            if restore:
                root = os.fsencode(settings.cache_dir)
                return inspection.restore(root, folder, dry_run=not yes)
            arguments = inspection_arguments(settings, level)
            return inspection.quarantine(**arguments, folder=folder, dry_run=not yes, progress=view)

        return run_and_report("quarantine", run, progress)

    def pull(
        self,
        *,
        dry_run: bool = False,
        prefix: str = "",
        dataset: _Paths = (),
        url_field: str = "image_url",
        delimiter: str | None = None,
        verify: bool = False,
        force: bool = False,
        hardlink: bool = False,
        concurrency: int | None = None,
        progress: bool | Progress = False,
    ) -> Report:
        """Restore the cache, or a part of it, from the mirror.

        Args:
            dry_run: return what would be written; write nothing.
            prefix: only URLs whose MD5 begins with these hex digits.
            dataset: only URLs of this dataset, or of these.
            url_field: the field of URLs; dotted for nested ones.
            delimiter: the character between the cells of CSV; None finds it in the header.
            verify: read and compare files that exist already.
            force: replace other files that have an image's name.
            hardlink: store a content that has several URLs once, by hard links.
            concurrency: requests in flight.
            progress: as the class says.
        """
        from mirror.dataset.inputs import inputs_of
        from mirror.upkeep.pull import PullOptions, pull

        settings = self._with({"sync.concurrency": concurrency})
        options = PullOptions(
            prefix=_read("prefix", parse_hex_prefix, prefix),
            datasets=tuple(inputs_of(_names(dataset), _delimiter(delimiter))),
            url_field=url_field,
            verify=verify,
            force=force,
            hardlink=hardlink,
            dry_run=dry_run,
        )
        return run_and_report("pull", lambda p: pull(settings, options, progress=p), progress)

    # --- datasets ---

    def export(
        self,
        url: str,
        output: _Path,
        *,
        filter: Mapping[str, Any] | str = "",  # noqa: A002 - the option's name
        projection: Mapping[str, Any] | Iterable[str] | str = "",
        json_style: Literal["plain", "relaxed", "canonical"] = "plain",
        batch_size: int = 1000,
        force: bool = False,
        allow_empty: bool = False,
        progress: bool | Progress = False,
    ) -> Report:
        """Write a MongoDB collection to a file, sorted by `_id`.

        Args:
            url: `mongodb://HOST/DATABASE/COLLECTION`.
            output: a .jsonl, .csv or .parquet file, compressed if .gz or .zst follows.
            filter: only documents that match, in MongoDB's query language.
            projection: only these fields: names, or MongoDB's own form.
            json_style: plain JSON, or one of MongoDB's Extended JSON.
            batch_size: documents asked for at a time.
            force: replace an output that exists.
            allow_empty: write an output without records.
            progress: as the class says.
        """
        from mirror.dataset.export import ExportOptions, export
        from mirror.dataset.formats.mongo_query import Query
        from mirror.dataset.formats.mongo_url import MongoUrl

        names = projection if isinstance(projection, str | Mapping) else ",".join(projection)
        options = ExportOptions(
            query=Query.parse(_json_text(filter), _json_text(names)),
            style=json_style,
            batch_size=batch_size,
            force=force,
            allow_empty=allow_empty,
        )
        source = MongoUrl.parse(url)
        return run_and_report(
            "export", lambda p: export(source, Path(output), options, progress=p), progress
        )

    def rewrite(
        self,
        inputs: _Paths,
        output: _Path,
        *,
        url_field: str = "image_url",
        delimiter: str | None = None,
        source_field: str = "source_url",
        nan: Literal["keep", "null", "reject"] = "reject",
        scheme: Literal["public", "s3", "presigned", "file"] | None = None,
        expires: float = 7.0,
        match: Match = "url",
        missing: Literal["drop", "keep", "fail"] = "drop",
        min_size: int = 0,
        license_field: str | None = None,
        allow_license: str | Iterable[str] = (),
        sample: float | str | None = None,
        split: Mapping[str, float] | str | None = None,
        seed: int = 0,
        group_by: str | None = None,
        stratify_by: str | None = None,
        tolerance: float = 0.01,
        allow_leaks: bool = False,
        pin: Mapping[str, _Paths] | str | Iterable[str] = (),
        near_duplicates: Literal["group", "drop", "keep"] = "group",
        label_field: str | None = None,
        label_conflicts: Literal["keep", "drop"] = "keep",
        cached_only: _Path | None = None,
        level: Level = "decode",
        known_bad: _Path | None = None,
        strict: bool = False,
        force: bool = False,
        allow_empty: bool = False,
        dry_run: bool = False,
        report: _Path | None = None,
        update_config: _Path | None = None,
        set: Mapping[str, Any] | Iterable[str] = (),  # noqa: A002 - the option's name
        progress: bool | Progress = False,
    ) -> Report:
        """Rewrite datasets to the mirror's URLs; filter them and split them.

        Args:
            inputs: one dataset or several: files, folders, patterns such as `raw/*.jsonl`, or
                `mongodb://HOST/DATABASE/COLLECTION`.
            output: the file to write; its name says the format. `{split}` stands for a split's name.
            url_field: the field of URLs; dotted for nested ones.
            delimiter: the character between the cells of CSV; None finds it in the header.
            source_field: the field that takes the original URL.
            nan: keep NaN and infinities of JSON lines, make them null, or reject the record.
            scheme: of the new URLs. None chooses `public` if `bucket.public_url` is set.
            expires: days that presigned URLs are valid, at most 7.
            match: `photo` also finds an iNaturalist photo under another spelling of its URL.
            missing: what becomes of records whose image is not mirrored.
            min_size: drop images whose shorter side has fewer pixels.
            license_field: the field of licences.
            allow_license: licences that may be written, such as `"cc-by"`.
            sample: only so many records, an int, or this share of them, a float.
            split: names and shares, `{"train": 0.8, "val": 0.2}` or `"train=0.8,val=0.2"`.
            seed: of splits and sample.
            group_by: a field; records that are equal there stay in one split.
            stratify_by: a field of classes; each split gets its share of every class.
            tolerance: how far a class's share may be off, as a fraction of the class.
            allow_leaks: let records with the same image be in different splits.
            pin: earlier outputs, whose records keep their splits: `{"train": "plants_train.jsonl"}`
                or `["train=plants_train.jsonl"]`.
            near_duplicates: keep copies of one photograph in one split, drop all but the largest of
                them, or keep them wherever they fall.
            label_field: the field of the class that copies must agree in; None takes `stratify_by`.
            label_conflicts: what becomes of records whose photograph has several classes.
            cached_only: a cache folder to look images up in, instead of the mirror.
            level: how far to look at each image of that folder.
            known_bad: a file of hashes of contents that are always bad, for that folder.
            strict: stop at the first invalid record.
            force: replace existing files.
            allow_empty: write outputs without records, with `force` also over files that have some.
            dry_run: count; write nothing but the report.
            report: a file for what was dropped and why, as JSON.
            update_config: a YAML file of a training to point at the new files.
            set: its keys and their values, `{"data.train": "{train}"}` or `["data.train={train}"]`.
            progress: as the class says.
        """
        from mirror.dataset.rewrite.rewrite_options import parse_options
        from mirror.dataset.rewrite.run_rewrite import rewrite

        bad = _folder(known_bad, "inspect.known_bad")
        settings = self._with(
            {"cache.dir": _folder(cached_only, "cache.dir"), "inspect.known_bad": bad}
        )
        pairs = [f"{k}={v}" for k, v in set.items()] if isinstance(set, Mapping) else _names(set)
        options = parse_options(
            url_field=url_field,
            delimiter=_delimiter(delimiter),
            source_field=source_field,
            nan=nan,
            scheme=scheme,
            expires=expires,
            match=match,
            missing=missing,
            min_size=min_size,
            license_field=license_field,
            allow_license=_names(allow_license),
            sample=f"{sample:f}" if isinstance(sample, float) else sample,
            split=split,
            seed=seed,
            group_by=group_by,
            stratify_by=stratify_by,
            tolerance=tolerance,
            allow_leaks=allow_leaks,
            pin=_pins(pin),
            near_duplicates=near_duplicates,
            label_field=label_field,
            label_conflicts=label_conflicts,
            cached_only=cached_only is not None,
            level=level,
            known_bad=bad,
            strict=strict,
            force=force,
            allow_empty=allow_empty,
            dry_run=dry_run,
            report=_optional_path(report),
            update_config=_optional_path(update_config),
            assignments=pairs,
        )
        return run_and_report(
            "rewrite",
            lambda p: rewrite(settings, _names(inputs), Path(output), options, progress=p),
            progress,
        )

    # --- reading, as training does ---

    def fetcher(self, **options: Unpack[FetchOptions]) -> Fetcher:
        """Return a `Fetcher` that reads this mirror. Its index is read now.

        Args:
            options: the names of `FetchOptions`.
        """
        from mirror.fetch.client import Fetcher

        return Fetcher(self._fetching(options))

    def fetch(
        self,
        urls: str | Iterable[str],
        *,
        output: _Path | None = None,
        **options: Unpack[FetchOptions],
    ) -> Report:
        """Read images from the mirror and check them. `fetcher()` is for their bytes.

        Args:
            urls: original URLs, URLs of the mirror, or content hashes.
            output: a folder to write the images to, named by the MD5 of their URL.
            options: the names of `FetchOptions`.
        """
        from mirror.fetch.client import Fetcher
        from mirror.fetch.download_files import save

        folder = _optional_path(output)
        with Fetcher(self._fetching(options)) as fetch:
            return run_and_report("fetch", lambda _: save(fetch, _names(urls), folder))

    def prefetch(
        self,
        datasets: _Paths,
        *,
        url_field: str = "image_url",
        delimiter: str | None = None,
        check: bool = False,
        lacking: _Path | None = None,
        progress: bool | Progress = False,
        **options: Unpack[FetchOptions],
    ) -> Report:
        """Read a dataset's images into the fetch cache of this machine.

        Args:
            datasets: one dataset or several.
            url_field: the field of URLs; dotted for nested ones.
            delimiter: the character between the cells of CSV; None finds it in the header.
            check: return what is not on this machine; fetch nothing.
            lacking: a file for the URLs that are not on this machine at the end, one a line.
            progress: as the class says.
            options: the names of `FetchOptions`.
        """
        from mirror.dataset.inputs import inputs_of
        from mirror.dataset.records import ReadOptions
        from mirror.fetch.prefetch import prefetch

        settings = self._fetching(options)
        inputs = inputs_of(_names(datasets), _delimiter(delimiter))
        return run_and_report(
            "prefetch",
            lambda p: prefetch(
                settings,
                inputs,
                ReadOptions.of(url_field),
                check=check,
                lacking=_optional_path(lacking),
                progress=p,
            ),
            progress,
        )

    # --- upkeep ---

    def verify(
        self,
        *,
        concurrency: int | None = None,
        progress: bool | Progress = False,
        **depth: Unpack[DepthOptions],
    ) -> Report:
        """Check that the mirror holds what its catalog says. Writes nothing to the bucket.

        Args:
            concurrency: requests in flight.
            progress: as the class says.
            depth: the names of `DepthOptions`.
        """
        from mirror.upkeep.verify import verify

        settings = self._with({"sync.concurrency": concurrency})
        options = _verify_options(depth)
        return run_and_report("verify", lambda p: verify(settings, options, progress=p), progress)

    def repair(
        self,
        *,
        from_: _Paths = (),
        dry_run: bool = False,
        max_lost: int | str = "50%",
        concurrency: int | None = None,
        progress: bool | Progress = False,
        **depth: Unpack[DepthOptions],
    ) -> Report:
        """Write missing or damaged objects again, from any folder that has their content.

        Args:
            from_: further folders that may have the contents, under any names.
            dry_run: return what could be repaired; write nothing.
            max_lost: refuse to give up more objects than this number or share, `"10%"` or `"all"`.
            concurrency: requests in flight.
            progress: as the class says.
            depth: the names of `DepthOptions`.
        """
        from mirror.upkeep.change_limit import ChangeLimit
        from mirror.upkeep.repair import RepairOptions, repair

        settings = self._with({"sync.concurrency": concurrency})
        options = RepairOptions(
            verify=_verify_options(depth),
            folders=[Path(folder) for folder in _names(from_)],
            limit=ChangeLimit.parse(str(max_lost), "--max-lost"),
            dry_run=dry_run,
        )
        return run_and_report("repair", lambda p: repair(settings, options, progress=p), progress)

    def rebuild_state(
        self,
        *,
        inspect: InspectLevel | None = None,
        restart: bool = False,
        concurrency: int | None = None,
        progress: bool | Progress = False,
    ) -> Report:
        """Rebuild the local state from the bucket and the cache. Uploads nothing.

        Args:
            inspect: how far to look at each image.
            restart: do not continue an interrupted run.
            concurrency: requests in flight.
            progress: as the class says.
        """
        from mirror.sync.rebuild import rebuild_state

        settings = self._with({"sync.inspect": inspect, "sync.concurrency": concurrency})
        return run_and_report(
            "rebuild-state",
            lambda p: rebuild_state(settings, restart=restart, progress=p),
            progress,
        )

    def gc(
        self,
        *,
        dry_run: bool = False,
        max_delete: int | str = "50%",
        grace_days: float | None = None,
        flagged: bool = False,
        concurrency: int | None = None,
        progress: bool | Progress = False,
    ) -> Report:
        """Delete objects that no catalog row has named for the grace period.

        Args:
            dry_run: return the plan; delete nothing.
            max_delete: refuse to delete more objects than this number or share, `"10%"` or `"all"`.
            grace_days: keep what was written or named within so many days.
            flagged: delete objects of flagged rows too.
            concurrency: requests in flight.
            progress: as the class says.
        """
        from mirror.upkeep.change_limit import ChangeLimit
        from mirror.upkeep.gc import GcOptions, gc

        settings = self._with({"sync.concurrency": concurrency, "gc.grace_days": grace_days})
        options = GcOptions(
            dry_run=dry_run,
            limit=ChangeLimit.parse(str(max_delete), "--max-delete"),
            flagged=flagged,
        )
        return run_and_report("gc", lambda p: gc(settings, options, progress=p), progress)

    # --- diagnosis ---

    def status(self, *, no_scan: bool = False) -> Report:
        """Return what is in the mirror, what is not synced yet, the last runs, and the cost.

        Args:
            no_scan: do not walk the cache; leave out what is not synced yet.
        """
        from mirror.diagnosis.status import status

        found = run_apart(lambda: status(self._config, scan=not no_scan))
        return Report("status", found.as_json())

    def doctor(self, *, read_only: bool = False) -> Report:
        """Check your setup: credentials, bucket, cache, network, clock.

        Args:
            read_only: write no probes, for a key that may only read.
        """
        from mirror.diagnosis.doctor import DoctorOptions, examine
        from mirror.diagnosis.finding import DoctorReport

        options = DoctorOptions(read_only=read_only)
        return run_and_report(
            "doctor", lambda _: DoctorReport(list(examine(self._config, options)))
        )

    def _fetching(self, options: FetchOptions) -> Settings:
        size = options.get("cache_bytes")
        return self._with(
            {
                "fetch.cache_dir": _folder(options.get("fetch_cache"), "fetch.cache_dir"),
                "fetch.cache_bytes": None if size is None else str(size),
                "fetch.match": options.get("match"),
                "fetch.offline": options.get("offline"),
            }
        )

    def _with(self, arguments: Mapping[str, Any]) -> Settings:
        """The settings, with a call's own arguments the strongest."""
        given = _given(arguments)
        return merge([Layer("argument", given), *self._layers]) if given else self._config


# --- arguments as Python values → as the packages below take them ---


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _folder(path: _Path | None, key: str) -> str | None:
    return None if path is None else str(path_of(os.fspath(path), key))


def _names(several: _Paths) -> list[str]:
    """Paths or URLs as text; one is as good as a list of one."""
    if isinstance(several, str | os.PathLike):
        return [os.fspath(several)]
    return [os.fspath(one) for one in several]


def _pins(pin: Mapping[str, _Paths] | str | Iterable[str]) -> list[str]:
    """Earlier outputs as `SPLIT=FILE`."""
    if isinstance(pin, Mapping):
        return [f"{split}={file}" for split, files in pin.items() for file in _names(files)]
    return _names(pin)


def _read(name: str, parse: Callable[[str], _T], text: str) -> _T:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{name}={text!r} is not understood; {error}") from None


def _delimiter(text: str | None) -> str | None:
    return None if text is None else _read("delimiter", parse_delimiter, text)


def _shortest(until: str | datetime | None, for_: str | timedelta | None) -> float | None:
    """Seconds until the first of both; None where neither is given."""
    limits = []
    now = datetime.now().astimezone()
    if isinstance(until, datetime):
        limits.append(max((until.astimezone() - now).total_seconds(), 1.0))
    elif until is not None:
        limits.append(_read("until", lambda text: seconds_until(text, now), until))
    if isinstance(for_, timedelta):
        limits.append(for_.total_seconds())
    elif for_ is not None:
        limits.append(_read("for_", parse_duration, for_))
    return min(limits, default=None)


def _verify_options(depth: DepthOptions) -> VerifyOptions:
    from mirror.upkeep.verify import VerifyOptions

    sample = depth.get("sample")
    text = f"{sample:f}" if isinstance(sample, float | int) else sample
    return VerifyOptions.of(
        exists=depth.get("exists", False),
        sample=None if text is None else _read("sample", parse_share, text),
        full=depth.get("full", False),
        seed=depth.get("seed"),
        restart=depth.get("restart", False),
        report=_optional_path(depth.get("report")),
    )


def _optional_path(path: _Path | None) -> Path | None:
    return None if path is None else Path(path)


def _json_text(value: Mapping[str, Any] | str) -> str:
    if isinstance(value, str):
        return value
    import json

    return json.dumps(value)
