"""mirror.toml, the environment and the command line → one frozen `Settings`.

The only reader of either. Layers, strongest first:

    flags > environment > --config FILE > ./mirror.toml > the user's config folder
          > /etc/mirror/mirror.toml > defaults

An environment variable is `MIRROR_` + section + `__` + key: `MIRROR_BUCKET__URL`. An unknown key is
an error wherever it stands. Secrets are never read here: they come from the AWS chain.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from mirror.errors import ConfigError
from mirror.layout import BucketUrl
from mirror.urls import ObjectUrls

ENV_PREFIX = "MIRROR_"
SYSTEM_CONFIG = Path("/etc/mirror/mirror.toml")

# Extensions of files that a cache may hold images under. Sidecars (.json, .txt) and partial
# downloads (.part, .tmp) are somebody else's: they are ignored, not judged.
IMAGE_EXTENSIONS = (
    "jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "avif",
    "heic", "heif", "bmp", "tif", "tiff", "jp2", "jxl",
)  # fmt: skip

InspectLevel = Literal["decode", "header", "off"]
EngineName = Literal["auto", "obstore", "aioboto3"]

Count = Annotated[int, msgspec.Meta(ge=1)]
Price = Annotated[float, msgspec.Meta(ge=0)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class CacheSettings(_Section, frozen=True):
    """The URL-keyed cache. `dir`: its folder; `extensions`: what an image file may end with."""

    dir: str | None = None
    extensions: tuple[str, ...] = IMAGE_EXTENSIONS


class BucketSettings(_Section, frozen=True):
    """Where the mirror is. `endpoint` is absent on AWS; `public_url` is a CDN over the prefix."""

    url: str | None = None
    endpoint: str | None = None
    region: str | None = None
    public_url: str | None = None
    engine: EngineName = "auto"


class StateSettings(_Section, frozen=True):
    """`dir`: the folder of one sub-folder per pair of bucket and cache, and of the mirrors' index."""

    dir: str | None = None


class SyncSettings(_Section, frozen=True):
    """`concurrency`: requests in flight; `limit_rate`: bytes a second, such as "20M"."""

    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    limit_rate: str | None = None
    inspect: InspectLevel = "decode"
    commit_rows: Count = 5_000
    commit_seconds: Annotated[float, msgspec.Meta(gt=0)] = 60.0


class InspectSettings(_Section, frozen=True):
    """`placeholder_photos`: so many photos under one content make it a placeholder.

    `known_bad`: a file of hashes, one a line, of contents that are bad wherever they are met.
    """

    placeholder_photos: Annotated[int, msgspec.Meta(ge=2)] = 5
    known_bad: str | None = None


class PriceSettings(_Section, frozen=True):
    """US dollars: storage per GB and month, requests per million, egress per GB.

    The defaults are AWS's public list: S3 Standard, us-east-1, first tier.
    """

    storage_gb_month: Price = 0.023
    write_million: Price = 5.00
    read_million: Price = 0.40
    egress_gb: Price = 0.09


class R2Prices(PriceSettings, frozen=True):
    """The same by Cloudflare's public list: standard storage, without the free tier."""

    storage_gb_month: Price = 0.015
    write_million: Price = 4.50
    read_million: Price = 0.36
    egress_gb: Price = 0.0


class Prices(_Section, frozen=True):
    """The list in use follows the endpoint: `r2` for Cloudflare's, else `s3`."""

    r2: R2Prices = R2Prices()
    s3: PriceSettings = PriceSettings()


class FetchSettings(_Section, frozen=True):
    """Reading for training.

    `cache_dir`: a folder of this machine for what was read, up to `cache_bytes`; when it is full,
    `pin` keeps what is there and `lru` makes room. `bytes_in_flight`: of images that are read ahead
    of their use. `concurrency`: requests in flight. `match`: `photo` also finds an iNaturalist photo
    by another spelling of its URL. `offline`: caches only.
    """

    cache_dir: str | None = None
    cache_bytes: str = "100G"
    admission: Literal["pin", "lru"] = "pin"
    bytes_in_flight: str = "64M"
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    match: Literal["url", "photo"] = "url"
    offline: bool = False


