"""`mirror rewrite`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from mirror.cli.options import (
    bucket_flags,
    bucket_options,
    known_bad_option,
    level_option,
    public_url_option,
    url_field_option,
)
from mirror.cli.session import Session, session_options

if TYPE_CHECKING:
    from mirror.catalog.lookup import UrlLookup
    from mirror.config.settings import Settings
    from mirror.dataset.fields import FieldPath
    from mirror.dataset.rewrite.rewrite_dataset import Addresses, RewriteOptions
    from mirror.dataset.yaml_edit.training_config import Assignment
    from mirror.store.signing import Signer
    from mirror.urls import Scheme


@click.command("rewrite")
@click.argument("inputs", metavar="IN...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="The file to write; its name says the format: .jsonl .csv .tsv .parquet, and .gz .zst.",
)
@url_field_option
@click.option(
    "--source-field",
    default="source_url",
    show_default=True,
    metavar="FIELD",
    help="Where the original URL goes, beside the new one.",
)
@bucket_options
@public_url_option
@click.option(
    "--scheme",
    type=click.Choice(["public", "s3", "presigned", "file"]),
    help="What the new URLs are; without it public if bucket.public_url is set, else as bucket.url.",
)
@click.option(
    "--expires",
    type=click.FloatRange(min=0, min_open=True),
    default=7.0,
    show_default=True,
    metavar="DAYS",
    help="How long presigned URLs live, 7 days at most.",
)
@click.option(
    "--match",
    type=click.Choice(["url", "photo"]),
    default="url",
    show_default=True,
    help="photo: also find an iNaturalist photo under another spelling of its URL.",
)
@click.option(
    "--missing",
    type=click.Choice(["drop", "keep", "fail"]),
    default="drop",
    show_default=True,
    help="What becomes of records whose image is not mirrored.",
)
@click.option(
    "--min-size",
    type=click.IntRange(min=0),
    default=0,
    metavar="PX",
    help="Drop images whose shorter side has fewer pixels.",
)
@click.option(
    "--license-field",
    metavar="FIELD",
    help="Where a record holds its licence. With public URLs only records that have one are written. "
    "[license, where --allow-license is given]",
)
@click.option(
    "--allow-license",
    "licenses",
    multiple=True,
    metavar="NAME",
    help="A licence that may be written, such as cc-by; again or with commas for more.",
)
@click.option(
    "--sample", metavar="N|SHARE", help="Only so many records (1000), or such a share (0.1)."
)
@click.option("--split", "splits", metavar="SPLITS", help="Such as train=0.8,val=0.1,test=0.1.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of splits and of the sample.")
@click.option("--group-by", metavar="FIELD", help="Records equal here stay in one split.")
@click.option(
    "--stratify-by", metavar="FIELD", help="Hold the shares of the splits within each class."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="How far a class's share may be off, as a part of the class.",
)
@click.option(
    "--allow-leaks", is_flag=True, help="Let records with the same image be in different splits."
)
@click.option(
    "--cached-only",
    metavar="DIR",
    help="No bucket: keep what this cache holds; URLs stay as they are without --scheme file.",
)
@level_option
@known_bad_option
@click.option("--strict", is_flag=True, help="Stop at the first invalid record.")
@click.option("--force", is_flag=True, help="Replace what is there.")
@click.option("-n", "--dry-run", is_flag=True, help="Count and show; write nothing but --report.")
@click.option(
    "--report",
    "report_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write what was dropped and why, with examples, as JSON.",
)
@click.option(
    "--update-config",
    "config_file",
    metavar="YAML",
    type=click.Path(path_type=Path),
    help="A training's configuration to point at the new files.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of it and its value; {train}, {val} or {out} stand for the files written.",
)
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Rewrite datasets to the mirror's URLs; filter them, split them, point the training at them.

    IN is JSON lines, CSV or Parquet (plain, .gz or .zst), - for standard input, or
    mongodb://HOST/DATABASE/COLLECTION. What is not in the mirror, or blank, broken or a
    placeholder, is dropped and counted; every other field stays as it was. A record keeps its split
    when the dataset is re-ordered or grows, and the same image is never in two splits.

    What is no record, or has no URL, is set aside in OUT.rejected.jsonl, and the exit status is 3.

    \b
    Examples:
      mirror rewrite dataset_raw.jsonl -o dataset.jsonl
      mirror rewrite dataset_raw.jsonl -o dataset.jsonl --split train=0.8,val=0.1,test=0.1 \\
        --group-by observation_id --stratify-by species
      mirror rewrite dataset_raw.jsonl -o today.jsonl --cached-only /data/image_cache \\
        --split train=0.8,val=0.1,test=0.1
      mirror rewrite raw.jsonl -o plants.jsonl --split train=0.9,val=0.1 \\
        --update-config config/teacher_global.yaml \\
        --set data.train_jsonl={train} --set data.val_jsonl={val}
    """
    from mirror.cache.scan import display
    from mirror.cli.views.rewrite_view import show
    from mirror.dataset.inputs import Input
    from mirror.dataset.rewrite.rewrite_dataset import check_files, outputs_of, rewrite
    from mirror.dataset.yaml_edit.training_config import check, update
    from mirror.system.files import replacing

    settings = _settings(session, options)
    scheme = _scheme(settings, options)
    asked = _asked(options, public=scheme == "public")
    inputs = [Input(name) for name in options["inputs"]]
    output: Path = options["output"]
    config_file: Path | None = options["config_file"]
    report_path: Path | None = options["report_file"]
    check_files(inputs, output, asked, [report_path] if report_path is not None else [])
    files = outputs_of(output, asked.splits)
    assignments = _assignments(options, {name: str(path) for name, path in files.items()})
    if config_file is not None:
        check(config_file, assignments)
    with ExitStack() as stack:
        report_file = None if report_path is None else stack.enter_context(replacing(report_path))
        images = _images(session, settings, options, scheme)
        progress = stack.enter_context(session.progress())
        report = rewrite(
            inputs, output, asked, images.resolver, addresses=images.addresses, progress=progress
        )
        report.warnings[:0] = images.warnings
        report.unreadable = images.unreadable
        if config_file is not None and report.written:
            updated = update(config_file, assignments, dry_run=asked.dry_run)
            report.config_diff = display(os.fsencode(updated.diff))
            backup = updated.backup
            report.config_backup = None if backup is None else display(os.fsencode(backup))
        elif config_file is not None:
            report.warnings.append(f"{config_file} stays as it is: no record was written.")
        if report_file is not None:
            import msgspec

            body = msgspec.json.format(msgspec.json.encode(report.as_json()), indent=2)
            report_file.write(body.decode() + "\n")
    show(session, report)
    return report.exit_status


