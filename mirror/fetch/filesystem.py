"""`mirror://` for fsspec: pandas, datasets and whatever else opens files by it read the mirror.

    mirror://inaturalist-open-data.s3.amazonaws.com/photos/1/medium.jpg    an original URL
    mirror://https://inaturalist-open-data.s3.amazonaws.com/photos/1/…     the same, with its scheme
    mirror://objects/ab/ab….jpg, mirror://ab….jpg, mirror://ab…            an object, by its hash

A path is a URL without its scheme, so that no path holds a second `://`: programs that find one take
it for the address to go to. What is named like neither is looked for by its last piece, when that is
a content hash: `any/folder/ab….jpg`.

A mirror has no folders, a dataset has: with `dataset=FILE` its images are listed, by their URLs, or
with `label_field=NAME` in a folder for each class, as `imagefolder` and torchvision expect.
Reading only: what goes into a mirror goes in by `mirror sync`.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from fsspec.spec import AbstractFileSystem

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
_Named = tuple[str, MirroredImage | Flagged | NotMirrored]
# An index for the life of the process, and of those that it forks: fsspec makes file systems anew
# in a forked child, where deltalake, which has been at work in the parent, cannot read a catalog.
_indexes: dict[tuple[Settings, bool], Index] = {}


class MirrorFileSystem(AbstractFileSystem):  # type: ignore[misc, unused-ignore]
    """Files of a mirror, read only.

    Args:
        config: a configuration file; None looks where `mirror` does.
        dataset: lists the images of this dataset; None lists nothing.
        url_field: dotted path of the field that holds a record's URL.
        label_field: dotted path of the field that holds its class; None lists by URLs.
        offline: ask only caches of this machine.
        settings: in place of a configuration file.
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
        which = self._settings, self._offline
        if which not in _indexes:
            _indexes[which] = load_index(self._settings, offline=self._offline)
        index = _indexes[which]
        settings = self._settings
        self._images = ImageLookup(index, settings.fetch.match)
        self._fetch = Fetcher(settings, offline=self._offline, index=index)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = str(path).removeprefix("mirror://")
        for scheme in _SCHEMES:
            text = text.removeprefix(scheme)
        return text.strip("/")

    def invalidate_cache(self, path: str | None = None) -> None:
        """Look at the mirror's catalog and at the dataset again."""
        self._fetch.close()
        _indexes.pop((self._settings, self._offline), None)
        self._paths = None
        self._open_index()

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        (found,) = self._found([path])
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
        for name, found in zip(files, self._found(files), strict=True):
            if isinstance(
                found, MirroredImage
            ):  # else the mirror has flagged it since it was listed
                infos.append(_file(name, found))
        if not children and path:
            infos = [self.info(path)]
        return infos if detail else sorted(one["name"] for one in infos)

    def glob(self, path: str, maxdepth: int | None = None, **options: Any) -> Any:
        # A query's question mark is no pattern where there is such an image.
        plain = self._strip_protocol(path)
        (found,) = self._found([plain])
        if isinstance(found, MirroredImage):
            return {plain: _file(plain, found)} if options.get("detail") else [plain]
        return super().glob(path, maxdepth=maxdepth, **options)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        path = self._strip_protocol(path)
        ((text, found),) = self._named([path])
        try:
            if isinstance(found, FetchError):
                raise found
            return self._fetch(text)[start:end]
        except FetchError as error:
            raise _as_oserror(error, path) from error

    def cat(
        self, path: Any, recursive: bool = False, on_error: str = "raise", **options: Any
    ) -> Any:
        """One file's bytes, or a dict of many files', which are fetched together."""
        paths = self.expand_path(path, recursive=recursive)
        if isinstance(path, str) and paths == [self._strip_protocol(path)]:
            return self.cat_file(path, **options)
        bodies: dict[str, Any] = {}
        texts = (text for text, _ in self._named(paths))
        for one, (_, result) in zip(paths, self._fetch.many(texts), strict=True):
            if not isinstance(result, FetchError):
                bodies[one] = result
            elif on_error == "raise":
                raise _as_oserror(result, one) from result
            elif on_error == "return":
                bodies[one] = _as_oserror(result, one)
        return bodies

    def ukey(self, path: str) -> str:
        """The content hash: what a path names may change, what a hash names never does."""
        return str(self.info(path).get("content_hash", ""))

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        if mode != "rb":
            _refuse(path)
        return io.BytesIO(self.cat_file(path))

    @property
    def _tree(self) -> PathTree:
        """The paths of the dataset; none where there is no dataset."""
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
                    name = folder_of(table.classes[table.label(index)])
                    path = f"{name}/{found.key.rpartition('/')[2]}"
                yield path.encode()

    def _found(self, paths: Sequence[str]) -> list[MirroredImage | FetchError]:
        """What the mirror has under each path."""
        return [found for _, found in self._named(paths)]

    def _named(self, paths: Sequence[str]) -> list[_Named]:
        """The same, and what to ask a fetcher for.

        By its content, an image would be looked for under another URL in this machine's cache.
        """
        texts = [_texts(path) for path in paths]
        answers = iter(self._images.find_all([text for of_one in texts for text in of_one]))
        return [_best([(text, next(answers)) for text in of_one]) for of_one in texts]

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
    """The path under which a dataset's URL is listed.

    The URL without its scheme, if that leads back to it and stays where it is put when a listing is
    copied into a folder: `https://host/../x` does not. Else the object's own.
    """
    scheme = next((one for one in _SCHEMES if url.startswith(one)), None)
    if scheme is None:
        return found.key
    path = url.removeprefix(scheme)
    odd = any(piece in ("", ".", "..") for piece in path.split("/"))
    return found.key if odd else path


def folder_of(name: str) -> str:
    """A class's name as that of a folder; another class has another."""
    plain = name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return plain if plain.strip(".") else plain.replace(".", "%2E")


def _texts(path: str) -> list[str]:
    """What a path may stand for, the likeliest first."""
    texts = [scheme + path for scheme in _SCHEMES]
    stem = path.rpartition("/")[2].partition(".")[0]
    if parse_content_hash(stem):
        texts.append(stem)
    return texts


def _best(answers: Sequence[_Named]) -> _Named:
    """Of what there is for one path: an image, else a verdict."""
    found = (one for one in answers if isinstance(one[1], MirroredImage))
    flagged = (one for one in answers if isinstance(one[1], Flagged))
    return next(found, next(flagged, answers[0]))


def _file(path: str, found: MirroredImage) -> dict[str, Any]:
    content_hash = found.content_hash.hex()
    return {"name": path, "size": found.size, "type": "file", "content_hash": content_hash}


def _folder(path: str) -> dict[str, Any]:
    return {"name": path, "size": 0, "type": "directory"}


def _as_oserror(error: MirroredImage | FetchError, path: str) -> OSError:
    """What a program that opens files understands, with the sentence that says what happened."""
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
        "mirror:// is for reading only; what goes into a mirror goes in by mirror sync",
        str(path),
    )