class Settings(_Section, frozen=True):
    """All sections of mirror.toml. Every value is checked when this is made."""

    cache: CacheSettings = CacheSettings()
    bucket: BucketSettings = BucketSettings()
    state: StateSettings = StateSettings()
    sync: SyncSettings = SyncSettings()
    inspect: InspectSettings = InspectSettings()
    fetch: FetchSettings = FetchSettings()
    prices: Prices = Prices()

    @property
    def bucket_url(self) -> BucketUrl:
        """Raises: ConfigError when `bucket.url` is absent or not understood."""
        if not self.bucket.url:
            raise ConfigError(
                "No bucket is configured: set bucket.url in mirror.toml, "
                "MIRROR_BUCKET__URL, or --bucket s3://BUCKET/PREFIX."
            )
        return BucketUrl.parse(self.bucket.url)

    @property
    def object_urls(self) -> ObjectUrls:
        """Raises: ConfigError when one of the URLs in `bucket` is absent or not understood."""
        bucket = self.bucket
        return ObjectUrls(self.bucket_url, bucket.endpoint, bucket.region, bucket.public_url)

    @property
    def cache_dir(self) -> Path:
        """Raises: ConfigError when `cache.dir` is absent."""
        if not self.cache.dir:
            raise ConfigError(
                "No cache folder is configured: set cache.dir in mirror.toml, "
                "MIRROR_CACHE__DIR, or --cache DIR."
            )
        return Path(self.cache.dir)

    @property
    def _state_root(self) -> Path:
        if self.state.dir:
            return Path(self.state.dir)
        import platformdirs

        return platformdirs.user_state_path("mirror")

    @property
    def index_dir(self) -> Path:
        """Local snapshots of catalogs, a sub-folder for each mirror whatever cache is in use."""
        return self._state_root / "index"

    @property
    def state_dir(self) -> Path:
        """The state's folder for this bucket and this cache."""
        url = self.bucket_url
        cache = os.path.realpath(self.cache_dir)
        identity = f"{url}\0{(self.bucket.endpoint or '').rstrip('/')}\0{cache}"
        digest = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:12]
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{url.bucket}-{url.path}").strip("-.")[:40]
        return self._state_root / f"{name}-{digest}"

    @property
    def price_list(self) -> PriceSettings:
        endpoint = self.bucket.endpoint or ""
        return self.prices.r2 if "r2.cloudflarestorage.com" in endpoint else self.prices.s3


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of settings: where it comes from, and what it says, by dotted keys or nested."""

    origin: str
    values: Mapping[str, Any]


def load(
    *,
    config: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Settings:
    """Read all layers and check them.

    Args:
        config: a file named by the user; it must exist.
        flags: `{"bucket.url": …}` from the command line; None values say nothing.
        environ: the environment; `os.environ` when None.
        cwd: where `./mirror.toml` is looked for.

    Raises:
        ConfigError: an unreadable file, an unknown key, or a value of the wrong kind.
    """
    environ = os.environ if environ is None else environ
    layers = [Layer("flag", {k: v for k, v in (flags or {}).items() if v is not None})]
    layers.append(_environment_layer(environ))
    layers.extend(_file_layers(config, cwd or Path.cwd(), environ))
    return merge(layers)


def merge(layers: Sequence[Layer]) -> Settings:
    """Settings from layers, the strongest first.

    Raises:
        ConfigError: an unknown key or a value of the wrong kind, naming the layer at fault.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in reversed(layers):
        for key, value in _leaves(layer.values):
            _require_known(key, layer.origin)
            merged[key] = value
            origins[key] = layer.origin
    try:
        settings = msgspec.convert(_nested(merged), Settings, strict=False)
    except msgspec.ValidationError as error:
        sentence, _, path = str(error).partition(" - at `$.")
        key = path.rstrip("`").partition("[")[0]
        origin = origins.get(key, "defaults")
        raise ConfigError(f"{key} (from {origin}) is wrong: {sentence}.") from None
    if settings.bucket.url:
        _ = settings.object_urls  # a wrong address is told of before any work is done
    if settings.sync.limit_rate is not None:
        parse_rate(settings.sync.limit_rate)
    parse_size(settings.fetch.cache_bytes)
    parse_size(settings.fetch.bytes_in_flight)
    return settings


