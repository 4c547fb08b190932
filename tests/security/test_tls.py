"""Every TLS client refuses an untrusted certificate, with one sentence."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from yarl import URL

from tests.cli.test_bad_input import assert_said
from tests.conftest import MakePlace
from tests.fetch.http.scripted_server import Scripted, answer
from tests.support.fault_proxy import FaultProxy
from tests.support.http_servers import serving
from tests.support.photos import fill, photo, url_of
from tests.support.tls_server import Authority, authority

Run = Callable[..., subprocess.CompletedProcess[str]]

ENGINES = ["obstore", "aioboto3"]


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return authority(tmp_path)


@pytest.fixture(params=ENGINES)
def mirror(
    request: pytest.FixtureRequest, make_place: MakePlace, nobody: Authority, tmp_path: Path
) -> Iterator[Run]:
    """Runs `mirror` on a bucket behind TLS, as a process, because libraries read the environment once."""
    place = make_place(f"moto-{request.param}")
    cache = tmp_path / "cache"
    fill(cache, {url_of(n): photo(n) for n in range(2)})
    with FaultProxy(place.layer["endpoint"], tls=nobody.server) as proxy:
        settings = {
            "CACHE__DIR": str(cache),
            "STATE__DIR": str(tmp_path / "state"),
            **{f"BUCKET__{name.upper()}": value for name, value in place.layer.items()},
            "BUCKET__ENDPOINT": proxy.endpoint,
        }
        given = {f"MIRROR_{name}": value for name, value in settings.items()}

        def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "mirror", *words],
                env={**os.environ, **given, **more},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )

        yield run
        assert proxy.requests, "what was trusted came through"


def test_a_bucket_is_read_and_written_only_where_its_certificate_is_trusted(
    mirror: Run, nobody: Authority, tmp_path: Path
) -> None:
    for words in (["sync"], ["fetch", url_of(1), "-o", "fetched"]):
        done = mirror(*words)
        assert_said(done, 1, "certificate is not trusted", "SSL_CERT_FILE")
        assert len(done.stderr.splitlines()) == 1
    done = mirror("doctor")
    assert done.returncode == 1
    assert "SSL_CERT_FILE" in done.stdout

    # One variable is enough for all senders: the engine, boto3, deltalake, the fetch layer.
    trusting = {"SSL_CERT_FILE": str(nobody.file)}
    for words in (["sync"], ["fetch", url_of(1), "-o", "fetched"]):
        done = mirror(*words, **trusting)
        assert done.returncode == 0, done.stderr
    (fetched,) = (tmp_path / "fetched").iterdir()
    assert fetched.read_bytes() == photo(1)
    assert "FAIL" not in mirror("doctor", "--read-only", **trusting).stdout


def test_a_certificate_for_another_name_is_refused(mirror: Run, nobody: Authority) -> None:
    """The certificate is for 127.0.0.1; `localhost` leads there as well."""
    trusting = {"SSL_CERT_FILE": str(nobody.file)}
    assert mirror("sync", **trusting).returncode == 0
    port = mirror("config", "show").stdout.split("https://127.0.0.1:")[1].split('"')[0]
    done = mirror("sync", **trusting, MIRROR_BUCKET__ENDPOINT=f"https://localhost:{port}")
    assert_said(done, 1, "certificate is not trusted")


@contextlib.contextmanager
def tunnel(opened: list[str]) -> Iterator[str]:
    """An HTTP proxy that opens tunnels (CONNECT). `opened` gets their targets."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            there = self.rfile.readline().split()[1].decode()
            while self.rfile.readline().strip():
                pass
            host, _, port = there.rpartition(":")
            with socket.create_connection((host, int(port))) as upstream:
                opened.append(there)
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pump, args=(upstream, self.connection))
                back.start()
                pump(self.connection, upstream)
                back.join()

    with serving(Handler) as url:
        yield url


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def test_a_proxy_on_the_way_changes_nothing(mirror: Run, nobody: Authority) -> None:
    opened: list[str] = []
    with tunnel(opened) as url:
        proxied = {"HTTPS_PROXY": url, "https_proxy": url}
        done = mirror("sync", **proxied)
        assert_said(done, 1, "certificate is not trusted")
        done = mirror("sync", **proxied, SSL_CERT_FILE=str(nobody.file))
        assert done.returncode == 0, done.stderr
        assert len(opened) >= 2


def test_a_backfill_refuses_it_too(
    nobody: Authority, tmp_path: Path, clean_environment: None
) -> None:
    with Scripted(lambda _, __: [answer(photo(1))], nobody.server) as server:
        address = URL(server.url)
        (tmp_path / "in.jsonl").write_text(f'{{"image_url": "{address / "1.jpg"}"}}\n')
        (tmp_path / "mirror.toml").write_text(
            '[cache]\ndir = "cache"\n[state]\ndir = "state"\n[backfill]\ncontact = "a@example.org"\n'
            f'hosts = ["{address.host}"]\nallow_private = true\nper_second = 1000.0\n'
        )
        (tmp_path / "cache").mkdir()
        words = ["-m", "mirror", "backfill", "in.jsonl", "--no-bucket", "--for", "5s"]

        def run(**more: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, *words],
                env={**os.environ, **more},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )

        run()
        assert not server.requests, "the connection ended before anything was asked"
        assert not list((tmp_path / "cache").glob("*.jpg"))
        # A new request log, because this one has the URL scheduled for a later try.
        done = run(SSL_CERT_FILE=str(nobody.file), MIRROR_STATE__DIR=str(tmp_path / "other"))
        assert server.requests, done.stderr
