"""miniflare's R2 over its S3 interface: R2's gaps, its region and its public reads."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from .process import free_ports, installed, on_path, running
from .s3 import Identity, S3Server

ADMIN = Identity("admin", "r2-admin", "r2-admin-secret")
SCRIPT = Path(__file__).with_name("r2.mjs")


@contextlib.contextmanager
def miniflare_server(folder: Path, spare_buckets: int = 100) -> Iterator[S3Server]:
    """Run miniflare with a fixed number of buckets, because it has no CreateBucket."""
    (port,) = free_ports(1)
    spare = deque(f"mirror-test-{number}" for number in range(1, spare_buckets + 1))
    server = S3Server(
        name="miniflare",
        endpoint=f"http://127.0.0.1:{port}/cdn-cgi/local/r2/s3",
        region="auto",
        access_key=ADMIN.access_key,
        secret_key=ADMIN.secret_key,
        bucket="mirror-test",
        admin=ADMIN,
        public_endpoint=f"http://127.0.0.1:{port}/cdn-cgi/local/r2/public",
        spare_buckets=spare,
    )
    options = {
        "modules": str(installed("node", "node_modules", "miniflare").parents[1]),
        "port": port,
        "persist": str(folder.absolute() / "data"),
        "buckets": [server.bucket, *spare],
        "accessKeyId": ADMIN.access_key,
        "secretAccessKey": ADMIN.secret_key,
    }
    command = [str(on_path("node")), str(SCRIPT), json.dumps(options)]
    with running("miniflare", command, folder, ready=lambda: _lists_bucket(server)):
        yield server


def _lists_bucket(server: S3Server) -> bool:
    return server.request("GET", f"/{server.bucket}") == 200