def _settings(session: Session, options: dict[str, Any]) -> Settings:
    from mirror.errors import UsageError

    cached_only = options["cached_only"] is not None
    for name in ("bucket", "endpoint", "region", "public_url", "state"):
        if cached_only and options[name] is not None:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"--cached-only asks no bucket; leave out it or {option}.")
    if options["known_bad"] is not None and not cached_only:
        raise UsageError(
            "--known-bad judges a cache and needs --cached-only; a mirror was judged when it was "
            "synced: set inspect.known_bad, and mirror sync judges by it."
        )
    return session.settings(
        {
            "cache.dir": options["cached_only"],
            **bucket_flags(options),
            "bucket.public_url": options["public_url"],
            "inspect.known_bad": options["known_bad"],
        }
    )


def _scheme(settings: Settings, options: dict[str, Any]) -> Scheme | Literal["presigned"] | None:
    """What the new URLs are; None leaves them as they are."""
    from mirror.errors import UsageError

    asked: Scheme | Literal["presigned"] | None = options["scheme"]
    if options["cached_only"] is None:
        return asked or settings.object_urls.default_scheme
    if asked in (None, "file"):
        return asked
    raise UsageError(f"A cache has no {asked} URLs: leave --scheme out, or choose --scheme file.")


def _asked(options: dict[str, Any], *, public: bool) -> RewriteOptions:
    from mirror.dataset.fields import parse_path
    from mirror.dataset.licenses import license_names
    from mirror.dataset.records import ReadOptions
    from mirror.dataset.rewrite.judge import LicenseRule
    from mirror.dataset.rewrite.rewrite_dataset import RewriteOptions
    from mirror.dataset.splits.split import parse_splits
    from mirror.errors import UsageError

    def path(name: str) -> FieldPath | None:
        return None if options[name] is None else parse_path(options[name])

    names = options["licenses"]
    allowed = license_names(names)
    if names and not allowed:
        raise UsageError("--allow-license names no licence; write such as cc-by or cc0.")
    if names and options["license_field"] is None:
        options["license_field"] = "license"
    if options["assignments"] and options["config_file"] is None:
        raise UsageError("--set needs --update-config FILE: which file to set it in.")
    if options["config_file"] is not None and not options["assignments"]:
        raise UsageError("--update-config needs --set KEY=VALUE: what to set in it.")
    for name in ("group_by", "stratify_by"):
        if options[name] is not None and options["splits"] is None:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} needs --split, such as train=0.8,val=0.1,test=0.1.")
    return RewriteOptions(
        reading=ReadOptions(parse_path(options["url_field"]), options["source_field"]),
        missing=options["missing"],
        license=LicenseRule(path("license_field"), allowed, required=public),
        sample=_sample(options["sample"]),
        splits=() if options["splits"] is None else parse_splits(options["splits"]),
        seed=options["seed"],
        group=path("group_by"),
        stratify=path("stratify_by"),
        tolerance=options["tolerance"],
        allow_leaks=options["allow_leaks"],
        strict=options["strict"],
        force=options["force"],
        dry_run=options["dry_run"],
    )


