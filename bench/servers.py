# ruff: noqa: INP001 - for the scripts beside it, not a package
"""The servers for the measurements, each a separate process on loopback.

- `seaweedfs` stores objects, and checks signatures and checksums: the whole path.
- `sink` is nginx before a SeaweedFS. It reads an upload to its end, logs it and discards it, so that only
  the client is measured. Everything else (format.json, the catalog) goes to the SeaweedFS, so that a run
  does its complete work.
- `static` is nginx over a folder.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from measure import BENCH, ROOT

sys.path.insert(0, str(ROOT))

from tests.servers import S3Server, ServerUnavailable, seaweedfs_server
from tests.servers.process import eventually, free_ports, running
from tests.servers.sigv4 import signed_request

BUCKET = "bench"
# The sink discards uploads below these folders of a prefix: ours, and the peers'.
DISCARDED = ("objects", "flat")

HEAD = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  sendfile on; tcp_nopush on; keepalive_requests 10000000; client_max_body_size 0;
  client_body_buffer_size 4m; large_client_header_buffers 8 16k;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  types {{ image/jpeg jpg; }}
"""

# `return` would answer before the body is read. A mirrored request is sent only after that.
# 201, because nginx turns a 200 into a 304 if the request has `If-None-Match`. The ETag is not an MD5,
# and does not look like one, because rclone compares those that do.
SINK = """
  log_format noted "$request_method $status $content_length $http_x_amz_content_sha256 $uri";
  server {{
    listen 127.0.0.1:{port} backlog=4096; access_log off;
    location ~ "^/{bucket}/[^/]+/(?:{discarded})/" {{
      mirror /read; error_page 405 = @stored; root {folder}/empty;
    }}
    location = /read {{ internal; return 204; }}
    location @stored {{
      access_log {folder}/noted.log noted buffer=64k flush=1s;
      add_header ETag '"{etag}"' always; return 201;
    }}
    location / {{
      proxy_pass {behind}; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $http_host; proxy_request_buffering off;
    }}
  }}
}}
"""

STATIC = """
  access_log off; open_file_cache max=20000 inactive=600s;
  server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }}
}}
"""


class Noted(NamedTuple):
    """A complete upload to the sink."""

    size: int
    sha256: str
    path: str


@dataclass(frozen=True)
class Place:
    """An S3 server and its credentials.

    Attributes:
        endpoint: its address.
        environment: the variables of the standard AWS chain for its clients.
        server: the SeaweedFS behind it.
        log: the log of a sink.
    """

    endpoint: str
    environment: dict[str, str]
    server: S3Server
    log: Path | None = None

    def noted(self, prefix: str, count: int) -> list[Noted]:
        """The uploads to the sink below a prefix. Waits until its log has `count` of them."""
        assert self.log is not None
        found: list[Noted] = []

        def all_there() -> bool:
            found[:] = _read_log(self.log, f"/{BUCKET}/{prefix}/")
            return len(found) >= count

        eventually(all_there, within=5)
        return found


def _read_log(log: Path | None, below: str) -> list[Noted]:
    assert log is not None
    lines = (line.split(" ") for line in log.read_text().splitlines())
    return [
        Noted(int(size), sha256, path)
        for method, status, size, sha256, path in lines
        if (method, status) == ("PUT", "201") and path.startswith(below)
    ]


@contextmanager
def seaweedfs(kept: Path | None = None) -> Iterator[Place]:
    """Run a SeaweedFS with a bucket: a temporary empty one, or one that is kept in a folder."""
    folder = kept or _clean(BENCH / "seaweedfs")
    try:
        with seaweedfs_server(folder) as server:
            if server.request("PUT", f"/{BUCKET}") not in (200, 409):
                raise ServerUnavailable("SeaweedFS makes no bucket")
            yield Place(server.endpoint, server.environment(), server)
    finally:
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def sink(kept: Path | None = None) -> Iterator[Place]:
    """Run an S3 server that discards objects. See the top of this file."""
    with seaweedfs(kept) as behind:
        folder = _clean(BENCH / "sink")
        (folder / "empty").mkdir()
        port = _kept_port(kept)
        text = (HEAD + SINK).format(
            folder=folder, port=port, bucket=BUCKET, discarded="|".join(DISCARDED),
            etag=f"{0:032x}-1", behind=behind.endpoint,
        )  # fmt: skip
        endpoint = f"http://127.0.0.1:{port}"
        with _nginx(text, folder, endpoint, behind.server):
            yield Place(endpoint, behind.environment, behind.server, folder / "noted.log")


@contextmanager
def static(root: Path) -> Iterator[str]:
    """Run a web server over a folder. Yields its address."""
    folder = _clean(BENCH / "static")
    (port,) = free_ports(1)
    text = (HEAD + STATIC).format(folder=folder, port=port, root=root)
    endpoint = f"http://127.0.0.1:{port}"
    with _nginx(text, folder, endpoint, None):
        yield endpoint


def nginx() -> str:
    """The path of nginx.

    Raises:
        ServerUnavailable: it is not installed.
    """
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if not os.access(program, os.X_OK):
        raise ServerUnavailable("nginx is not installed (on Debian: apt install nginx-light)")
    return program


@contextmanager
def _nginx(text: str, folder: Path, endpoint: str, behind: S3Server | None) -> Iterator[None]:
    config = folder / "nginx.conf"
    config.write_text(text)

    def answers() -> bool:
        path = f"/{behind.bucket}" if behind else "/"
        keys = (behind.access_key, behind.secret_key) if behind else ("x", "x")
        status = signed_request(
            "HEAD", endpoint + path, access_key=keys[0], secret_key=keys[1], region="us-east-1"
        )
        return status < 500

    with running("nginx", [nginx(), "-c", str(config)], folder, ready=answers):
        yield


def _kept_port(kept: Path | None) -> int:
    """The port of a kept mirror. It must not change, because a state belongs to an address."""
    if kept is None:
        return free_ports(1)[0]
    known = kept / "port"
    if not known.exists():
        known.write_text(f"{free_ports(1)[0]}")
    return int(known.read_text())


def _clean(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
