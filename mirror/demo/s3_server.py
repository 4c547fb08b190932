"""The S3 server of the demo: moto's, inside this process, on a free loopback port."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mirror.system.extras import import_optional


@contextmanager
def s3_server(bucket: str) -> Iterator[str]:
    """Serve an empty bucket and yield the endpoint. The data is lost when the block ends.

    Raises:
        UsageError: the extra `demo` is not installed.
    """
    import_optional("moto", "The demo")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        _create_bucket(endpoint, bucket)
        yield endpoint
    finally:
        server.stop()


def _create_bucket(endpoint: str, bucket: str) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="demo",
        aws_secret_access_key="demo",  # noqa: S106 - the server of this process takes any key
    )
    client.create_bucket(Bucket=bucket)
