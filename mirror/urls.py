"""The URLs of a mirror's objects: what a dataset is rewritten to, and how it is known again. Pure.

public   https://img.example.org/inat/objects/ab/ab….jpg      a CDN or domain over the prefix
s3       s3://plants/inat/objects/ab/ab….jpg
file     file:///data/mirror/objects/ab/ab….jpg               a mirror in a folder
store    https://ENDPOINT/plants/inat/objects/ab/ab….jpg      what signing gives

Bulk code takes `base` once and adds keys to it. An object's name is its content, so a URL of one is
known again wherever it points to (`content_hash_in`): a dataset outlives its mirror's address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import quote, unquote

from mirror.errors import ConfigError
from mirror.layout import OBJECTS, BucketUrl, parse_object_key

# What a base can be written for; presigned URLs come from `mirror.store.signing`, key by key.
Scheme = Literal["public", "s3", "file"]

_HTTP_URL: Final = re.compile(
    r"(https?)://([A-Z0-9._-]+|\[[0-9A-F:.]+\])(?::([0-9]{1,5}))?(/[^?#]*)?",
    re.ASCII | re.IGNORECASE,
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PORTS: Final = 65535
# Characters that a URL's path may hold as they are; "%" because escapes there are the user's own.
_PATH_SAFE: Final = "/%:@!$&'()*+,;=~"
_NOT_A_PATH: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|%(?![0-9A-Fa-f]{2})")
# A bucket of another name could answer at a virtual host: hosts know no capitals and no underscore.
_HOST_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]*")
_OBJECT_URL: Final = re.compile(
    rb"[A-Za-z][A-Za-z0-9+.-]*://[!-\"$->@-~\x80-\xff]*/(%b[0-9a-f]{2}/[0-9a-f]{32}\.[a-z0-9]{1,8})(?:\?[!-\"$-~]*)?"
    % OBJECTS.encode()
)
_PIECE: Final = f"/{OBJECTS}".encode()


def content_hash_in(url: bytes) -> bytes | None:
    """The content hash in a URL of an object, of whichever mirror; None in any other text.

    Args:
        url: as UTF-8; a signature may follow the key.
    """
    # `find` takes half the time of `in`, which asks for the buffer first; most URLs are none.
    if url.find(_PIECE) < 0 or (match := _OBJECT_URL.fullmatch(url)) is None:
        return None
    parsed = parse_object_key(match[1].decode())
    return parsed[0] if parsed else None


@dataclass(frozen=True)
class ObjectUrls:
    """Builds the URLs of one mirror's objects. Pickles.

    Args:
        bucket: where the mirror is.
        endpoint: `bucket.endpoint`; None on AWS.
        region: of the bucket.
        public_url: `bucket.public_url`: what readers without credentials put before a key.

    Raises:
        ConfigError: `endpoint` or `public_url` is not a plain http(s) URL.
    """

    bucket: BucketUrl
    endpoint: str | None = None
    region: str | None = None
    public_url: str | None = None
    _bases: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        bases: dict[str, str] = {self.bucket.scheme: f"{self.bucket}/"}
        if self.public_url:
            bases["public"] = _HttpRoot.parse(self.public_url, "bucket.public_url").text
        if self.endpoint:
            _HttpRoot.parse(self.endpoint, "bucket.endpoint")
        object.__setattr__(self, "_bases", bases)

    def _store_roots(self) -> list[_HttpRoot]:
        """Where the store itself answers for the prefix."""
        if self.bucket.scheme != "s3":
            return []
        name = self.bucket.bucket
        below = f"{quote(self.bucket.path)}/" if self.bucket.path else ""
        if self.endpoint:
            at = _HttpRoot.parse(self.endpoint, "bucket.endpoint")
            return [_HttpRoot(at.scheme, at.host, at.port, f"{at.path}{name}/{below}")]
        hosts = ["s3.amazonaws.com"]
        if self.region:
            hosts.append(f"s3.{self.region}.amazonaws.com")
        roots = [_HttpRoot("https", host, None, f"/{name}/{below}") for host in hosts]
        if _HOST_BUCKET.fullmatch(name):
            roots += [_HttpRoot("https", f"{name}.{host}", None, f"/{below}") for host in hosts]
        return roots

    @property
    def web_bases(self) -> list[str]:
        """http(s) URLs that the objects stand under: the public one if there is one, and the store's."""
        public = [self._bases["public"]] if "public" in self._bases else []
        return public + [root.text for root in self._store_roots()]

    @property
    def default_scheme(self) -> Scheme:
        """`public` where there is a public URL, else what `bucket.url` is written in."""
        if self.public_url:
            return "public"
        return "file" if self.bucket.scheme == "file" else "s3"

    def base(self, scheme: Scheme) -> str:
        """What goes before a key: `base + key` is the object's URL, for any number of keys.

        Keys of objects need no percent-encoding; that of the prefix is done here.

        Raises:
            ConfigError: this mirror has no URLs of that scheme.
        """
        base = self._bases.get(scheme)
        if base is not None:
            return base
        if scheme == "public":
            raise ConfigError(
                "The mirror has no public URLs: set bucket.public_url to the address under which "
                f"readers find it, or choose {self.bucket.scheme} URLs."
            )
        if scheme == "s3":
            raise ConfigError(
                "The mirror is in a folder and has no s3:// URLs: choose file URLs, "
                "or set bucket.url to s3://BUCKET/PREFIX."
            )
        raise ConfigError(
            "The mirror is in a bucket and has no file:// URLs: choose s3, public or presigned "
            "URLs, or set bucket.url to file:///FOLDER."
        )

    def url(self, scheme: Scheme, key: str) -> str:
        """The URL of an object.

        Args:
            scheme: which form.
            key: as `layout.object_key` gives it.

        Raises:
            ConfigError: this mirror has no URLs of that scheme.
        """
        return self.base(scheme) + key


@dataclass(frozen=True, slots=True)
class _HttpRoot:
    """An http(s) URL that keys are put behind.

    Attributes:
        scheme: `http` or `https`.
        host: in lower case.
        port: None for the scheme's default.
        path: percent-encoded, with a slash at both ends.
    """

    scheme: str
    host: str
    port: int | None
    path: str

    @classmethod
    def parse(cls, url: str, setting: str) -> _HttpRoot:
        """Raises: ConfigError; it does not repeat the URL, which may hold a password."""
        match = _HTTP_URL.fullmatch(url)
        pieces = unquote(match[4] or "").split("/") if match else []
        port = int(match[3]) if match and match[3] else None
        dotted = "." in pieces or ".." in pieces
        if not match or dotted or (port or 1) > _PORTS or _NOT_A_PATH.search(url):
            raise ConfigError(
                f"{setting} is not a plain web address: write https://HOST[:PORT][/PATH], "
                "without user name, query or dotted pieces."
            )
        scheme = match[1].lower()
        path = quote((match[4] or "").rstrip("/"), safe=_PATH_SAFE)
        default = port == _DEFAULT_PORTS[scheme]
        return cls(scheme, match[2].lower(), None if default else port, f"{path}/")

    @property
    def text(self) -> str:
        port = f":{self.port}" if self.port is not None else ""
        return f"{self.scheme}://{self.host}{port}{self.path}"
