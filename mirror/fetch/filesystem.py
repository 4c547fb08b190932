"""`mirror://` for fsspec: pandas, datasets and other programs that use fsspec read the mirror.

    mirror://inaturalist-open-data.s3.amazonaws.com/photos/1/medium.jpg    an original URL
    mirror://https://inaturalist-open-data.s3.amazonaws.com/photos/1/…     the same, with its scheme
    mirror://objects/ab/ab….jpg, mirror://ab….jpg, mirror://ab…            an object, by its hash

A path is a URL without its scheme. A second `://` in a path would be misread: some programs take it
for the address to open. Any other path is looked up by its last part, if that is a content hash:
`any/folder/ab….jpg`.

A mirror has no folders. With `dataset=FILE`, the images of a dataset are listed by their URLs; with
`label_field=NAME`, in a folder for each class, as `imagefolder` and torchvision expect. The file
system is read-only; images are added with `mirror sync`.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from mirror.system.extras import missing

try:
    from fsspec.spec import AbstractFileSystem
except ModuleNotFoundError:
    raise ModuleNotFoundError(missing("fsspec", "mirror.fetch.filesystem"), name="fsspec") from None

from mirror.catalog.index import Index
from mirror.config.loading import load
from mirror.config.settings import Settings
from mirror.dataset.inputs import Input
from mirror.errors import (
    FetchError,
    Flagged,
    NotCached,
    NotMirrored,
    OriginBlocked,
    StoreUnavailable,
)
from mirror.fetch.client import Fetcher
from mirror.fetch.image_lookup import ImageLookup, MirroredImage
from mirror.fetch.path_tree import PathTree
from mirror.fetch.remote.load_index import load_index
from mirror.fetch.sample_table import read_table
from mirror.layout import parse_content_hash

_SCHEMES: Final = ("https://", "http://")
_TOGETHER: Final = 4096
# A text to look up, and its result.
_LookedUp = tuple[str, MirroredImage | Flagged | NotMirrored]
# Indexes, kept for this process and the ones it forks. fsspec makes new file systems in a forked
# child, where deltalake cannot read a catalog if the parent has used it.
_indexes: dict[tuple[Settings, bool], Index] = {}


class MirrorFileSystem(AbstractFileSystem):  # type: ignore[misc, unused-ignore]
    """A read-only fsspec file system over a mirror.

        fs = fsspec.filesystem("mirror", config="mirror.toml", dataset="train.jsonl")
        data = fs.cat_file("mirror://inaturalist-open-data.s3.amazonaws.com/photos/1/medium.jpg")

    Args:
        config (str | PathLike | None): a configuration file. Default: the files that the command
            `mirror` finds.
        dataset (str | PathLike | None): the dataset whose images are listed. Default: list nothing.
        url_field (str): dotted path of the field with a record's URL. Default: `"image_url"`.
        label_field (str | None): dotted path of the field with its class. Default: list by URL.
        offline (bool | None): read only the caches of this machine. Default: `fetch.offline`.
        settings (Settings | None): settings to use instead of a configuration file.
    """

    protocol = "mirror"
    root_marker = ""

    def __init__(
        self,
        config: str | os.PathLike[str] | None = None,
        *,
        dataset: str | os.PathLike[str] | None = None,
        url_field: str = "image_url",
        label_field: str | None = None,
        offline: bool | None = None,
        settings: Settings | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._settings = settings or load(config=None if config is None else Path(config))
        self._offline = self._settings.fetch.offline if offline is None else offline
        self._dataset = dataset
        self._fields = url_field, label_field
        self._paths: PathTree | None = None
        self._open_index()

    def _open_index(self) -> None:
        index_key = self._settings, self._offline
        if index_key not in _indexes:
            _indexes[index_key] = load_index(self._settings, offline=self._offline)
        index = _indexes[index_key]
        settings = self._settings
        self._images = ImageLookup(index, settings.fetch.match)
        self._fetch = Fetcher(settings, offline=self._offline, index=index)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(entry) for entry in path]
        text = str(path).removeprefix("mirror://")
        for scheme in _SCHEMES:
            text = text.removeprefix(scheme)
        return text.strip("/")

    def invalidate_cache(self, path: str | None = None) -> None:
        """Read the mirror's catalog and the dataset again."""
        self._fetch.close()
        _indexes.pop((self._settings, self._offline), None)
        self._paths = None
        self._open_index()

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        (found,) = self._look_up([path])
        if isinstance(found, MirroredImage):
            return _file(path, found)
        if self._tree.is_folder(path.encode()):
            return _folder(path)
        raise _as_oserror(found, path)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        children = [(raw.decode(), folder) for raw, folder in self._tree.children(path.encode())]
        files = [name for name, folder in children if not folder]
        infos = [_folder(name) for name, folder in children if folder]
        for name, found in zip(files, self._look_up(files), strict=True):
            if isinstance(found, MirroredImage):  # else it was flagged after the listing was made
                infos.append(_file(name, found))
        if not children and path:
            infos = [self.info(path)]
        return infos if detail else sorted(info["name"] for info in infos)

    def glob(self, path: str, maxdepth: int | None = None, **options: Any) -> Any:
        # A URL's question mark is no pattern if the mirror has an image of that name.
        plain = self._strip_protocol(path)
        (found,) = self._look_up([plain])
        if isinstance(found, MirroredImage):
            return {plain: _file(plain, found)} if options.get("detail") else [plain]
        return super().glob(path, maxdepth=maxdepth, **options)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        path = self._strip_protocol(path)
        ((text, found),) = self._look_up_texts([path])
        try:
            if isinstance(found, FetchError):
                raise found
            return self._fetch(text)[start:end]
        except FetchError as error:
            raise _as_oserror(error, path) from error

    def cat(
        self, path: Any, recursive: bool = False, on_error: str = "raise", **options: Any
    ) -> Any:
        """The bytes of one file, or a dict of the bytes of many, which are fetched together."""
        paths = self.expand_path(path, recursive=recursive)
        if isinstance(path, str) and paths == [self._strip_protocol(path)]:
            return self.cat_file(path, **options)
        bodies: dict[str, Any] = {}
        texts = (text for text, _ in self._look_up_texts(paths))
        for name, (_, result) in zip(paths, self._fetch.many(texts), strict=True):
            if not isinstance(result, FetchError):
                bodies[name] = result
            elif on_error == "raise":
                raise _as_oserror(result, name) from result
            elif on_error == "return":
                bodies[name] = _as_oserror(result, name)
        return bodies

    def ukey(self, path: str) -> str:
        """The content hash of a file: the file at a path may change, the one of a hash never does."""
        return str(self.info(path).get("content_hash", ""))

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        if mode != "rb":
            _refuse(path)
        return io.BytesIO(self.cat_file(path))

    @property
    def _tree(self) -> PathTree:
        """The paths of the dataset; empty without a dataset."""
        if self._paths is None:
            self._paths = PathTree(self._listed() if self._dataset is not None else ())
        return self._paths

    def _listed(self) -> Iterator[bytes]:
        assert self._dataset is not None
        url_field, label_field = self._fields
        table, _ = read_table(
            Input(os.fspath(self._dataset)),
            self._images.coverage,
            url_field=url_field,
            label_field=label_field,
            on_missing="drop",
        )
        for first in range(0, len(table), _TOGETHER):
            indices = range(first, min(first + _TOGETHER, len(table)))
            urls = [table.url(index) for index in indices]
            for index, url, found in zip(indices, urls, self._images.find_all(urls), strict=True):
                if not isinstance(found, MirroredImage):
                    continue
                path = path_of(url, found)
                if label_field is not None:
                    name = folder_of(table.classes[int(table.labels[index])])
                    path = f"{name}/{found.key.rpartition('/')[2]}"
                yield path.encode()

    def _look_up(self, paths: Sequence[str]) -> list[MirroredImage | FetchError]:
        """The image or error at each path."""
        return [found for _, found in self._look_up_texts(paths)]

    def _look_up_texts(self, paths: Sequence[str]) -> list[_LookedUp]:
        """The same, with the text to pass to a fetcher: the URL if possible, else the hash.

        Asked for by its hash, an image would be searched under another URL in this machine's cache.
        """
        texts = [_texts(path) for path in paths]
        found = iter(self._images.find_all([text for of_path in texts for text in of_path]))
        return [_best([(text, next(found)) for text in of_path]) for of_path in texts]

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        _refuse(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        _refuse(path)

    def rmdir(self, path: str) -> None:
        _refuse(path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        _refuse(path)

    def rm_file(self, path: str) -> None:
        _refuse(path)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        _refuse(path2)

    def mv(self, path1: str, path2: str, recursive: bool = False, **_: Any) -> None:
        _refuse(path1)


def path_of(url: str, found: MirroredImage) -> str:
    """The path under which a dataset's URL is listed: the URL without its scheme, if that is safe.

    It must lead back to the URL, and stay inside the folder that a listing is copied to;
    `https://host/../x` would not. Otherwise, it is the object's key.
    """
    scheme = next((known for known in _SCHEMES if url.startswith(known)), None)
    if scheme is None:
        return found.key
    path = url.removeprefix(scheme)
    unsafe = any(part in ("", ".", "..") for part in path.split("/"))
    return found.key if unsafe else path


def folder_of(name: str) -> str:
    """The folder name of a class; different classes have different folders."""
    plain = name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return plain if plain.strip(".") else plain.replace(".", "%2E")


def _texts(path: str) -> list[str]:
    """The texts that a path may stand for, the likeliest first."""
    texts = [scheme + path for scheme in _SCHEMES]
    stem = path.rpartition("/")[2].partition(".")[0]
    if parse_content_hash(stem):
        texts.append(stem)
    return texts


def _best(results: Sequence[_LookedUp]) -> _LookedUp:
    """The best result for one path: an image, else a flagged URL."""
    images = (result for result in results if isinstance(result[1], MirroredImage))
    flagged = (result for result in results if isinstance(result[1], Flagged))
    return next(images, next(flagged, results[0]))


def _file(path: str, found: MirroredImage) -> dict[str, Any]:
    content_hash = found.content_hash.hex()
    return {"name": path, "size": found.size, "type": "file", "content_hash": content_hash}


def _folder(path: str) -> dict[str, Any]:
    return {"name": path, "size": 0, "type": "directory"}


def _as_oserror(error: MirroredImage | FetchError, path: str) -> OSError:
    """The error as an OSError, which programs that open files understand, with the same message."""
    if isinstance(error, NotMirrored | Flagged):
        return FileNotFoundError(errno.ENOENT, str(error), path)
    if isinstance(error, OriginBlocked):
        return PermissionError(errno.EACCES, str(error), path)
    if isinstance(error, StoreUnavailable) and not isinstance(error, NotCached):
        return ConnectionError(str(error))
    return OSError(errno.EIO, str(error), path)


def _refuse(path: str | Sequence[str]) -> NoReturn:
    raise OSError(
        errno.EROFS,
        "mirror:// is read-only; add images with mirror sync",
        str(path),
    )
