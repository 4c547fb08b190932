"""Servers for the tests, each a separate process on loopback: three of S3, and one of MongoDB's protocol.

`install.sh` installs them (`make servers`). The context managers here run them, and the fixtures of
`conftest_fixtures.py` keep one of each for a session. The S3 servers differ on purpose: moto accepts
everything, SeaweedFS checks like AWS, and miniflare has R2's shape.
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
