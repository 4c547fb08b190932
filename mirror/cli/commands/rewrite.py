"""`mirror rewrite`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import (
    OUTPUT,
    PATH_TEXT,
    WHAT_TO_READ,
    bucket_flags,
    bucket_options,
    delimiter_option,
    known_bad_option,
    level_option,
    public_url_option,
    url_field_option,
)
from mirror.cli.session import Session, session_options
from mirror.errors import UsageError

if TYPE_CHECKING:
    from mirror.config.settings import Settings
    from mirror.dataset.rewrite.rewrite_options import RewriteOptions


@click.command("rewrite", cls=SectionedCommand)
@click.argument("inputs", metavar="IN...", type=PATH_TEXT, nargs=-1, required=True)
@section(
    OUTPUT,
    click.option(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        type=click.Path(path_type=Path),
        help="The file to write: .jsonl, .csv, .tsv or .parquet, also with .gz or .zst. {split} in it "
        "stands for the name of a split.",
    ),
    click.option(
        "--source-field",
        default="source_url",
        show_default=True,
        metavar="FIELD",
        help="The new field for the original URL.",
    ),
    click.option(
        "--report",
        "report_file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Write what was dropped and why, with examples, as JSON.",
    ),
    click.option("--force", is_flag=True, help="Replace files that exist."),
    click.option(
        "--allow-empty",
        is_flag=True,
        help="Write outputs without records, with --force also over files that have some.",
    ),
    click.option("-n", "--dry-run", is_flag=True, help="Show the counts; write only --report."),
)
@section(
    WHAT_TO_READ,
    url_field_option,
    delimiter_option,
    click.option(
        "--match",
        type=click.Choice(["url", "photo"]),
        default="url",
        show_default=True,
        help="photo: also find an iNaturalist photo by another spelling of its URL.",
    ),
    click.option(
        "--cached-only",
        metavar="DIR",
        type=PATH_TEXT,
        help="Use this cache instead of a bucket. URLs stay unchanged without --scheme file.",
    ),
    click.option(
        "--nan",
        type=click.Choice(["keep", "null", "reject"]),
        default="reject",
        show_default=True,
        help="What to do with NaN and infinities in JSON lines: keep, null or reject the record.",
    ),
    click.option("--strict", is_flag=True, help="Stop at the first invalid record."),
)
@bucket_options
@public_url_option
@section(
    "The new URLs",
    click.option(
        "--scheme",
        type=click.Choice(["public", "s3", "presigned", "file"]),
        metavar="NAME",
        help="public, s3, presigned or file. Default: public if bucket.public_url is set, else "
        "as bucket.url.",
    ),
    click.option(
        "--expires",
        type=click.FloatRange(min=0, min_open=True),
        default=7.0,
        show_default=True,
        metavar="DAYS",
        help="The lifetime of presigned URLs, 7 days at most.",
    ),
)
@section(
    "Which records to keep",
    click.option(
        "--missing",
        type=click.Choice(["drop", "keep", "fail"]),
        default="drop",
        show_default=True,
        help="What to do with records whose image is not mirrored.",
    ),
    click.option(
        "--min-size",
        type=click.IntRange(min=0),
        default=0,
        metavar="PX",
        help="Drop images whose shorter side has fewer pixels.",
    ),
    click.option(
        "--license-field",
        metavar="FIELD",
        help="The field with a record's licence; license, if --allow-license is given. With "
        "public URLs, records without a licence are dropped.",
    ),
    click.option(
        "--allow-license",
        "licenses",
        multiple=True,
        metavar="NAME",
        help="Keep only this licence, such as cc-by; repeatable, or with commas.",
    ),
    click.option(
        "--sample", metavar="N|SHARE", help="Keep this many records (1000) or this share (0.1)."
    ),
)
@level_option
@known_bad_option
@section(
    "How to split",
    click.option("--split", "splits", metavar="SPLITS", help="Such as train=0.8,val=0.1,test=0.1."),
    click.option(
        "--seed",
        type=int,
        default=0,
        show_default=True,
        metavar="N",
        help="The seed of the splits and of the sample.",
    ),
    click.option(
        "--group-by", metavar="FIELD", help="Keep records with the same value in one split."
    ),
    click.option(
        "--stratify-by", metavar="FIELD", help="Keep the shares of the splits within each class."
    ),
    click.option(
        "--tolerance",
        type=click.FloatRange(0, 1),
        default=0.01,
        show_default=True,
        metavar="SHARE",
        help="How far the share of a class may be off, as a part of the class.",
    ),
    click.option(
        "--allow-leaks",
        is_flag=True,
        help="Let records with the same image be in different splits.",
    ),
    click.option(
        "--pin",
        multiple=True,
        metavar="SPLIT=FILE",
        help="Keep in SPLIT every record whose image or URL is in FILE, an earlier output; "
        "repeatable.",
    ),
)
@section(
    "Copies of one photograph",
    click.option(
        "--near-duplicates",
        type=click.Choice(["group", "drop", "keep"]),
        default="group",
        show_default=True,
        help="Keep copies in one split, drop all but the largest, or keep them wherever they fall.",
    ),
    click.option(
        "--label-field",
        metavar="FIELD",
        help="The field of the class that copies must agree in; the one of --stratify-by, if given.",
    ),
    click.option(
        "--label-conflicts",
        type=click.Choice(["keep", "drop"]),
        default="keep",
        show_default=True,
        help="What to do with records whose photograph has several classes.",
    ),
)
@section(
    "Update a training's configuration",
    click.option(
        "--update-config",
        "config_file",
        metavar="YAML",
        type=click.Path(path_type=Path),
        help="The configuration file to point at the new files.",
    ),
    click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set a key of it; {train}, {val} or {out} stand for the files written.",
    ),
)
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Rewrite datasets to the mirror's URLs, filter and split them, and update the training.

    IN is JSON, CSV or Parquet (plain, .gz or .zst), a folder or quoted pattern of such files, - for
    standard input, or mongodb://HOST/DATABASE/COLLECTION. Records whose image is not in the mirror, blank, broken or a
    placeholder are dropped and counted. All other fields stay unchanged. The same photograph is
    never in two splits, whatever its size. A record keeps its split when the dataset is reordered or grows; with --stratify-by
    a few records move then, unless --pin names the earlier outputs.

    Invalid records, and records without a URL, go to OUT.rejected.jsonl; the exit status is then 3.

    \b
    Examples:
      mirror rewrite dataset_raw.jsonl -o dataset.jsonl
      mirror rewrite dataset_raw.jsonl -o dataset.jsonl --split train=0.8,val=0.1,test=0.1 \\
        --group-by observation_id --stratify-by species
      mirror rewrite grown.jsonl -o plants2.jsonl --split train=0.9,val=0.1 \\
        --stratify-by species --pin train=plants_train.jsonl --pin val=plants_val.jsonl
      mirror rewrite dataset_raw.jsonl -o today.jsonl --cached-only /data/image_cache \\
        --split train=0.8,val=0.1,test=0.1
      mirror rewrite raw.jsonl -o plants.jsonl --split train=0.9,val=0.1 \\
        --update-config training.yaml \\
        --set data.train_jsonl={train} --set data.val_jsonl={val}
    """
    from mirror.cli.views.rewrite_view import show
    from mirror.dataset.rewrite.run_rewrite import rewrite

    settings = _settings(session, options)
    with session.progress() as progress:
        report = rewrite(
            settings, options["inputs"], options["output"], _options(options), progress=progress
        )
    show(session, report)
    return report.exit_status


def _settings(session: Session, options: dict[str, Any]) -> Settings:
    cached_only = options["cached_only"] is not None
    for name in ("bucket", "endpoint", "region", "public_url", "state"):
        if cached_only and options[name] is not None:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"--cached-only uses no bucket; leave out --cached-only or {option}.")
    return session.settings(
        {
            "cache.dir": options["cached_only"],
            **bucket_flags(options),
            "bucket.public_url": options["public_url"],
            "inspect.known_bad": options["known_bad"],
        }
    )


def _options(options: dict[str, Any]) -> RewriteOptions:
    from mirror.dataset.rewrite.rewrite_options import parse_options

    as_given = (
        "url_field delimiter nan source_field scheme expires match missing min_size license_field sample seed "
        "group_by stratify_by tolerance allow_leaks pin near_duplicates label_field label_conflicts level known_bad strict force "
        "allow_empty dry_run assignments"
    )
    return parse_options(
        allow_license=options["licenses"],
        split=options["splits"],
        cached_only=options["cached_only"] is not None,
        report=options["report_file"],
        update_config=options["config_file"],
        **{name: options[name] for name in as_given.split()},
    )
