"""Keys of format 1. Pure, and the only code that knows the layout of the bucket.

    <prefix>/format.json
    <prefix>/objects/<h[0:2]>/<h>.<ext>     h = xxh3-128 of the bytes, 32 lower-case hex digits
    <prefix>/catalog/                       a Delta table
    <prefix>/doctor/                        test objects of `mirror doctor`
    <prefix>/gc.json                        whether `mirror gc` is running

docs/format.md is the specification. Keys in the code are relative to the prefix: stores add it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import md5
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from mirror.errors import ConfigError

FORMAT: Final = 1
FORMAT_KEY: Final = "format.json"
OBJECTS: Final = "objects/"
CATALOG: Final = "catalog"
CATALOG_LOG: Final = f"{CATALOG}/_delta_log/"
# Objects with which `mirror doctor` tests an endpoint. Leftovers may be deleted.
PROBES: Final = "doctor/"
GC_LEASE_KEY: Final = "gc.json"

CACHE_CONTROL: Final = "public, max-age=31536000, immutable"

_NO_IMAGE: Final = "application/octet-stream"

# Format → (extension in a key, Content-Type). The catalog's column `format` holds these names.
# A stranger's page or SVG would run in the origin of a public bucket, so none has a type of its own.
FORMATS: Final[dict[str, tuple[str, str]]] = {
    "jpeg": ("jpg", "image/jpeg"),
    "png": ("png", "image/png"),
    "gif": ("gif", "image/gif"),
    "webp": ("webp", "image/webp"),
    "avif": ("avif", "image/avif"),
    "heic": ("heic", "image/heic"),
    "bmp": ("bmp", "image/bmp"),
    "tiff": ("tif", "image/tiff"),
    "jp2": ("jp2", "image/jp2"),
    "jxl": ("jxl", "image/jxl"),
    "html": ("html", _NO_IMAGE),
    "json": ("json", _NO_IMAGE),
    "xml": ("xml", _NO_IMAGE),
    "unknown": ("bin", _NO_IMAGE),
}

_BUCKET_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
# Control characters (object_store refuses them in a key), and characters that UTF-8 cannot encode.
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_USER_INFO: Final = re.compile(r"//.*@")
_CONTENT_HASH: Final = re.compile(r"[0-9a-f]{32}")
_LOG_ENTRY: Final = re.compile(rf"{CATALOG_LOG}(\d{{20}})\.json")
_OBJECT_KEY: Final = re.compile(r"objects/([0-9a-f]{2})/((?:\1)[0-9a-f]{30})\.([a-z0-9]{1,8})")


def url_md5(url: str) -> bytes:
    """Return the 16 bytes by which a cache and the catalog identify a URL.

    It is MD5 because existing caches name their files so. Nothing relies on it for security.
    """
    return md5(url.encode(), usedforsecurity=False).digest()


def object_key(content_hash: bytes, image_format: str) -> str:
    """Return the key of the object with a content.

    Args:
        content_hash: xxh3-128 of the bytes, 16 bytes, big-endian.
        image_format: a name in `FORMATS`.
    """
    digits = content_hash.hex()
    return f"{OBJECTS}{digits[:2]}/{digits}.{FORMATS[image_format][0]}"


def is_mirrors_own(key: str) -> bool:
    """Whether only a mirror writes this key: an object's, or one below the catalog or the probes.

    A mirror may share a bucket, or even its prefix, with other programs.
    """
    return key.startswith((f"{CATALOG}/", PROBES)) or parse_object_key(key) is not None


def parse_object_key(key: str) -> tuple[bytes, str] | None:
    """Return `(content_hash, extension)` of an object's key, or None for any other key."""
    match = _OBJECT_KEY.fullmatch(key)
    return (bytes.fromhex(match[2]), match[3]) if match else None


def log_entry_key(version: int) -> str:
    """Return the key of the entry of the catalog's log that commits a version."""
    return f"{CATALOG_LOG}{version:020d}.json"


def parse_log_entry_key(key: str) -> int | None:
    """Return the version that an entry of the catalog's log commits, or None for any other key."""
    match = _LOG_ENTRY.fullmatch(key)
    return int(match[1]) if match else None


def parse_content_hash(text: str) -> bytes | None:
    """Return the 16 bytes of a content hash as keys write it, or None for any other text."""
    return bytes.fromhex(text) if _CONTENT_HASH.fullmatch(text) else None


def content_type(image_format: str) -> str:
    """Return the Content-Type of a format."""
    return FORMATS[image_format][1]


def content_disposition(image_format: str) -> str | None:
    """Return the Content-Disposition of a format: a browser must not show what is no image."""
    return "attachment" if content_type(image_format) == _NO_IMAGE else None


@dataclass(frozen=True, slots=True)
class BucketUrl:
    """A parsed `bucket.url`: `s3://bucket[/prefix]` or `file:///folder`.

    Attributes:
        scheme: `s3` or `file`.
        bucket: the bucket's name; empty for `file`.
        path: the prefix without slashes at its ends; for `file`, the absolute folder.
    """

    scheme: str
    bucket: str
    path: str

    @classmethod
    def parse(cls, url: str) -> BucketUrl:
        """Parse a URL. Raises: ConfigError, without repeating a password."""
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        plain = not (
            parts.query or parts.fragment or "?" in url or "#" in url or _UNFIT.search(url)
        )
        shown = _USER_INFO.sub("//…@", url)  # a password must not appear in a log
        if parts.scheme == "s3" and plain and _BUCKET_NAME.fullmatch(parts.netloc):
            prefix = unquote(parts.path).strip("/")
            strange = any(piece in ("", ".", "..") for piece in prefix.split("/"))
            if prefix and (strange or "%2f" in prefix.lower() or _UNFIT.search(prefix)):
                raise ConfigError(
                    f"bucket.url {shown!r} has an empty, dotted or doubly escaped piece or a "
                    "control character in its prefix; write it as s3://BUCKET/PREFIX."
                )
            return cls("s3", parts.netloc, prefix)
        if parts.scheme == "file" and plain and not parts.netloc and unquote(parts.path).strip("/"):
            return cls("file", "", unquote(parts.path).rstrip("/"))
        raise ConfigError(
            f"bucket.url {shown!r} is not understood; write s3://BUCKET[/PREFIX] or file:///FOLDER."
        )

    def __str__(self) -> str:
        if self.scheme == "file":
            return f"file://{quote(self.path)}"
        return f"s3://{self.bucket}/{quote(self.path)}" if self.path else f"s3://{self.bucket}"
