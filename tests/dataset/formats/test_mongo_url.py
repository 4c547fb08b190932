"""MongoDB addresses: their parts, the driver's options, and what people see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.dataset.formats.mongo import client_of
from mirror.dataset.formats.mongo_url import MongoUrl
from mirror.errors import ConfigError, UsageError

# --- addresses ---

PLAIN = {"database": "biodiversity", "collection": "plants", "username": None, "password": None}
WITH_USER = {**PLAIN, "username": "u", "password": "p"}
OF_ENVIRONMENT = {"MONGODB_USERNAME": "env-user", "MONGODB_PASSWORD": "env-password"}


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("mongodb://host/biodiversity/plants", {}, PLAIN),
        ("mongodb://u:p@host/biodiversity/plants", {}, WITH_USER),
        ("mongodb://u:p@host:1,other:2/biodiversity/plants", {}, WITH_USER),
        ("mongodb+srv://u:p@cluster.example.org/biodiversity/plants", {}, WITH_USER),
        (
            "mongodb://r%3Ae:r%3Ae%2Fa%40d%3F%23%25s@host/biodiversity/plants",
            {},
            {**PLAIN, "username": "r:e", "password": "r:e/a@d?#%s"},
        ),
        # Not a form's encoding: a plus is a plus, and a lone percent sign itself.
        ("mongodb://u:a+b%c@host/biodiversity/plants", {}, {**WITH_USER, "password": "a+b%c"}),
        (
            "mongodb://host/biodiversity/my%20plants%2F2020",
            {},
            {**PLAIN, "collection": "my plants/2020"},
        ),
        ("mongodb://host/biodiversity/plants.2020", {}, {**PLAIN, "collection": "plants.2020"}),
        (
            "mongodb://host/biodiversity/plants",
            OF_ENVIRONMENT,
            {**PLAIN, "username": "env-user", "password": "env-password"},
        ),
        (
            "mongodb://u@host/biodiversity/plants",
            OF_ENVIRONMENT,
            {**PLAIN, "username": "u", "password": "env-password"},
        ),
        (
            "mongodb://u:@host/biodiversity/plants",
            OF_ENVIRONMENT,
            {**PLAIN, "username": "u", "password": "env-password"},
        ),
        ("mongodb://u:p@host/biodiversity/plants", OF_ENVIRONMENT, WITH_USER),
        ("mongodb://host/biodiversity/plants", dict.fromkeys(OF_ENVIRONMENT, ""), PLAIN),
        (
            "mongodb://CN=me@host/biodiversity/plants?authMechanism=MONGODB-X509&tls=true",
            {},
            {**PLAIN, "username": "CN=me"},
        ),
    ],
)
def test_an_address(text: str, environ: Mapping[str, str], expected: dict[str, Any]) -> None:
    url = MongoUrl.parse(text, environ)
    assert {name: getattr(url, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "uri", "shown"),
    [
        ("mongodb://u:p@host/db/c", "mongodb://host/db", "mongodb://host/db/c"),
        (
            "mongodb://u:p@a:1,[::1]:27018,b/db/c?replicaSet=rs&authSource=admin",
            "mongodb://a:1,[::1]:27018,b/db?replicaSet=rs&authSource=admin",
            "mongodb://a:1,[::1]:27018,b/db/c",
        ),
        (
            "mongodb+srv://u:p@cluster.example.org/db/c?tlsCertificateKeyFilePassword=hunter2",
            "mongodb+srv://cluster.example.org/db?tlsCertificateKeyFilePassword=hunter2",
            "mongodb+srv://cluster.example.org/db/c",
        ),
        (
            "mongodb://%2Frun%2Fmongodb.sock/db/my%20plants",
            "mongodb://%2Frun%2Fmongodb.sock/db",
            "mongodb://%2Frun%2Fmongodb.sock/db/my%20plants",
        ),
        ("mongodb://[fe80::1%25eth0]/db/c?", "mongodb://[fe80::1%25eth0]/db",
         "mongodb://[fe80::1%25eth0]/db/c"),
    ],
)  # fmt: skip
def test_what_the_driver_is_told_and_what_people_see(text: str, uri: str, shown: str) -> None:
    url = MongoUrl.parse(text, {})
    assert (url.uri, url.shown, str(url)) == (uri, shown, shown)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mongodb://",
        "mongodb://host",
        "mongodb://host/db",
        "mongodb://host/db/",
        "mongodb://host//c",
        "mongodb://host/db/c/d",
        "http://u:hunter2@host/db/c",
        "u:hunter2@host/db/c",
        "mongodb://u:hunter2@/db/c",
        "mongodb://u:hunter2/db/c",
        "mongodb://u:hun/ter2@host/db/c",
        "mongodb://u:hun@ter2@host/db/c",
        "mongodb://u:hun:ter2@host/db/c",
        "mongodb://u:hun?ter2@host/db/c",
        "mongodb://u:hun#ter2@host/db/c",
        "mongodb://:hunter2@host/db/c",
        "mongodb://@host/db/c",
        # All of it escaped, and not the password alone.
        "mongodb://u%3Ahunter2%40host/db/c",
        "mongodb://u:hunter2@a,,b/db/c",
        "mongodb://u:hunter2@a b/db/c",
        "mongodb://u:hunter2@host:port/db/c",
        "mongodb://u:hunter2@[::1/db/c",
        "mongodb://u:hunter2@host/db/c#x",
    ],
)
def test_what_is_no_address_is_refused_and_never_quoted(text: str) -> None:
    with pytest.raises(UsageError, match="not understood; write mongodb://") as refused:
        MongoUrl.parse(text, {})
    for part in ("hun", "ter2"):
        assert part not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("mongodb://u@host/db/c", {}),
        ("mongodb://u:@host/db/c?authSource=admin", {}),
        ("mongodb://host/db/c", {"MONGODB_USERNAME": "u"}),
    ],
)
def test_a_user_without_a_password_is_told_where_it_goes(
    text: str, environ: Mapping[str, str]
) -> None:
    with pytest.raises(ConfigError, match="no password; give it in MONGODB_PASSWORD"):
        MongoUrl.parse(text, environ)


@settings(deadline=None)
@given(
    username=st.text(st.characters(codec="utf-8"), min_size=1),
    password=st.text(st.characters(codec="utf-8"), min_size=1),
)
def test_any_user_and_password_can_be_escaped(username: str, password: str) -> None:
    text = f"mongodb://{quote(username, safe='')}:{quote(password, safe='')}@host/db/c?tls=true"
    url = MongoUrl.parse(text, {})
    options = url.client_options()
    assert (options["username"], options["password"]) == (username, password)
    assert (url.uri, f"{url}") == ("mongodb://host/db?tls=true", "mongodb://host/db/c")
    assert repr(url) == "MongoUrl(shown='mongodb://host/db/c', database='db', collection='c')"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {"serverSelectionTimeoutMS": 10_000, "socketTimeoutMS": 300_000, "appname": "mirror"}),
        ("?tls=true", {"serverSelectionTimeoutMS": 10_000, "socketTimeoutMS": 300_000}),
        ("?serverselectiontimeoutms=5", {"serverSelectionTimeoutMS": None}),
        ("?socketTimeoutMS=0&appName=x", {"socketTimeoutMS": None, "appname": None}),
        ("?timeoutMS=5000", {"socketTimeoutMS": None, "connectTimeoutMS": 10_000}),
    ],
)
def test_what_an_address_says_is_stronger_than_the_defaults(
    options: str, expected: dict[str, Any]
) -> None:
    found = MongoUrl.parse(f"mongodb://host/db/c{options}", {}).client_options()
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("username", "password", "said", "shown"),
    [
        ("u", "hunter2", "no hunter2 here", "no … here"),
        ("u", "a b/c", "login 'u:a b/c' (u:a%20b%2Fc)", "login '…:…' (…:…)"),
        ("rehab", "rehab-2020", "rehab-2020 of rehab", "… of …"),
        ("u", ".*", "all.* of it", "all.* of it"),
        ("u", ".*", "all .* of it", "all … of it"),
        # A gap in a word that everybody knows would tell what the password is.
        ("re", "us", "Connection refused", "Connection refused"),
        (None, None, "Connection refused", "Connection refused"),
    ],
)
def test_foreign_messages_are_shown_without_secrets(
    username: str | None, password: str | None, said: str, shown: str
) -> None:
    url = MongoUrl("mongodb://host/db", "mongodb://host/db/c", "db", "c", username, password)
    assert url.without_secrets(said) == shown


@pytest.mark.filterwarnings("default")  # as outside of tests
@pytest.mark.parametrize(
    "options",
    [
        "hunter2",
        "pasword=hunter2",
        "proxyPassword=hunter2",
        "tlsCertificateKeyFilePassword=hunter2&tls=maybe",
        "tlsCertificateKeyFilePassword=hunter2&tls=true&tlsCertificateKeyFile=/nonexistent",
        "authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKN:hunter2",
        "authMechanism=hunter2",
        "authSource=",
        "maxIdleTimeMS=soon",
        "readPreference=best",
        "compressors=rar",
    ],
)
def test_options_that_are_wrong_are_an_error_and_show_no_secret(options: str) -> None:
    url = MongoUrl.parse(f"mongodb://u:hunter2@127.0.0.1:1/db/c?connect=false&{options}", {})
    with pytest.raises(UsageError, match="^mongodb://127.0.0.1:1/db/c cannot be used: ") as refused:
        client_of(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "mongodb://a.mongo.cosmos.azure.com:10255/db/c?connect=false&ssl=true",
        "mongodb://a.docdb.amazonaws.com/db/c?connect=false&retryWrites=false",
        "mongodb://host/db/c?connect=false&compressors=zstd,snappy,zlib",
    ],
    ids=["Cosmos DB", "DocumentDB", "a compression that is not installed"],
)
def test_what_the_driver_only_remarks_on_is_no_error(text: str) -> None:
    with client_of(MongoUrl.parse(text, {})) as client:
        assert client.get_default_database().name == "db"
