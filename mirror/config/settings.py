"""The settings of mirror.toml: frozen sections with their defaults."""

from __future__ import annotations

import hashlib
import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from mirror.errors import ConfigError
from mirror.layout import CATALOG, OBJECTS, PROBES, BucketUrl
from mirror.urls import ObjectUrls

# Extensions of image files in a cache. Sidecars (.json, .txt) and partial downloads (.part, .tmp)
# belong to other programs: they are ignored, not judged.
IMAGE_EXTENSIONS = (
    "jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "avif",
    "heic", "heif", "bmp", "tif", "tiff", "jp2", "jxl",
)  # fmt: skip

InspectLevel = Literal["decode", "header", "off"]
EngineName = Literal["auto", "obstore", "aioboto3"]

Count = Annotated[int, msgspec.Meta(ge=1)]
Price = Annotated[float, msgspec.Meta(ge=0)]
Rate = Annotated[float, msgspec.Meta(gt=0)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class CacheSettings(_Section, frozen=True):
    """The URL-keyed cache.

    `dir`: its folder; `extensions`: extensions of image files; `trust_inode`: a file with another
    inode has changed.
    """

    dir: str | None = None
    extensions: tuple[str, ...] = IMAGE_EXTENSIONS
    trust_inode: bool = True


class BucketSettings(_Section, frozen=True):
    """The mirror's bucket. `endpoint`: empty or absent on AWS; `public_url`: a CDN over the prefix."""

    url: str | None = None
    endpoint: str | None = None
    region: str | None = None
    public_url: str | None = None
    engine: EngineName = "auto"


class StateSettings(_Section, frozen=True):
    """`dir`: has a sub-folder for each pair of bucket and cache, and `index`, `upkeep`, `backfill`."""

    dir: str | None = None


class SyncSettings(_Section, frozen=True):
    """How a sync runs.

    `concurrency`: requests in flight. `limit_rate`: bytes a second, such as "20M". `inspect`: level
    of inspection. It commits after `commit_rows` files or `commit_seconds` seconds.
    """

    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    limit_rate: str | None = None
    inspect: InspectLevel = "decode"
    commit_rows: Count = 5_000
    commit_seconds: Annotated[float, msgspec.Meta(gt=0)] = 60.0


class InspectSettings(_Section, frozen=True):
    """How images are judged.

    `placeholder_photos`: number of photos that make their common content a placeholder.
    `known_bad`: a file with hashes of contents that are always bad, one a line.
    """

    placeholder_photos: Annotated[int, msgspec.Meta(ge=2)] = 5
    known_bad: str | None = None


class BackfillSettings(_Section, frozen=True):
    """Which servers a backfill may ask, and how much.

    `hosts`: the only servers that are asked, as `HOST` or `HOST:PORT`. `contact`: an e-mail address
    or a web page for the operators of those servers. The limits hold for each source, and all hosts
    of iNaturalist are one source. `max_size`: bytes of one image. `licenses`: licences that may be
    fetched; empty for all. `allow_private`: for tests; permits requests to private networks.
    """

    hosts: tuple[str, ...] = (
        "static.inaturalist.org",
        "inaturalist-open-data.s3.amazonaws.com",
    )
    contact: str | None = None
    per_second: Rate = 1.0
    per_hour: Count = 150
    per_day: Count = 10_000
    bytes_per_hour: str = "4.5G"
    bytes_per_day: str = "22G"
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    max_size: str = "20M"
    stall_seconds: Rate = 30.0
    deadline_seconds: Rate = 120.0
    licenses: tuple[str, ...] = ()
    allow_private: bool = False


class GcSettings(_Section, frozen=True):
    """`grace_days`: an object written or referenced within this many days is never deleted."""

    grace_days: Annotated[float, msgspec.Meta(ge=0)] = 7.0


class PriceSettings(_Section, frozen=True):
    """Prices in US dollars: storage per GB and month, requests per million, egress per GB.

    The defaults are from AWS's public price list: S3 Standard, us-east-1, first tier.
    """

    storage_gb_month: Price = 0.023
    write_million: Price = 5.00
    read_million: Price = 0.40
    egress_gb: Price = 0.09


class R2Prices(PriceSettings, frozen=True):
    """Prices from Cloudflare's public list: standard storage, without the free tier."""

    storage_gb_month: Price = 0.015
    write_million: Price = 4.50
    read_million: Price = 0.36
    egress_gb: Price = 0.0


class Prices(_Section, frozen=True):
    """Price lists: `r2` is used for Cloudflare's endpoint, `s3` for all others."""

    r2: R2Prices = R2Prices()
    s3: PriceSettings = PriceSettings()


class FetchSettings(_Section, frozen=True):
    """How training reads the mirror.

    `cache_dir`: a folder on this machine that keeps images, up to `cache_bytes`. When it is full,
    `pin` keeps the images it has, and `lru` replaces those not used for the longest time.
    `bytes_in_flight`: bytes of images that are read ahead. `concurrency`: requests in flight.
    `match`: `photo` also finds an iNaturalist photo by another spelling of its URL. `verify`: the hash
    that is compared for each image; `xxh3` is faster, and can be forged. `offline`: read local caches
    only.
    """

    cache_dir: str | None = None
    cache_bytes: str = "100G"
    admission: Literal["pin", "lru"] = "pin"
    bytes_in_flight: str = "64M"
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    match: Literal["url", "photo"] = "url"
    verify: Literal["sha256", "xxh3"] = "sha256"
    offline: bool = False


class Settings(_Section, frozen=True):
    """All sections of mirror.toml. Every value is checked on creation."""

    cache: CacheSettings = CacheSettings()
    bucket: BucketSettings = BucketSettings()
    state: StateSettings = StateSettings()
    sync: SyncSettings = SyncSettings()
    inspect: InspectSettings = InspectSettings()
    backfill: BackfillSettings = BackfillSettings()
    gc: GcSettings = GcSettings()
    fetch: FetchSettings = FetchSettings()
    prices: Prices = Prices()

    @property
    def bucket_url(self) -> BucketUrl:
        """The parsed `bucket.url`. Raises: ConfigError if it is absent or not understood."""
        if not self.bucket.url:
            raise ConfigError(
                "No bucket is configured: set bucket.url in mirror.toml, "
                "MIRROR_BUCKET__URL, or --bucket s3://BUCKET/PREFIX."
            )
        return BucketUrl.parse(self.bucket.url)

    @property
    def object_urls(self) -> ObjectUrls:
        """Builds the objects' URLs. Raises: ConfigError if a URL in `bucket` is absent or not understood."""
        bucket = self.bucket
        return ObjectUrls(self.bucket_url, bucket.endpoint, bucket.region, bucket.public_url)

    @property
    def server(self) -> str:
        """The endpoint, to tell mirrors of the same name apart; empty on AWS and for a folder."""
        endpoint = self.bucket.endpoint if self.bucket_url.scheme == "s3" else ""
        return (endpoint or "").rstrip("/")

    @property
    def unencrypted(self) -> list[str]:
        """The keys whose addresses are reached over plain http through a network."""
        if not self.bucket.url:
            return []
        used = {"bucket.endpoint": self.server, "bucket.public_url": self.bucket.public_url}
        return [key for key, address in used.items() if address and _is_plain_http(address)]

    @property
    def cache_dir(self) -> Path:
        """The cache's folder. Raises: ConfigError if `cache.dir` is absent."""
        if not self.cache.dir:
            raise ConfigError(
                "No cache folder is configured: set cache.dir in mirror.toml, "
                "MIRROR_CACHE__DIR, or --cache DIR."
            )
        return Path(self.cache.dir)

    @property
    def _real_cache(self) -> str:
        try:
            return os.path.realpath(self.cache_dir)
        except FileNotFoundError:
            raise ConfigError(
                f"cache.dir = {self.cache.dir!r} is relative to a folder that no longer exists; "
                "write the whole path."
            ) from None

    def require_apart(self) -> None:
        """Check that neither the cache nor a mirror in a folder contains the other.

        Raises:
            ConfigError: objects of the mirror would count as images of the cache, or images of the
                cache as objects of the mirror.
        """
        if not (self.bucket.url and self.cache.dir) or self.bucket_url.scheme != "file":
            return
        mirror = Path(os.path.realpath(self.bucket_url.path))
        cache = Path(self._real_cache)
        if mirror.is_relative_to(cache):
            raise ConfigError(
                f"The mirror's folder {mirror} is the cache or in it, so its objects would count as "
                "images; name a folder beside the cache in bucket.url."
            )
        for own in (OBJECTS, CATALOG, PROBES):
            if cache.is_relative_to(mirror / own):
                raise ConfigError(
                    f"The cache {cache} is in the mirror's own {mirror / own}, so its images would "
                    "count as objects; name a folder beside the cache in bucket.url."
                )

    @property
    def _state_root(self) -> Path:
        if self.state.dir:
            return Path(self.state.dir)
        import platformdirs

        try:
            return platformdirs.user_state_path("mirror")
        except RuntimeError:  # neither HOME nor a line in passwd
            raise ConfigError(
                "This user has no home folder to keep the state in: set state.dir in mirror.toml, "
                "MIRROR_STATE__DIR, or --state DIR."
            ) from None

    @property
    def index_dir(self) -> Path:
        """Folder of local catalog snapshots, with a sub-folder for each mirror."""
        return self._state_root / "index"

    @property
    def backfill_dir(self) -> Path:
        """Folder of the request log. All caches share it, because servers count by IP address."""
        return self._state_root / "backfill"

    @property
    def upkeep_dir(self) -> Path:
        """Folder of what this machine knows about damage to mirrors, a sub-folder for each."""
        return self._state_root / "upkeep"

    @property
    def schedule_dir(self) -> Path:
        """Folder of what runs that cron starts say."""
        return self._state_root / "schedule"

    @property
    def state_dir(self) -> Path:
        """The state folder of this bucket and this cache."""
        url = self.bucket_url
        identity = f"{url}\0{self.server}\0{self._real_cache}"
        digest = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:12]
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{url.bucket}-{url.path}").strip("-.")[:40]
        return self._state_root / f"{name}-{digest}"

    @property
    def price_list(self) -> PriceSettings:
        endpoint = self.bucket.endpoint or ""
        return self.prices.r2 if "r2.cloudflarestorage.com" in endpoint else self.prices.s3


