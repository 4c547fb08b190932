"""Every option of obstore and deltalake, stated, so that the environment changes no request.

Both are built on Rust's object_store. They fill each option that is absent from a variable of its name:
obstore from `AWS_*`, deltalake from any spelling, such as PROXY_URL or timeout. docs/configuration.md
names the variables that count, and this package reads those itself.
"""

from __future__ import annotations

import os
from typing import Final

from mirror.errors import ConfigError
from mirror.store.s3_access import CONNECT_SECONDS, Credentials, S3Access
from mirror.system.foreign_variables import foreign_variables

# Under the names by which the libraries keep them: another spelling would not replace a variable.
_FIXED: Final = {
    "aws_virtual_hosted_style_request": "false",
    "aws_conditional_put": "etag",
    # Buckets with Object Lock require a checksum of every PUT.
    "aws_checksum_algorithm": "SHA256",
    "aws_s3_express": "false",
    "aws_skip_signature": "false",
    "aws_unsigned_payload": "false",
    "aws_request_payer": "false",
    "aws_copy_if_not_exists": "multipart",  # nothing is copied
    "aws_disable_tagging": "false",
    "aws_disable_bulk_delete": "false",
    "allow_invalid_certificates": "false",
    "disable_system_certificates": "false",
    "connect_timeout": f"{CONNECT_SECONDS}s",
    "http1_only": "true",
    "http2_only": "false",
    "http2_keep_alive_interval": "30s",
    "http2_keep_alive_timeout": "20s",
    "http2_keep_alive_while_idle": "false",
    "http2_max_frame_size": "16384",
    "pool_idle_timeout": "90s",
    "pool_max_idle_per_host": "1024",
    "randomize_addresses": "true",
    "default_content_type": "application/octet-stream",
    "user_agent": "dataset-mirror",
    "proxy_ca_certificate": "",  # would be trusted like any other authority
}
# A proxy that no request uses keeps the libraries from taking one of the environment. Their `*` is
# for names only.
_NO_PROXY: Final = {"proxy_url": "http://proxy.invalid", "proxy_excludes": "*,0.0.0.0/0,::/0"}


def object_store_options(access: S3Access, seconds: float) -> dict[str, str]:
    """All options of a store but its credentials.

    Args:
        access: where the bucket is.
        seconds: how long one request may take.
    """
    proxy = access.proxy
    return {
        **_FIXED,
        **({"proxy_url": proxy, "proxy_excludes": ""} if proxy else _NO_PROXY),
        "aws_region": access.region,
        "aws_endpoint_url_s3": access.address,
        "allow_http": str(access.allow_http).lower(),
        "timeout": f"{seconds:g}s",
        "read_timeout": f"{seconds:g}s",
    }


def delta_options(access: S3Access, seconds: float = 120) -> dict[str, str]:
    """`storage_options` for the catalog's Delta table, with the credentials at this moment.

    Raises:
        BadCredentials: the AWS chain has none, or its provider fails.
        ConfigError: the environment has a variable that deltalake would take for its own.
    """
    credentials = access.credentials()
    require_no_foreign_variables(credentials)
    options = {
        **object_store_options(access, seconds),
        "aws_s3_allow_unsafe_rename": "false",  # deltalake alone knows it
        # deltalake asks the AWS SDK for credentials where it sees no endpoint, or a locking provider.
        "aws_endpoint": access.address,
        "aws_access_key_id": credentials.access_key,
        "aws_secret_access_key": credentials.secret_key,
    }
    if credentials.token:
        options["aws_session_token"] = credentials.token
    return options


def require_no_foreign_variables(credentials: Credentials) -> None:
    """Refuse a variable of another program that would change requests.

    An empty AWS_SESSION_TOKEN is a usual way to say that there is none.

    Raises:
        ConfigError: there is one. The command line has removed most of them before.
    """
    for name in foreign_variables(os.environ, temporary=bool(credentials.token)):
        if name != "AWS_SESSION_TOKEN" or os.environ[name]:
            raise ConfigError(
                f"The environment has {name}, which would change requests to the bucket; run "
                f"without it, as by env -u {name}."
            )
