"""Settings: the precedence of layers, and the errors for misspelt and invalid values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.config import loading
from mirror.config.loading import Layer, known_keys, load, merge, reason_for_distrust
from mirror.config.settings import Settings, parse_rate, parse_size
from mirror.errors import ConfigError

Load = Callable[..., Settings]


@pytest.fixture
def load_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """`load` with only the files and variables of the test."""
    monkeypatch.setattr(loading, "SYSTEM_CONFIG", tmp_path / "etc" / "mirror.toml")
    home = {"XDG_CONFIG_HOME": str(tmp_path / "home")}

    def load_with(environ: dict[str, str] | None = None, **arguments: Any) -> Settings:
        return load(environ=home | (environ or {}), cwd=tmp_path / "cwd", **arguments)

    return load_with


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_higher_layer_hides_lower_ones(load_here: Load, tmp_path: Path) -> None:
    def region(name: str, path: Path) -> Path:
        return write(path, f'[bucket]\nregion = "{name}"\n')

    named = region("named", tmp_path / "elsewhere" / "special.toml")
    here = region("here", tmp_path / "cwd" / "mirror.toml")
    user = region("user", tmp_path / "home" / "mirror" / "mirror.toml")
    system = region("system", tmp_path / "etc" / "mirror.toml")
    flags = {"bucket.region": "flag"}
    variables = {"MIRROR_BUCKET__REGION": "variable"}

    assert load_here(variables, config=named, flags=flags).bucket.region == "flag"
    assert load_here(variables, config=named).bucket.region == "variable"
    assert load_here(config=named).bucket.region == "named"
    assert load_here().bucket.region == "here"
    here.unlink()
    assert load_here().bucket.region == "user"
    user.unlink()
    assert load_here().bucket.region == "system"
    system.unlink()
    assert load_here().bucket.region is None


def test_layers_are_merged_key_by_key(load_here: Load, tmp_path: Path) -> None:
    write(tmp_path / "cwd" / "mirror.toml", '[bucket]\nurl = "s3://b"\nregion = "here"\n')
    settings = load_here({"MIRROR_BUCKET__REGION": "variable", "MIRROR_SYNC__CONCURRENCY": "7"})
    assert (settings.bucket.url, settings.bucket.region) == ("s3://b", "variable")
    assert settings.sync.concurrency == 7


def test_a_missing_flag_sets_nothing(load_here: Load) -> None:
    variables = {"MIRROR_BUCKET__REGION": "variable"}
    assert load_here(variables, flags={"bucket.region": None}).bucket.region == "variable"


def test_a_named_file_is_the_only_one_that_is_read(load_here: Load, tmp_path: Path) -> None:
    hostile = '[bucket]\nendpoint = "https://elsewhere.example"\n[sync]\ninspect = "off"\n'
    for folder in ("cwd", "home/mirror", "etc"):
        write(tmp_path / folder / "mirror.toml", hostile)
    named = write(tmp_path / "mine.toml", '[bucket]\nurl = "s3://b"\n')
    settings = load_here(config=named)
    assert (settings.bucket.url, settings.bucket.endpoint) == ("s3://b", None)
    assert settings.sync.inspect == "decode"


@pytest.mark.parametrize("folder", ["cwd", "home/mirror", "etc"])
def test_a_file_that_every_user_may_write_is_refused_unless_named(
    load_here: Load, tmp_path: Path, folder: str
) -> None:
    path = write(tmp_path / folder / "mirror.toml", '[bucket]\nurl = "s3://b"\n')
    path.chmod(0o666)
    with pytest.raises(ConfigError, match=r"may be written by every user.*--config"):
        load_here()
    assert load_here(config=path).bucket.url == "s3://b"
    path.chmod(0o644)
    assert load_here().bucket.url == "s3://b"


@pytest.mark.parametrize(
    ("owner", "mode", "reason"),
    [
        (1000, 0o100644, ""),
        (1000, 0o100664, ""),
        (0, 0o100644, ""),  # root may write anywhere, so its file is as good as one's own
        (1001, 0o100644, "belongs to another user"),
        (1001, 0o100600, "belongs to another user"),
        (1000, 0o100646, "may be written by every user"),
        (0, 0o100666, "may be written by every user"),
    ],
)
def test_the_owner_and_the_mode_say_whether_a_file_is_trusted(
    owner: int, mode: int, reason: str
) -> None:
    assert reason_for_distrust(owner, mode, user=1000) == reason


UNKNOWN = [
    ("[bucket]\nurll = 's3://b'", "bucket.urll", "bucket.url"),
    ("[bukcet]\nurl = 's3://b'", "bukcet.url", "bucket.url"),
    ("[bukcet]\n", "bukcet", "bucket"),
    ("bucket = 's3://b'", "bucket", "bucket.url"),
    ("[bucket.url]\nx = 1", "bucket.url.x", "bucket.url"),
    ("[[cache]]\ndir = 'x'", "cache", "cache.dir"),
    ("[prices.r2]\negress = 1", "prices.r2.egress", "prices.r2.egress_gb"),
]


@pytest.mark.parametrize(("text", "key", "suggestion"), UNKNOWN)
def test_an_unknown_key_in_a_file_names_itself_the_file_and_the_likely_one(
    text: str, key: str, suggestion: str, load_here: Load, tmp_path: Path
) -> None:
    path = write(tmp_path / "cwd" / "mirror.toml", text)
    with pytest.raises(ConfigError) as caught:
        load_here()
    said = str(caught.value)
    assert f"{key} (from {path})" in said
    assert f"did you mean {suggestion}" in said


@pytest.mark.parametrize(
    ("variables", "key"),
    [
        ({"MIRROR_BUCKET__URLL": "s3://b"}, "bucket.urll"),
        ({"MIRROR_BUKCET__URL": "s3://b"}, "bukcet.url"),
        ({"MIRROR_BUCKET__URL__X": "1"}, "bucket.url.x"),
        ({"MIRROR_BUCKET__URL": "s3://b", "MIRROR_BUCKET__URL__X": "1"}, "bucket.url.x"),
    ],
)
def test_an_unknown_key_in_the_environment_is_an_error(
    variables: dict[str, str], key: str, load_here: Load
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_here(variables)
    assert f"{key} (from environment)" in str(caught.value)
    assert "did you mean bucket.url" in str(caught.value)


def test_a_list_in_the_environment_has_commas(load_here: Load) -> None:
    settings = load_here(
        {
            "MIRROR_BACKFILL__LICENSES": "cc0, cc-by",
            "MIRROR_BACKFILL__HOSTS": "img.example.org:8080",
            "MIRROR_CACHE__EXTENSIONS": "jpg,png",
            "MIRROR_BUCKET__REGION": "a,b",
        }
    )
    assert settings.backfill.licenses == ("cc0", "cc-by")
    assert settings.backfill.hosts == ("img.example.org:8080",)
    assert settings.cache.extensions == ("jpg", "png")
    assert settings.bucket.region == "a,b"


def test_an_empty_variable_is_not_any_licence(load_here: Load) -> None:
    assert load_here({"MIRROR_BACKFILL__LICENSES": ""}).backfill.licenses != ()


@pytest.mark.parametrize("extensions", [[".jpg"], ["jpg", "*.png"], ["tar.gz"], [""], [" jpg"], []])
def test_an_extension_that_no_name_can_have_is_refused(extensions: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"cache\.extensions.*such as jpg"):
        merge([Layer("file", {"cache": {"extensions": extensions}})])


PATHS = ["cache.dir", "state.dir", "inspect.known_bad", "fetch.cache_dir"]


@pytest.mark.parametrize("key", PATHS)
def test_an_empty_path_is_refused_in_every_layer(key: str, load_here: Load, tmp_path: Path) -> None:
    section, name = key.split(".")
    path = write(tmp_path / "m.toml", f'[{section}]\n{name} = ""\n')
    variable = {f"MIRROR_{section}__{name}".upper(): ""}
    layers: list[tuple[str, dict[str, Any]]] = [
        (str(path), {"config": path}),
        ("environment", {"environ": variable}),
        ("flag", {"flags": {key: ""}}),
    ]
    for origin, arguments in layers:
        with pytest.raises(ConfigError) as caught:
            load_here(**arguments)
        assert f"{key} (from {origin}) is empty" in str(caught.value)


def test_an_unknown_flag_is_an_error(load_here: Load) -> None:
    with pytest.raises(ConfigError, match=r"sync\.concurency \(from flag\).*sync\.concurrency"):
        load_here(flags={"sync.concurency": 3})


def test_a_variable_without_a_known_section_is_ignored(load_here: Load) -> None:
    assert load_here({"MIRROR_BUCKET": "x", "MIRRORS__X": "y"}) == Settings()


@pytest.mark.parametrize(
    "key", ["cache.dir", "bucket.url", "sync.limit_rate", "prices.r2.egress_gb"]
)
def test_a_variable_with_one_underscore_too_few_is_told(load_here: Load, key: str) -> None:
    wrong, right = (f"MIRROR_{key.upper().replace('.', u)}" for u in ("_", "__"))
    with pytest.raises(ConfigError, match=f"{wrong} is not read; write {right}, with two under"):
        load_here({wrong: "x"})


@pytest.mark.parametrize(
    "key", ["bucket.aws_secret_access_key", "bucket.access_key_id", "s3.token", "bucket.password"]
)
def test_a_secret_in_the_configuration_is_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError, match="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS") as told:
        merge([Layer("file", {key: "hunter2"})])
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize("origin", ["flag", "environment", "file"])
def test_home_is_understood_in_every_layer(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    found = merge([Layer(origin, {"cache.dir": "~/images", "bucket.url": "file://~/mirror"})])
    assert (found.cache.dir, found.bucket.url) == ("/home/ada/images", "file:///home/ada/mirror")


WRONG = [
    ("bucket.url", 5),
    ("bucket.engine", "s5cmd"),
    ("cache.dir", ["a"]),
    ("cache.extensions", "jpg"),
    ("cache.extensions", [1]),
    ("sync.concurrency", 0),
    ("sync.concurrency", 2000),
    ("sync.concurrency", "many"),
    ("sync.concurrency", True),
    ("sync.commit_rows", 0),
    ("sync.commit_seconds", 0),
    ("sync.inspect", "maybe"),
    ("sync.limit_rate", 20),
    ("prices.s3.egress_gb", -1),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_value_of_the_wrong_kind_names_its_key_and_its_origin(key: str, value: object) -> None:
    *sections, leaf = key.split(".")
    values: dict[str, Any] = {leaf: value}
    for section in reversed(sections):
        values = {section: values}
    with pytest.raises(ConfigError) as caught:
        merge([Layer("the-layer", values)])
    assert key in str(caught.value)
    assert "from the-layer" in str(caught.value)


def test_one_price_can_be_set_without_the_others() -> None:
    settings = merge([Layer("file", {"prices": {"r2": {"storage_gb_month": 1.5}}})])
    assert settings.prices.r2.storage_gb_month == 1.5
    assert settings.prices.r2.write_million == Settings().prices.r2.write_million


@pytest.mark.parametrize("text", ["[bucket", "\x00", "[a]\n[a]\n"])
def test_a_file_that_is_not_toml_is_an_error_naming_it(
    text: str, load_here: Load, tmp_path: Path
) -> None:
    path = write(tmp_path / "bad.toml", text)
    with pytest.raises(ConfigError, match="bad.toml is not valid TOML"):
        load_here(config=path)


def test_a_named_file_must_be_there(load_here: Load, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent.toml cannot be read"):
        load_here(config=tmp_path / "absent.toml")


def test_folders_in_a_file_are_relative_to_the_file(load_here: Load, tmp_path: Path) -> None:
    text = '[cache]\ndir = "images"\n[state]\ndir = "/var/state"\n'
    settings = load_here(config=write(tmp_path / "elsewhere" / "m.toml", text))
    assert settings.cache_dir == tmp_path / "elsewhere" / "images"
    assert settings.state.dir == "/var/state"


def test_home_is_understood_in_a_file(
    load_here: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    path = write(tmp_path / "m.toml", '[cache]\ndir = "~/images"\n')
    assert load_here(config=path).cache_dir == Path("/home/someone/images")


def test_an_unknown_home_is_reported(load_here: Load, tmp_path: Path) -> None:
    path = write(tmp_path / "m.toml", '[cache]\ndir = "~nobody-has-this-name/x"\n')
    with pytest.raises(ConfigError, match="cache.dir = .*unknown user"):
        load_here(config=path)


def test_a_user_without_a_home_has_no_layer_and_is_asked_for_a_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(_: int) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    flags = {"bucket.url": "file:///m", "cache.dir": "/c"}
    settings = load(environ={}, cwd=tmp_path, flags=flags)
    with pytest.raises(ConfigError, match=r"set state\.dir"):
        _ = settings.state_dir
    assert load(environ={}, cwd=tmp_path, flags=flags | {"state.dir": "/s"}).state_dir


RATES = [
    ("500", 500.0),
    ("500K", 500 * 1024.0),
    ("20M", 20 * 1024.0**2),
    ("20m", 20 * 1024.0**2),
    ("20MB", 20 * 1024.0**2),
    ("20MiB/s", 20 * 1024.0**2),
    (" 1.5 G ", 1.5 * 1024**3),
]


@pytest.mark.parametrize(("text", "rate"), RATES)
def test_rates_are_powers_of_1024(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "0", "0.0M", "-1M", "fast", "20X", "1e6", "M", "20 M M", "1.", "nan", "inf"]
)
def test_a_rate_that_is_not_positive_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not understood"):
        parse_rate(text)
    with pytest.raises(ConfigError):
        merge([Layer("flag", {"sync": {"limit_rate": text}})])


@given(st.integers(1, 10**12), st.sampled_from("KMG"))
def test_a_unit_multiplies(number: int, unit: str) -> None:
    factor = 1024 ** ("KMG".index(unit) + 1)
    assert parse_rate(f"{number}{unit}") == pytest.approx(number * factor)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("4.5G", 4_500_000_000), ("500 K", 500_000), ("20MB", 20_000_000), ("1TiB", 10**12)],
)
def test_a_size_is_in_powers_of_a_thousand(text: str, size: int) -> None:
    assert parse_size(text, "x") == size


@pytest.mark.parametrize("text", ["", "0", "0.2", "-1M", "much", "20X", "1e6", "20M/s", "nan"])
@pytest.mark.parametrize("key", ["bytes_per_hour", "bytes_per_day", "max_size"])
def test_an_invalid_size_is_refused_with_its_key(text: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"backfill\.{key}.*not understood"):
        merge([Layer("flag", {"backfill": {key: text}})])


@pytest.mark.parametrize("text", ["", "0", "-1G", "20M/s", "1e9", "many", "1P"])
@pytest.mark.parametrize("key", ["cache_bytes", "bytes_in_flight"])
def test_an_invalid_size_of_the_fetch_cache_is_refused(text: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"fetch\.{key}.*not understood"):
        merge([Layer("test", {"fetch": {key: text}})])


@pytest.mark.parametrize("url", ["", "plants", "http://b/x", "s3://", "s3:///x", "s3://b/../x"])
def test_a_bucket_url_that_is_not_one_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"bucket\.url"):
        _ = merge([Layer("file", {"bucket": {"url": url}})]).bucket_url


def test_a_missing_setting_is_an_error_with_its_name() -> None:
    with pytest.raises(ConfigError, match="MIRROR_BUCKET__URL"):
        _ = Settings().bucket_url
    with pytest.raises(ConfigError, match="MIRROR_CACHE__DIR"):
        _ = Settings().cache_dir


def settings_of(url: str, endpoint: str | None, cache: str, state: str | None = "/s") -> Settings:
    sections = {
        "bucket": {"url": url, "endpoint": endpoint},
        "cache": {"dir": cache},
        "state": {"dir": state},
    }
    return merge([Layer("test", sections)])


def test_every_pair_of_mirror_and_cache_has_its_own_state(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    here = str(tmp_path)
    distinct = [
        settings_of("s3://b/x", None, here),
        settings_of("s3://b/y", None, here),
        settings_of("s3://c/x", None, here),
        settings_of("s3://b/x", "https://r2.example.org", here),
        settings_of("s3://b/x", None, here + "/sub"),
    ]
    folders = [settings.state_dir for settings in distinct]
    assert len(set(folders)) == len(folders)
    assert all(folder.parent == Path("/s") for folder in folders)
    assert settings_of("s3://b/x/", None, str(tmp_path / "link")).state_dir == folders[0]


def test_the_name_of_a_state_does_not_change_between_versions() -> None:
    folder = settings_of("s3://plants/inat", "https://e.example.org", "/no/such/cache").state_dir
    assert folder == Path("/s/plants-inat-650ac1462614")


@pytest.mark.usefixtures("clean_environment")
def test_the_state_is_in_the_platforms_folder_by_default(tmp_path: Path) -> None:
    folder = settings_of("s3://b", None, "/c", state=None).state_dir
    assert folder.is_relative_to(tmp_path / "state-home" / "mirror")


@pytest.mark.parametrize(
    ("endpoint", "vendor"),
    [
        (None, "s3"),
        ("https://s3.example.org", "s3"),
        ("https://a.r2.cloudflarestorage.com", "r2"),
    ],
)
def test_prices_follow_the_endpoint(endpoint: str | None, vendor: str) -> None:
    settings = settings_of("s3://b", endpoint, "/c")
    assert settings.price_list == getattr(settings.prices, vendor)


def test_every_known_key_can_be_set_by_its_name() -> None:
    assert {"cache.dir", "bucket.url", "state.dir", "prices.r2.egress_gb"} <= set(known_keys())
    for key in known_keys():
        with pytest.raises(ConfigError, match=f"{key}.*from flag"):
            load(environ={}, cwd=Path("/nonexistent"), flags={key: object()})
