"""No command prints, writes or stores a secret, in success or failure.

Every command runs as a process with marked secrets in its environment. Then the test searches its
output, its requests and its files for them. The access key's id is not a secret.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import click
import pytest

from mirror.cli.main import COMMANDS, mirror, run
from mirror.config.loading import load
from mirror.errors import MirrorError
from mirror.store.base import Create, Headers, Store, list_all
from mirror.store.retry import RetryPolicy
from mirror.store.s3_access import S3Access
from tests.cli.test_reporting import Monitor
from tests.conftest import MakePlace, Place
from tests.servers import S3Server
from tests.support.fault_proxy import Answer, FaultProxy, Request
from tests.support.photos import blank, fill, photo, url_of

MARK = "m4rkedSecret"
KEY, TOKEN = f"{MARK}+key/x", f"{MARK}+token/x"
PASSWORD = f"{MARK}-password"
# A presigned URL's signature opens the object to every reader.
TOLD_BY_SIGNED_URLS = (b"X-Amz-Signature", b"X-Amz-Security-Token")

# The arguments of every command, with a password in each address that may have one.
MONGO = f"mongodb://someone:{PASSWORD}@127.0.0.1:9/db/plants?serverSelectionTimeoutMS=100"
CASES = {
    "init": ["--cache=cache", "--bucket={bucket}", "--endpoint={endpoint}", "--region=us-east-1", "--force", "-o", "new.toml"],
    "sync": ["--dataset=in.jsonl"],
    "rewrite": ["in.jsonl", "-o", "signed.jsonl", "--scheme=presigned", "--force"],
    "export": [MONGO, "-o", "out.jsonl"],
    "backfill": ["in.jsonl", "--contact=a@example.org"],
    "verify": ["--full", "--report=wrong.jsonl"],
    "repair": ["--report=wrong.jsonl"],
    "rebuild-state": [],
    "gc": ["--grace-days=2"],
    "pull": ["--cache=pulled"],
    "inspect": ["--csv=verdicts.csv", "--sheet=sheet.html"],
    "duplicates": ["--mirror", "--csv=copies.csv", "--sheet=copies.html"],
    "quarantine": ["--to=bad"],
    "fetch": [url_of(1), url_of(77), "-o", "fetched"],
    "prefetch": ["in.jsonl", "--fetch-cache=fast"],
    "schedule": ["--cron", "--dry-run"],
    "status": [],
    "doctor": [],
    "config show": ["--origin"],
    "config check": [],
    "completion": ["bash"],
    "help": ["sync"],
    "demo": ["--images=20"],
}  # fmt: skip
# Other commands with a dataset's address, which may have a password.
MORE = {
    "sync": ["--dataset", MONGO],
    "rewrite": [MONGO, "-o", "out.jsonl"],
    "backfill": [MONGO, "--contact=a@example.org"],
    "pull": ["--dataset", MONGO],
    "prefetch": [MONGO, "--fetch-cache=fast"],
}


def leaves() -> Iterator[str]:
    for name in COMMANDS:
        command = mirror.get_command(click.Context(mirror), name)
        if isinstance(command, click.Group):
            yield from (f"{name} {inner}" for inner in command.commands)
        else:
            yield name


def test_every_command_has_a_case() -> None:
    assert CASES.keys() == set(leaves())


class Bench:
    """A cache, a bucket on a server that accepts every key, a monitor, and a folder for runs."""

    def __init__(
        self,
        folder: Path,
        place: Place,
        endpoint: str,
        monitor: Monitor,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self._capsys = capsys
        self.folder = folder
        self.place = place
        self.endpoint = endpoint
        self.monitor = monitor
        fill(folder / "cache", {url_of(n): photo(n) for n in range(3)} | {url_of(9): blank()})
        # The last one is on a host that is not allowed.
        urls = [*map(url_of, range(3)), "https://img.example.org/1.jpg"]
        (folder / "in.jsonl").write_text("".join(f'{{"image_url": "{url}"}}\n' for url in urls))

    @property
    def environment(self) -> dict[str, str]:
        settings = {
            "CACHE__DIR": str(self.folder / "cache"),
            "STATE__DIR": str(self.folder / "state"),
            "METRICS_FILE": str(self.folder / "{command}.prom"),
            "PING": f"{self.monitor.url}/{MARK}",
            **{f"BUCKET__{name.upper()}": value for name, value in self.place.layer.items()},
            "BUCKET__ENDPOINT": self.endpoint,
        }
        ours = {f"MIRROR_{name}": value for name, value in settings.items()}
        aws = {"AWS_SECRET_ACCESS_KEY": KEY, "AWS_SESSION_TOKEN": TOKEN}
        return {**os.environ, **ours, **aws}

    def run(self, name: str, words: list[str], *how: str) -> str:
        """Run a command as a process. Returns all its output."""
        there = {"bucket": self.place.layer["url"], "endpoint": self.endpoint}
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "mirror",
                *how,
                *name.split(),
                *(w.format(**there) for w in words),
            ],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            check=False,
            timeout=120,
        )
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert "unexpected" not in said, f"{name}: {said}"
        return f"{name} {how}: exit status {done.returncode}\n{said}"

    def run_all(self, cases: Mapping[str, list[str]], *how: str) -> dict[str, str]:
        return {name: self.run(name, words, *how) for name, words in cases.items()}

    def call(self, name: str, words: list[str], *how: str, **more: str) -> str:
        """Run a command in this process, which is faster."""
        there = {"bucket": self.place.layer["url"], "endpoint": self.endpoint}
        self._capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(RetryPolicy, "pause", lambda *_: 0.0)
            for variable, value in {**self.environment, **more}.items():
                patch.setenv(variable, value)
            status = run([*how, *name.split(), *(w.format(**there) for w in words)])
        said = "".join(self._capsys.readouterr())
        assert "unexpected" not in said, f"{name}: {said}"
        return f"{name} {how}: exit status {status}\n{said}"

    def call_all(self, cases: Mapping[str, list[str]], *how: str, **more: str) -> dict[str, str]:
        return {name: self.call(name, words, *how, **more) for name, words in cases.items()}

    def search(self) -> None:
        """Search every file, the bucket and the monitor's requests for the secrets."""
        for path in self.folder.rglob("*"):
            if path.is_file():
                body = path.read_bytes()
                # This file must have signed URLs, which contain temporary keys.
                if path.name != "signed.jsonl":
                    silent(body, path)
        for _, _, body_heard in self.monitor.heard:
            silent(body_heard.encode(), "the monitor")
        for key, body in asyncio.run(contents(self.place)).items():
            silent(body, key)


