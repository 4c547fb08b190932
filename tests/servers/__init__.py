"""Servers for the tests, each a process of its own on loopback: of S3, and one of MongoDB's protocol.

`install.sh` installs them (`make servers`), the context managers here run them, and the fixtures of
`conftest_fixtures.py` keep one of each for a session. Those of S3 differ on purpose: moto believes
everything, SeaweedFS checks as AWS does, miniflare has R2's shape.
"""

from .miniflare import miniflare_server
from .mongodb import MongoServer, mongodb_server
from .moto import moto_server
from .process import ServerUnavailable
from .s3 import Identity, S3Server
from .seaweedfs import GC, READER, WRITER, allow, seaweedfs_server

__all__ = [
    "GC",
    "READER",
    "WRITER",
    "Identity",
    "MongoServer",
    "S3Server",
    "ServerUnavailable",
    "allow",
    "miniflare_server",
    "mongodb_server",
    "moto_server",
    "seaweedfs_server",
]