def parse_rate(text: str) -> float:
    """Bytes a second of "500K", "20M", "1.5G" or a bare number (powers of 1024).

    Raises:
        ConfigError: not a positive rate.
    """
    amount = _amount(text, "(?:/s)?")
    if amount is None:
        raise ConfigError(
            f"The rate {text!r} is not understood; write bytes a second, such as 20M."
        )
    return amount


def parse_size(text: str) -> int:
    """Bytes of "500K", "20M", "1.5G", "2T" or a bare number (powers of 1024).

    Raises:
        ConfigError: not a positive size.
    """
    amount = _amount(text, "")
    if amount is None:
        raise ConfigError(f"The size {text!r} is not understood; write bytes, such as 200G.")
    return max(1, int(amount))


def _amount(text: str, behind: str) -> float | None:
    match = re.fullmatch(rf"\s*(\d+(?:\.\d+)?)\s*([KMGTkmgt]?)(?:i?[Bb])?{behind}\s*", text)
    if not match or float(match[1]) <= 0:
        return None
    return float(match[1]) * float(1024 ** " KMGT".index(match[2].upper() or " "))


def _file_layers(config: Path | None, cwd: Path, environ: Mapping[str, str]) -> Iterator[Layer]:
    import platformdirs

    if config is not None:
        yield _read_file(config)
    # HOME may be passed in with the environment, so that nothing here depends on the process's own.
    home = environ.get("XDG_CONFIG_HOME")
    user = Path(home) / "mirror" if home else platformdirs.user_config_path("mirror")
    for path in (cwd / "mirror.toml", user / "mirror.toml", SYSTEM_CONFIG):
        if path.is_file() and not (config is not None and path.samefile(config)):
            yield _read_file(path)


def _read_file(path: Path) -> Layer:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    return Layer(str(path), _with_absolute_paths(values, path.parent))


def _with_absolute_paths(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """Paths named in a file are relative to that file, wherever the command runs from."""
    for section, key in (
        ("cache", "dir"),
        ("state", "dir"),
        ("inspect", "known_bad"),
        ("fetch", "cache_dir"),
    ):
        table = values.get(section)
        if isinstance(table, dict) and isinstance(table.get(key), str):
            table[key] = str(base.absolute() / Path(table[key]).expanduser())
    return values


def _environment_layer(environ: Mapping[str, str]) -> Layer:
    flat = {
        name.removeprefix(ENV_PREFIX).lower().replace("__", "."): value
        for name, value in environ.items()
        if name.startswith(ENV_PREFIX) and "__" in name.removeprefix(ENV_PREFIX)
    }
    return Layer("environment", flat)


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, leaf = key.split(".")
        tree = nested
        for section in sections:
            tree = tree.setdefault(section, {})
        tree[leaf] = value
    return nested


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if not isinstance(value, Mapping):
            yield f"{prefix}{name}", value
        elif value or f"{prefix}{name}" in _known_sections():
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value  # an empty table that is no section of ours


def known_keys(section: type[msgspec.Struct] = Settings, prefix: str = "") -> list[str]:
    """Every key of mirror.toml, dotted, in the order of the file."""
    keys: list[str] = []
    for field in msgspec.structs.fields(section):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            keys += known_keys(field.type, f"{prefix}{field.name}.")
        else:
            keys.append(f"{prefix}{field.name}")
    return keys


def _known_sections() -> set[str]:
    return {key[:at] for key in known_keys() for at, c in enumerate(key) if c == "."}


def _require_known(key: str, origin: str) -> None:
    known = known_keys()
    if key in known:
        return
    within = [k for k in known if k.startswith(f"{key}.")]  # a section written as if it were a key
    close = within or difflib.get_close_matches(key, [*known, *_known_sections()], n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "known keys are in docs/configuration.md."
    raise ConfigError(f"Unknown key {key} (from {origin}); {hint}")
