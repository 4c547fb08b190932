"""moto's S3 as a separate process: broad, fast and without checks.

It accepts any credentials and any checksum. So it shows that a request is well-formed, and nothing
about authorisation or integrity. It is a process, because moto's in-process patches reach only
botocore and not obstore.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .process import free_ports, installed, running
from .s3 import Identity, S3Server

ADMIN = Identity("admin", "moto-admin", "moto-admin-secret")


@contextlib.contextmanager
def moto_server(folder: Path) -> Iterator[S3Server]:
    """Run moto on a free port. It stores objects in memory."""
    (port,) = free_ports(1)
    server = S3Server(
        name="moto",
        endpoint=f"http://127.0.0.1:{port}",
        region="us-east-1",
        access_key=ADMIN.access_key,
        secret_key=ADMIN.secret_key,
        bucket="mirror-test",
        admin=ADMIN,
    )
    python = installed("venv", "bin", "python")
    # -I: the environment variables of the tests' own Python do not apply to this one.
    command = [str(python), "-I", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running("moto", command, folder, ready=lambda: _has_bucket(server)):
        yield server


def _has_bucket(server: S3Server) -> bool:
    return server.request("PUT", f"/{server.bucket}") == 200
