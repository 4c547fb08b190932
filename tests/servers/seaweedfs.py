"""SeaweedFS: an S3 server that checks signatures, policies and checksums like AWS."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from .process import free_ports, installed, running
from .s3 import Identity, S3Server

ADMIN = Identity(
    "admin", "weed-admin", "weed-admin-secret", ("Admin", "Read", "List", "Write", "Tagging")
)


def allow(*grants: tuple[Sequence[str], Sequence[str]]) -> str:
    """A policy document: each grant allows actions ("s3:PutObject") on resources ("BUCKET/KEY")."""
    statements = [
        {
            "Effect": "Allow",
            "Action": list(actions),
            "Resource": [f"arn:aws:s3:::{resource}" for resource in resources],
        }
        for actions, resources in grants
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


# The permissions are those of terraform/s3, in any bucket below any prefix; tests/terraform compares
# them. They are policies, because SeaweedFS's own action Write includes deleting. It does not know the
# condition that keeps terraform's writer from overwriting (tests/security/test_add_only.py).
_SEE = ("s3:ListBucket", "s3:GetBucketLocation")
WRITER = Identity(
    "writer",
    "weed-writer",
    "weed-writer-secret",
    policy=allow(
        (("s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"), ("*/*",)), (_SEE, ("*",))
    ),
)
READER = Identity(
    "reader",
    "weed-reader",
    "weed-reader-secret",
    policy=allow((("s3:GetObject",), ("*/*",)), (_SEE, ("*",))),
)
GC = Identity(
    "gc",
    "weed-gc",
    "weed-gc-secret",
    policy=allow(
        (("s3:GetObject", "s3:AbortMultipartUpload"), ("*/*",)),
        (("s3:DeleteObject",), ("*/objects/*", "*/catalog/part-*")),
        (("s3:PutObject",), ("*/gc.json",)),
        ((*_SEE, "s3:ListBucketMultipartUploads"), ("*",)),
    ),
)

# One server has four parts. Each also listens for gRPC, by default on a port that may be taken.
ROLES = ("master", "volume", "filer", "s3")


@contextlib.contextmanager
def seaweedfs_server(folder: Path, identities: Sequence[Identity] = ()) -> Iterator[S3Server]:
    """Run SeaweedFS for an admin, who may create buckets, and for `identities`."""
    ports = dict(zip(ROLES, free_ports(4), strict=True))
    grpc_ports = dict(zip(ROLES, free_ports(4), strict=True))
    server = S3Server(
        name="seaweedfs",
        endpoint=f"http://127.0.0.1:{ports['s3']}",
        region="us-east-1",
        access_key=ADMIN.access_key,
        secret_key=ADMIN.secret_key,
        bucket="mirror-test",
        admin=ADMIN,
    )
    weed = str(installed("venv", "bin", "weed"))
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "identities.json").write_text(_identities_file([ADMIN, *identities]))
    command = [weed, "server", *OPTIONS]
    for role in ROLES:
        command += [f"-{role}.port={ports[role]}", f"-{role}.port.grpc={grpc_ports[role]}"]
    try:
        with running(
            "SeaweedFS",
            command,
            folder,
            ready=lambda: _stores_objects(server),
            # Space is taken in volumes: by default, seven for the first object of each bucket.
            environment={"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
            # A regular stop takes up to 16 seconds, and its data is not needed.
            stop_signal=signal.SIGKILL,
        ):
            yield server
    finally:
        remove_sockets(folder)


OPTIONS = (
    "-dir=data",
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-filer",
    "-filer.localSocket=filer.sock",
    "-s3",
    "-s3.localSocket=s3.sock",
    "-s3.config=identities.json",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    # As on AWS: a PUT creates no bucket, and a bucket with objects cannot be deleted.
    "-s3.autoCreateBucket=false",
    "-s3.allowDeleteBucketNotEmpty=false",
    # Every bucket with an object has its own volume, which takes the space of its objects.
    # When no space is left, writes fail with 500. A nearly full disk must not fail the tests.
    "-volume.max=500",
    "-volume.minFreeSpace=64MiB",
    "-master.volumeSizeLimitMB=256",
    # Without peers: a master that waits for peers needs a second, and sometimes six.
    "-master.peers=none",
    "-master.telemetry=false",
)


def remove_sockets(folder: Path) -> None:
    """Remove the sockets that a killed server leaves in the system's temporary folder.

    The server chooses their place, and its log names it.
    """
    log = folder / "server.log"
    for line in log.read_text(errors="replace").splitlines() if log.exists() else ():
        if found := re.search(r"gRPC also listening on Unix socket (\S+)$", line):
            Path(found[1]).unlink(missing_ok=True)


def _identities_file(identities: Sequence[Identity]) -> str:
    return json.dumps(
        {
            "identities": [
                {
                    "name": identity.name,
                    "credentials": [
                        {"accessKey": identity.access_key, "secretKey": identity.secret_key}
                    ],
                    "actions": list(identity.actions),
                    "policyNames": [identity.name] if identity.policy else [],
                }
                for identity in identities
            ],
            "policies": [
                {"name": identity.name, "content": identity.policy}
                for identity in identities
                if identity.policy
            ],
        }
    )


def _stores_objects(server: S3Server) -> bool:
    """True once an object can be stored. The S3 side answers before it has a volume."""
    key = f"/{server.bucket}/ready"
    return (
        server.request("PUT", f"/{server.bucket}") in (200, 409)
        and server.request("PUT", key, b"ready") == 200
        and server.request("DELETE", key) == 204
    )
