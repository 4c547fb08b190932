"""Extracts what the Terraform of this repository may say from the providers' own schemas.

    python -m tests.terraform.extract_schema        writes tests/terraform/schema.json

The bindings that CDK Terrain publishes are generated from the providers' schemas and carry them, as
jsii's description of their types, in Python packages: no Terraform and no account is needed. The
packages are large (90 MB), so the tests read the committed extract, of the kinds in use alone. Run
this when a kind is added to terraform/, or to move to newer providers.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCHEMA = HERE / "schema.json"

# The bindings' version → the provider's it was made from is in the extract.
PACKAGES = {
    "aws": "cdktn-provider-aws==25.8.1",
    "cloudflare": "cdktn-provider-cloudflare==16.4.0",
}
KINDS = {
    "aws": {
        "resource": (
            "aws_cloudfront_distribution",
            "aws_cloudfront_origin_access_control",
            "aws_iam_group",
            "aws_iam_group_policy_attachment",
            "aws_iam_policy",
            "aws_iam_user",
            "aws_iam_user_group_membership",
            "aws_s3_bucket",
            "aws_s3_bucket_cors_configuration",
            "aws_s3_bucket_lifecycle_configuration",
            "aws_s3_bucket_ownership_controls",
            "aws_s3_bucket_policy",
            "aws_s3_bucket_public_access_block",
            "aws_s3_bucket_server_side_encryption_configuration",
            "aws_s3_bucket_versioning",
        ),
        "data": (
            "aws_cloudfront_cache_policy",
            "aws_cloudfront_response_headers_policy",
            "aws_iam_policy_document",
        ),
    },
    "cloudflare": {
        "resource": (
            "cloudflare_account_token",
            "cloudflare_r2_bucket",
            "cloudflare_r2_bucket_cors",
            "cloudflare_r2_bucket_lifecycle",
            "cloudflare_r2_bucket_lock",
            "cloudflare_r2_custom_domain",
            "cloudflare_r2_managed_domain",
        ),
        "data": ("cloudflare_account_api_token_permission_groups_list",),
    },
}

Types = dict[str, Any]


def main() -> None:
    extract: dict[str, Any] = {}
    for provider, package in PACKAGES.items():
        types = _types(package)
        kinds = KINDS[provider]
        extract[provider] = {
            "package": package,
            "version": _provider_version(types),
            "resource": {kind: _kind(types, provider, kind, "") for kind in kinds["resource"]},
            "data": {kind: _kind(types, provider, kind, "data_") for kind in kinds["data"]},
        }
    SCHEMA.write_text(json.dumps(extract, indent=1, sort_keys=True) + "\n")


def _types(package: str) -> Types:
    """jsii's description of every type in a package, by name without the assembly's."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "-d",
                folder,
                package,
            ],
            check=True,
        )
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [n for n in archive.namelist() if n.endswith(".jsii.tgz")]
            archive.extract(name, folder)
        with tarfile.open(Path(folder) / name) as archive:
            file = archive.extractfile("package/.jsii")
            assert file is not None
            described = json.load(file)
    return {fqn.partition(".")[2]: found for fqn, found in described["types"].items()}


def _provider_version(types: Types) -> str:
    found = re.search(r"/providers/\w+/\w+/([\d.]+)/docs/", json.dumps(next(iter(types.values()))))
    assert found
    return found[1]


def _kind(types: Types, provider: str, kind: str, prefix: str) -> dict[str, Any]:
    """`arguments` that may be written, and `attributes` that may be read."""
    name = kind if prefix else kind.removeprefix(f"{provider}_")
    first, *rest = f"{prefix}{name}".split("_")
    module = first + "".join(word.capitalize() for word in rest)
    of_kind = [t for fqn, t in types.items() if fqn.partition(".")[0] == module]
    # Its own class is the one that Terraform has; its settings those that take `count` and the like.
    (readable,) = (t for t in of_kind if t.get("base", "").startswith("cdktn.Terraform"))
    (settings,) = (t for t in of_kind if "cdktn.TerraformMetaArguments" in t.get("interfaces", ()))
    names = {_snake(p["name"]) for p in readable["properties"]}
    return {
        "arguments": _arguments(types, settings),
        "attributes": sorted(name for name in names if not name.endswith("_input")),
    }


def _arguments(types: Types, interface: dict[str, Any]) -> dict[str, Any]:
    """Of each argument: whether it is `required`, a `block`, and its own `arguments` if any."""
    arguments: dict[str, Any] = {}
    for property_ in interface.get("properties", ()):
        docs = property_["docs"]
        text = f"{docs.get('summary', '')} {docs.get('remarks', '')}"
        link = re.search(r"/docs/[\w-]+/\w+#(\w+)", text)
        argument: dict[str, Any] = {"required": not property_.get("optional", False)}
        if docs.get("summary", "").endswith(" block."):
            argument["block"] = True
        nested = _nested(types, property_["type"])
        if nested is not None:
            argument["arguments"] = _arguments(types, nested)
        arguments[link[1] if link else _snake(property_["name"])] = argument
    return arguments


def _nested(types: Types, kind: dict[str, Any]) -> dict[str, Any] | None:
    """The interface that a property's type is, or is a list of, or None for a plain value."""
    fqn = kind.get("fqn", "").partition(".")[2]
    if types.get(fqn, {}).get("kind") == "interface" and kind["fqn"].startswith("@"):
        found: dict[str, Any] = types[fqn]
        return found
    if "collection" in kind:
        return _nested(types, kind["collection"]["elementtype"])
    for member in kind.get("union", {}).get("types", ()):
        if (nested := _nested(types, member)) is not None:
            return nested
    return None


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


if __name__ == "__main__":
    main()
