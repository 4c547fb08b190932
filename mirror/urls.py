"""Build the URLs of a mirror's objects, and recognise them in a dataset. Pure.

public   https://img.example.org/inat/objects/ab/ab….jpg      a CDN or domain over the prefix
s3       s3://plants/inat/objects/ab/ab….jpg
file     file:///data/mirror/objects/ab/ab….jpg               a mirror in a folder
store    https://ENDPOINT/plants/inat/objects/ab/ab….jpg      the form of signed URLs

Bulk code takes `base` once and appends keys. The name of an object is its content hash, so
`content_hash_in` recognises its URL at any address. A rewritten dataset stays valid when the mirror
moves.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import quote, unquote

from mirror.errors import ConfigError
from mirror.layout import OBJECTS, BucketUrl, parse_object_key

# Forms that have a base. `mirror.store.signing` makes presigned URLs, key by key.
Scheme = Literal["public", "s3", "file"]

_HTTP_URL: Final = re.compile(
    r"(https?)://([A-Z0-9._-]+|\[[0-9A-F:.]+\])(?::([0-9]{1,5}))?(/[^?#]*)?",
    re.ASCII | re.IGNORECASE,
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PORTS: Final = 65535
# Characters that stay unescaped in a URL's path; "%" because the user may have escaped some.
_PATH_SAFE: Final = "/%:@!$&'()*+,;=~"
_NOT_A_PATH: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|%(?![0-9A-Fa-f]{2})")
# Names of buckets that have their own virtual host. Host names have no capitals or underscores, so
# for any other name another bucket could answer.
_HOST_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]*")
# Their consoles show addresses that have the bucket in the host.
_PROVIDERS: Final = (".amazonaws.com", ".r2.cloudflarestorage.com", ".digitaloceanspaces.com")
_OBJECT_URL: Final = re.compile(
    rb"[A-Za-z][A-Za-z0-9+.-]*://[!-\"$->@-~\x80-\xff]*/(%b[0-9a-f]{2}/[0-9a-f]{32}\.[a-z0-9]{1,8})(?:\?[!-\"$-~]*)?"
    % OBJECTS.encode()
)
_PIECE: Final = f"/{OBJECTS}".encode()


def content_hash_in(url: bytes) -> bytes | None:
    """Return the content hash in the URL of an object of any mirror; None for any other text.

    Args:
        url: in UTF-8; a signature may follow the key.
    """
    # `find` takes half the time of `in`, which asks for the buffer first. Most URLs fail here.
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
        region: the bucket's region.
        public_url: `bucket.public_url`, the base of the URLs for readers without credentials.

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
            self._require_no_bucket_in(_HttpRoot.parse(self.endpoint, "bucket.endpoint"))
        object.__setattr__(self, "_bases", bases)

    def _require_no_bucket_in(self, endpoint: _HttpRoot) -> None:
        """Refuse an address of the bucket in place of the server's, as providers show both.

        Requests would go to a bucket of that name on the server, or below the right one.
        """
        name = self.bucket.bucket
        above, last = posixpath.split(endpoint.path.rstrip("/"))
        right = ""
        if name and last == name:
            right = _HttpRoot(endpoint.scheme, endpoint.host, endpoint.port, above).text
        elif name and endpoint.host.startswith(f"{name}.") and endpoint.host.endswith(_PROVIDERS):
            host = endpoint.host.removeprefix(f"{name}.")
            right = _HttpRoot(endpoint.scheme, host, endpoint.port, endpoint.path).text
        if right:
            raise ConfigError(
                f"bucket.endpoint names the bucket {name} too; write only the server, "
                f"{right.rstrip('/')}, because bucket.url has the bucket."
            )

    def _store_roots(self) -> list[_HttpRoot]:
        """Addresses under which the store itself serves the prefix."""
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
        """All http(s) bases of the objects: the public one, if there is one, and the store's own."""
        public = [self._bases["public"]] if "public" in self._bases else []
        return public + [root.text for root in self._store_roots()]

    @property
    def default_scheme(self) -> Scheme:
        """`public` if there is a public URL, else the scheme of `bucket.url`."""
        if self.public_url:
            return "public"
        return "file" if self.bucket.scheme == "file" else "s3"

    def base(self, scheme: Scheme) -> str:
        """Return the base of one scheme: `base + key` is the URL of the object with that key.

        The base has its prefix percent-encoded. Keys of objects need no encoding.

        Raises:
            ConfigError: this mirror has no URLs of that scheme.
        """
        base = self._bases.get(scheme)
        if base is not None:
            return base
        if scheme == "public":
            raise ConfigError(
                "The mirror has no public URLs: set bucket.public_url to its public address, "
                f"or choose {self.bucket.scheme} URLs."
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
        """Return the URL of an object.

        Args:
            scheme: form of the URL.
            key: from `layout.object_key`.

        Raises:
            ConfigError: this mirror has no URLs of that scheme.
        """
        return self.base(scheme) + key


@dataclass(frozen=True, slots=True)
class _HttpRoot:
    """An http(s) URL to which keys are appended.

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
        """Parse a URL. Raises: ConfigError, without the URL: it may contain a password."""
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