async def contents(place: Place) -> dict[str, bytes]:
    store = place.open()
    try:
        return {info.key: await store.get(info.key) async for info in list_all(store, "")}
    finally:
        await store.aclose()


def silent(said: bytes, where: object) -> None:
    assert MARK.encode() not in said, (where, said[-3000:])
    for word in TOLD_BY_SIGNED_URLS:
        assert word not in said, (where, said[-3000:])


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    monitor = Monitor()
    yield monitor
    monitor.close()


@pytest.fixture
def bench(
    make_place: MakePlace,
    tmp_path: Path,
    monitor: Monitor,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Bench:
    place = make_place("moto-obstore")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    return Bench(tmp_path, place, place.layer["endpoint"], monitor, capsys)


def test_success_reveals_no_secret(bench: Bench) -> None:
    bench.run("sync", [])
    said = bench.run_all(CASES, "-v")
    again = {name: words for name, words in CASES.items() if name != "demo"}
    said |= {
        f"{name} for programs": told
        for name, told in bench.call_all(again, "--log-format=json", "--json", "-v").items()
    }
    for name, told in said.items():
        silent(told.encode(), name)
        fine = "exit status 0\n" in told or "exit status 3\n" in told
        # These have no server or no crontab, or a failing check.
        assert fine or name.split()[0] in ("export", "init", "doctor", "schedule"), told
    assert {word for word, _, _ in bench.monitor.heard} >= {f"{MARK}/start", f"{MARK}/0"}
    assert (bench.folder / "sync.prom").exists()
    bench.search()


def echoing(request: Request) -> Answer:
    """A refusal like AWS's, which repeats everything that was signed, a temporary key's token included."""
    shown = "\n".join(f"{name}:{value}" for name, value in request.headers.items())
    body = (
        "<Error><Code>SignatureDoesNotMatch</Code><Message>The signature does not match.</Message>"
        f"<StringToSign>{shown}</StringToSign><CanonicalRequest>{request.target}\n{shown}"
        "</CanonicalRequest></Error>"
    )
    return Answer(403, {"Content-Type": "application/xml"}, body.encode())


CLOSED = "http://127.0.0.1:9"
FAILURES = {
    "nobody listens": {"MIRROR_BUCKET__ENDPOINT": CLOSED},
    "a password in the endpoint": {"MIRROR_BUCKET__ENDPOINT": f"http://me:{PASSWORD}@127.0.0.1:9"},
    "a password in the public URL": {"MIRROR_BUCKET__PUBLIC_URL": f"https://me:{PASSWORD}@h/p"},
    "a password in the bucket": {"MIRROR_BUCKET__URL": f"s3://me:{PASSWORD}@bucket/p"},
    "a proxy with a password": dict.fromkeys(
        ("HTTP_PROXY", "http_proxy"), f"http://me:{PASSWORD}@127.0.0.1:9"
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failure_reveals_no_secret(bench: Bench, failure: str) -> None:
    reaching = {name: words for name, words in CASES.items() if name not in LOCAL}
    for name, said in bench.call_all(reaching, "-vv", **FAILURES[failure]).items():
        silent(said.encode(), name)
        assert "exit status 0\n" not in said, said
    bench.search()


LOCAL = {
    "inspect",
    "schedule",
    "quarantine",
    "completion",
    "help",
    "demo",
    "config show",
    "config check",
}


def test_a_server_that_repeats_what_was_sent_is_not_quoted(bench: Bench) -> None:
    bench.run("sync", [])
    with FaultProxy(bench.endpoint, echoing) as proxy:
        bench.endpoint = proxy.endpoint
        reaching = {name: words for name, words in CASES.items() if name not in LOCAL}
        for name, said in bench.call_all(reaching, "-vv").items():
            silent(said.encode(), name)
            assert "exit status 0\n" not in said, said
        # And during a run, in requests of deltalake and the fetch layer.
        proxy.rule = lambda request: (
            echoing(request)
            if "_delta_log" in request.target or "/objects/" in request.path
            else None
        )
        for name, said in bench.call_all(reaching, "-vv").items():
            silent(said.encode(), name)
    bench.search()


def test_a_datasets_address_is_said_without_its_password(bench: Bench) -> None:
    for name, said in bench.call_all(MORE, "-vv").items():
        silent(said.encode(), name)
        assert "exit status 0\n" not in said, said
    bench.search()


@pytest.mark.parametrize("engine", ["obstore", "aioboto3"])
def test_errors_and_settings_carry_no_secret(
    moto: S3Server, bench: Bench, engine: str, make_place: MakePlace
) -> None:
    """Neither in their text, nor pickled to another process, nor in the trace of their cause."""
    place = make_place(f"moto-{engine}")
    os.environ["AWS_SECRET_ACCESS_KEY"] = KEY  # make_place sets it for the server
    with FaultProxy(moto.endpoint, echoing) as proxy:
        layer = {**place.layer, "endpoint": proxy.endpoint}
        settings = Place(place.name, layer, place.server).settings()
        access = S3Access(settings.bucket_url, settings.bucket)
        assert access.credentials().secret_key == KEY
        for value in (settings, settings.bucket, access, access.credentials()):
            silent(f"{value!r} {value}".encode(), type(value))
        silent(pickle.dumps(settings), "pickled settings")
        for failed in asyncio.run(failures(Place(place.name, layer, place.server).open())):
            trace = "".join(traceback.format_exception(failed))
            silent(f"{failed!r} {failed} {trace}".encode(), failed)
            silent(pickle.dumps(failed), failed)


async def failures(store: Store) -> list[MirrorError]:
    async def pages() -> None:
        async for _ in list_all(store, "objects/"):
            pass

    requests: list[Callable[[], Awaitable[object]]] = [
        lambda: store.put("a", b"x", Create(), Headers()),
        lambda: store.get("a"),
        lambda: store.head("a"),
        lambda: store.delete(["a"]),
        pages,
    ]
    failed: list[MirrorError] = []
    try:
        for request in requests:
            with pytest.raises(MirrorError) as caught:
                await request()
            failed.append(caught.value)
    finally:
        await store.aclose()
    return failed


def test_the_configuration_has_no_place_for_a_secret(tmp_path: Path) -> None:
    """An unknown key is an error, and the error names it without its value."""
    (tmp_path / "mirror.toml").write_text(f'[bucket]\nsecret_access_key = "{PASSWORD}"\n')
    with pytest.raises(MirrorError, match=r"bucket\.secret_access_key") as error:
        load(environ={}, cwd=tmp_path)
    silent(str(error.value).encode(), "the error")


def test_secrets_are_found_where_they_are() -> None:
    for told in (KEY, TOKEN, PASSWORD, quote(KEY, safe=""), "?X-Amz-Signature=0"):
        with pytest.raises(AssertionError):
            silent(told.encode(), "")
