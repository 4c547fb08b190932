"""Load the settings from mirror.toml, the environment and the command line: one frozen `Settings`.

Nothing else reads them. Layers, highest precedence first:

    flags > environment > files > AWS_ENDPOINT_URL_S3 > defaults

The file that `--config` names is the only one read. Without it the files are ./mirror.toml > the
user's config folder > /etc/mirror/mirror.toml.

An environment variable is `MIRROR_` + section + `__` + key, such as `MIRROR_BUCKET__URL`. Commas
separate the items of a list. An unknown key is an error in every layer. Secrets are never read
here; they come from the AWS chain.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

import msgspec

from mirror.config.settings import Settings, parse_rate, parse_size
from mirror.errors import ConfigError

ENV_PREFIX = "MIRROR_"
SYSTEM_CONFIG = Path("/etc/mirror/mirror.toml")


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of settings: its origin, and its values by dotted keys or nested tables."""

    origin: str
    values: Mapping[str, Any]


def load(
    *,
    config: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Settings:
    """Read, merge and check all layers.

    Args:
        config: a file that the user named; it must exist.
        flags: `{"bucket.url": …}` from the command line; None values are ignored.
        environ: the environment; `os.environ` if None.
        cwd: the folder of `./mirror.toml`; the current folder if None.

    Raises:
        ConfigError: a file cannot be read, a key is unknown, or a value is wrong.
    """
    return merge(read_layers(config=config, flags=flags, environ=environ, cwd=cwd))


def read_layers(
    *,
    config: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> list[Layer]:
    """Read all layers, highest precedence first; the arguments are those of `load`.

    Raises:
        ConfigError: a file cannot be read, or is not TOML.
    """
    environ = os.environ if environ is None else environ
    layers = [Layer("flag", {k: v for k, v in (flags or {}).items() if v is not None})]
    layers.append(_environment_layer(environ))
    layers.extend(_file_layers(config, cwd, environ))
    layers.append(aws_layer(environ))
    return layers


def values_and_origins(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the effective value of every key that is set, and the layer that it comes from.

    Raises:
        ConfigError: an unknown key.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in reversed(layers):
        for key, value in _leaves(layer.values):
            _require_known(key, layer.origin)
            values[key] = value
            origins[key] = layer.origin
    return values, origins


def merge(layers: Sequence[Layer]) -> Settings:
    """Merge layers, highest precedence first, into settings.

    Raises:
        ConfigError: a key is unknown or a value is wrong; the message names its layer.
    """
    merged, origins = values_and_origins(layers)
    for key in (".".join(path) for path in _PATHS):
        if merged.get(key) == "":
            raise ConfigError(
                f"{key} (from {origins[key]}) is empty; write a path, or leave the key out."
            )
        if isinstance(merged.get(key), str):
            if not _can_be_path(merged[key]):
                raise ConfigError(
                    f"{key} (from {origins[key]}) is no path: it has a null byte or a name of more than "
                    "255 bytes."
                )
            merged[key] = str(path_of(merged[key], key))
    url = merged.get("bucket.url")
    if isinstance(url, str) and url.startswith("file://~"):
        merged["bucket.url"] = path_of(url.removeprefix("file://"), "bucket.url").as_uri()
    try:
        settings = msgspec.convert(_nested(merged), Settings, strict=False)
    except msgspec.ValidationError as error:
        sentence, _, path = str(error).partition(" - at `$.")
        key = path.rstrip("`").partition("[")[0]
        origin = origins.get(key, "defaults")
        raise ConfigError(f"{key} (from {origin}) is wrong: {sentence}.") from None
    extensions = settings.cache.extensions
    if not extensions or any(re.search(r"[\s./*?]|^$", text) for text in extensions):
        raise ConfigError(
            f"cache.extensions (from {origins['cache.extensions']}) is wrong; write extensions "
            "without the dot, such as jpg."
        )
    if settings.bucket.url:
        _ = settings.object_urls  # report a wrong address before any work is done
    if settings.sync.limit_rate is not None:
        parse_rate(settings.sync.limit_rate)
    for name in ("bytes_per_hour", "bytes_per_day", "max_size"):
        parse_size(getattr(settings.backfill, name), f"backfill.{name}")
    for name in ("cache_bytes", "bytes_in_flight"):
        parse_size(getattr(settings.fetch, name), f"fetch.{name}")
    return settings


def _can_be_path(text: str) -> bool:
    return "\0" not in text and all(len(os.fsencode(name)) <= 255 for name in text.split("/"))


def _file_layers(
    config: Path | None, cwd: Path | None, environ: Mapping[str, str]
) -> Iterator[Layer]:
    """Read the file that was named, and no other; else every default file that exists."""
    if config is not None:
        yield _read_file(config)
        return
    for path in _default_paths(cwd, environ):
        try:
            exists = path.is_file()
        except OSError:  # this user may not look into the folder
            exists = False
        if exists:
            _require_trusted(path)
            yield _read_file(path)


def _require_trusted(path: Path) -> None:
    """Refuse a file that another user could have put there, such as in the current folder.

    It decides where images go and which checks apply, and nobody named it.

    Raises:
        ConfigError: another user owns it, or every user may write it.
    """
    status = path.stat()
    if why := reason_for_distrust(status.st_uid, status.st_mode, user=os.geteuid()):
        raise ConfigError(
            f"{path} {why}, so it is not read unasked; name it with --config if you trust it."
        )


def reason_for_distrust(owner: int, mode: int, *, user: int) -> str:
    """Say who else could have written a file; empty if only this user or root could."""
    if owner not in (0, user):
        return "belongs to another user"
    return "may be written by every user" if mode & stat.S_IWOTH else ""


def _default_paths(cwd: Path | None, environ: Mapping[str, str]) -> list[Path]:
    """Paths of the configuration files that are read without being named."""
    import platformdirs

    paths = [SYSTEM_CONFIG]
    # Only the environment that was passed in counts, not that of the process.
    home = environ.get("XDG_CONFIG_HOME")
    with suppress(RuntimeError):  # neither HOME nor a line in passwd
        user = Path(home) / "mirror" if home else platformdirs.user_config_path("mirror")
        paths.insert(0, user / "mirror.toml")
    with suppress(FileNotFoundError):  # the folder that the command runs in was deleted
        paths.insert(0, (cwd or Path.cwd()) / "mirror.toml")
    return paths


def _read_file(path: Path) -> Layer:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        deque(_leaves(values), maxlen=0)  # raises here where tables are nested too deeply
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); give this user access, or name another file."
        ) from None
    except ValueError as error:  # also of a number with thousands of digits
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply; mirror.toml has two levels.") from None
    return Layer(str(path), _with_absolute_paths(values, path.parent))


_PATHS = (("cache", "dir"), ("state", "dir"), ("inspect", "known_bad"), ("fetch", "cache_dir"))


def _with_absolute_paths(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """Make paths relative to their file, wherever the command runs."""
    for section, key in _PATHS:
        table = values.get(section)
        # An empty path stays empty; `merge` refuses it.
        if isinstance(table, dict) and isinstance(table.get(key), str) and table[key]:
            table[key] = str(base.absolute() / path_of(table[key], f"{section}.{key}"))
    return values


def path_of(text: str, key: str) -> Path:
    """Return the path of a setting, with `~` expanded.

    Raises:
        ConfigError: the path begins with the home folder of an unknown user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{key} = {text!r} begins with the home folder of an unknown user; write the whole "
            "path."
        ) from None


def _environment_layer(environ: Mapping[str, str]) -> Layer:
    for key in known_keys():
        right = ENV_PREFIX + key.upper().replace(".", "__")
        wrong = right.replace("__", "_")
        if wrong in environ:
            raise ConfigError(
                f"The variable {wrong} is not read; write {right}, with two underscores between section "
                "and key."
            )
    flat: dict[str, Any] = {
        name.removeprefix(ENV_PREFIX).lower().replace("__", "."): value
        for name, value in environ.items()
        if name.startswith(ENV_PREFIX) and "__" in name.removeprefix(ENV_PREFIX)
    }
    for key, kind in _keys_and_types(Settings, ""):
        if key in flat and get_origin(kind) is tuple:
            flat[key] = [item.strip() for item in flat[key].split(",")]
    return Layer("environment", flat)


def aws_layer(environ: Mapping[str, str]) -> Layer:
    """Return the endpoint from the variables of the AWS tools, the layer of lowest precedence."""
    ignored = environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true"
    for name in () if ignored else ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if environ.get(name):
            return Layer(name, {"bucket.endpoint": environ[name]})
    return Layer("AWS_ENDPOINT_URL_S3", {})


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
            yield f"{prefix}{name}", value  # an empty table that is not a section


def known_keys() -> list[str]:
    """Return every dotted key of mirror.toml, in the order of the file."""
    return [key for key, _ in _keys_and_types(Settings, "")]


def _keys_and_types(section: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(section):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _keys_and_types(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field.type


def _known_sections() -> set[str]:
    return {key[:at] for key in known_keys() for at, c in enumerate(key) if c == "."}


def _require_known(key: str, origin: str) -> None:
    known = known_keys()
    if key in known:
        return
    within = [k for k in known if k.startswith(f"{key}.")]  # a section written as a key
    close = within or difflib.get_close_matches(key, [*known, *_known_sections()], n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "known keys are in docs/configuration.md."
    if re.search("secret|password|token|credential|access_?key", key, re.IGNORECASE):
        hint = (
            "a secret does not belong into the configuration. Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in the environment."
        )
    raise ConfigError(f"Unknown key {key} (from {origin}); {hint}")