def _sample(text: str | None) -> Fraction | int | None:
    """`1000` is a number of records, `0.1` and `10%` are a share of them."""
    from mirror.errors import UsageError

    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    if match := re.fullmatch(r"([0-9]{0,18}\.?[0-9]{1,18})(%?)", text):
        share = Fraction(match[1]) / (100 if match[2] else 1)
        if share <= 1:
            return share
    raise UsageError(f"--sample {text} is no number of records and no share; write 1000 or 0.1.")


def _assignments(options: dict[str, Any], files: dict[str, str]) -> list[Assignment]:
    """The keys to set, with the files' names in place of `{train}` and the like."""
    from mirror.dataset.yaml_edit.training_config import parse_assignment
    from mirror.errors import UsageError

    def file(match: re.Match[str]) -> str:
        if match[1] not in files:
            known = ", ".join(f"{{{name}}}" for name in files)
            raise UsageError(f"--set knows no {match[0]}; the files written are {known}.")
        return files[match[1]]

    return [
        replace(one, value=re.sub(r"\{([A-Za-z0-9_-]+)\}", file, one.value))
        for one in map(parse_assignment, options["assignments"])
    ]


@dataclass
class _Images:
    """What finds an image, and what gives it its new URL; and what to say of both."""

    resolver: UrlLookup
    addresses: Addresses | None
    warnings: list[str] = field(default_factory=list)
    unreadable: int = 0


def _images(
    session: Session,
    settings: Settings,
    options: dict[str, Any],
    scheme: Scheme | Literal["presigned"] | None,
) -> _Images:
    if scheme is None or options["cached_only"] is not None:
        return _cached_images(session, settings, options, scheme)
    from mirror.catalog.lookup import UrlLookup
    from mirror.catalog.open_mirror import read_index

    urls = settings.object_urls
    if scheme == "presigned":
        sign, warnings = _signing(settings, options["expires"])
        _, index = read_index(settings)
        resolver = UrlLookup(index, options["match"], options["min_size"])
        return _Images(resolver, lambda at: sign(resolver.object_keys(at)), warnings)
    base = urls.base(scheme).encode()
    _, index = read_index(settings)
    resolver = UrlLookup(index, options["match"], options["min_size"])
    return _Images(resolver, lambda at: resolver.object_keys(at, base))


def _cached_images(
    session: Session, settings: Settings, options: dict[str, Any], scheme: str | None
) -> _Images:
    from mirror.catalog.lookup import UrlLookup
    from mirror.cli.commands.inspect import list_failures
    from mirror.dataset.rewrite.cached_images import CachedImages
    from mirror.inspection.inspect_cache import inspect_cache, inspection_arguments

    with (
        session.progress() as progress,
        inspect_cache(
            **inspection_arguments(settings, options["level"]), progress=progress
        ) as findings,
    ):
        images = CachedImages(settings.cache_dir, findings)
    list_failures(findings)
    resolver = UrlLookup(images.index, options["match"], options["min_size"], of_mirror=False)
    addresses = images.file_urls if scheme == "file" else None
    return _Images(resolver, addresses, unreadable=findings.failed)


def _signing(
    settings: Settings, days: float
) -> tuple[Callable[[list[bytes]], list[bytes]], list[str]]:
    """What signs keys, and what to say of how long that lasts."""
    from datetime import timedelta

    from mirror.errors import UsageError
    from mirror.store.s3_access import S3Access
    from mirror.store.signing import Signer

    signer = Signer(S3Access(settings.bucket_url, settings.bucket))
    try:
        life = timedelta(seconds=round(days * 86_400))
    except (ValueError, OverflowError):  # not a number, or none that there is a date for
        raise UsageError("--expires is a number of days, 7 at most.") from None
    signer.sign([], life)  # a wrong life or no credentials: better said before a million records

    def sign(keys: list[bytes]) -> list[bytes]:
        return [url.encode() for url in signer.sign([key.decode() for key in keys], life)]

    return sign, _of_their_life(signer)


def _of_their_life(signer: Signer) -> list[str]:
    if not signer.temporary:
        return []
    dies_at = signer.credentials_expire
    when = f" at {dies_at:%Y-%m-%d %H:%M} UTC" if dies_at is not None else ""
    warning = (
        f"The credentials are temporary, and presigned URLs die with them{when}: "
        "sign with lasting ones, or rewrite to public URLs."
    )
    return [warning]