def _is_plain_http(address: str) -> bool:
    """True for an http URL of another machine; loopback needs no encryption."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme != "http" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:  # a name
        return True


def parse_rate(text: str) -> float:
    """Parse bytes a second: "500K", "20M", "1.5G" or a bare number (powers of 1024).

    Raises:
        ConfigError: not a positive rate.
    """
    rate = _bytes_of(text.strip().removesuffix("/s"), 1024)
    if rate is None:
        raise ConfigError(
            f"The rate {text!r} is not understood; write bytes a second, such as 20M."
        )
    return rate


def parse_size(text: str, name: str) -> int:
    """Parse bytes: "500K", "20M", "4.5G" or a bare number (powers of 1000, as providers count).

    Args:
        text: the size.
        name: the setting, for the error message.

    Raises:
        ConfigError: not a positive size.
    """
    size = _bytes_of(text, 1000)
    if size is None or size < 1:
        raise ConfigError(f"{name} = {text!r} is not understood; write bytes, such as 20M.")
    return int(size)


def _bytes_of(text: str, kilo: int) -> float | None:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGTkmgt]?)(?:i?[Bb])?\s*", text)
    if not match or float(match[1]) <= 0:
        return None
    return float(match[1]) * float(kilo ** " KMGT".index(match[2].upper() or " "))
