"""Extracts the schema for this repository's Terraform from the providers' own schemas.

    python -m tests.terraform.extract_schema        writes tests/terraform/schema.json

CDK Terrain generates its bindings from the providers' schemas. Its Python packages contain them as
jsii's description of their types, so this needs no Terraform and no account. The packages are large
(90 MB), so the tests read the committed extract with only the kinds in use. Run this after you add a
kind to terraform/, or to use newer providers.
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

# The version of the bindings. The extract has the matching version of the provider.
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
    """jsii's description of every type in a package, by its name without the assembly."""
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
    """The `arguments` that can be set, and the `attributes` that can be read."""
    name = kind if prefix else kind.removeprefix(f"{provider}_")
    first, *rest = f"{prefix}{name}".split("_")
    module = first + "".join(word.capitalize() for word in rest)
    of_kind = [t for fqn, t in types.items() if fqn.partition(".")[0] == module]
    # The class is Terraform's resource. Its settings include `count` and similar arguments.
    (readable,) = (t for t in of_kind if t.get("base", "").startswith("cdktn.Terraform"))
    (settings,) = (t for t in of_kind if "cdktn.TerraformMetaArguments" in t.get("interfaces", ()))
    names = {_snake(p["name"]) for p in readable["properties"]}
    return {
        "arguments": _arguments(types, settings),
        "attributes": sorted(name for name in names if not name.endswith("_input")),
    }


def _arguments(types: Types, interface: dict[str, Any]) -> dict[str, Any]:
    """For each argument: if it is `required`, if it is a `block`, and its own `arguments`."""
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
    """The interface of a property's type or of its list items; None for a plain value."""
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
