"""terraform/ against the providers' schemas, against itself, and against mirror.toml; no network."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mirror.config.loading import load
from tests.security.test_add_only import ADD_ONLY
from tests.servers import GC, READER, WRITER, Identity
from tests.servers.process import installed, on_path
from tests.terraform.extract_schema import KINDS, SCHEMA
from tests.terraform.hcl import (
    EXAMPLES,
    FILES,
    MODULES,
    ROOT,
    TERRAFORM,
    Body,
    Folder,
    is_block,
    is_body,
    literal,
)

FOLDERS = [*MODULES, *EXAMPLES]
EXTRACT: dict[str, Any] = json.loads(SCHEMA.read_text())
META = {"count", "for_each", "depends_on", "lifecycle", "provider", "dynamic", "__is_block__"}


def short(path: Path) -> str:
    return str(path.relative_to(TERRAFORM))


@pytest.fixture(params=FOLDERS, ids=short)
def folder(request: pytest.FixtureRequest) -> Folder:
    return Folder.read(request.param)


@pytest.fixture(params=MODULES, ids=short)
def module(request: pytest.FixtureRequest) -> Folder:
    return Folder.read(request.param)


@pytest.fixture(params=EXAMPLES, ids=short)
def example(request: pytest.FixtureRequest) -> Folder:
    return Folder.read(request.param)


def test_every_file_is_in_terraforms_own_format() -> None:
    format_files = Path(__file__).with_name("format.mjs")
    modules = installed("terraform", "node", "node_modules", "@cdktf/hcl-tools").parents[2]
    done = subprocess.run(
        [on_path("node"), format_files, modules, *FILES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_kind_and_argument_exists_in_the_provider(folder: Folder) -> None:
    for section, blocks in (("resource", folder.resources), ("data", folder.data)):
        for (kind, name), body in blocks.items():
            schema = EXTRACT[kind.partition("_")[0]][section]
            assert kind in schema, f"{kind} is not in the extract: add it to extract_schema.py"
            faults = list(faults_of(body, schema[kind]["arguments"], f"{kind}.{name}"))
            assert not faults


def faults_of(body: Body, schema: dict[str, Any], where: str) -> list[str]:
    """Unknown and missing arguments, and blocks in place of attributes, nested ones included."""
    faults = []
    given = {name: value for name, value in body.items() if name not in META}
    for dynamic in body.get("dynamic", ()):
        for name, value in dynamic.items():
            if name != "__is_block__":
                given[json.loads(name)] = value["content"]
    for name, value in given.items():
        if name not in schema:
            faults.append(f"{where}.{name} is unknown")
            continue
        wanted = schema[name]
        if is_block(value) != wanted.get("block", False):
            faults.append(f"{where}.{name} is {'no ' if is_block(value) else ''}block")
        if "arguments" in wanted:
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, dict):
                    faults += faults_of(item, wanted["arguments"], f"{where}.{name}")
    missing = [n for n, a in schema.items() if a["required"] and n not in given]
    return faults + [f"{where}.{name} is missing" for name in missing]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('jurisdicion = "eu"', "r.jurisdicion is unknown"),
        ('rules { id = "x" }', "r.rules is no block"),
        ('rules = [{ id = "x", enabled = true }]', "r.rules.condition is missing"),
    ],
)  # fmt: skip
def test_a_fault_is_found(text: str, fault: str) -> None:
    import hcl2

    text = f'resource "k" "n" {{\n account_id = "a"\n bucket_name = "b"\n {text}\n}}\n'
    body = hcl2.loads(text)["resource"][0]['"k"']['"n"']
    schema = EXTRACT["cloudflare"]["resource"]["cloudflare_r2_bucket_lock"]["arguments"]
    assert fault in faults_of(body, schema, "r")


def test_the_extract_has_exactly_the_kinds_in_use() -> None:
    used: dict[str, set[str]] = {"resource": set(), "data": set()}
    for path in FOLDERS:
        folder = Folder.read(path)
        used["resource"] |= {kind for kind, _ in folder.resources}
        used["data"] |= {kind for kind, _ in folder.data}
    for section, kinds in used.items():
        assert kinds == {kind for provider in KINDS.values() for kind in provider[section]}
        assert kinds == {kind for provider in EXTRACT.values() for kind in provider[section]}


def test_every_reference_leads_to_something(folder: Folder) -> None:
    code = folder.code
    assert set(re.findall(r"\bvar\.(\w+)", code)) == folder.variables.keys()
    assert set(re.findall(r"\blocal\.(\w+)", code)) == folder.local.keys()
    pattern = r"(?<![\w.\"])(data\.)?((?:aws|cloudflare)_\w+)\.(\w+)(?:\[[^\]]*\])?(?:\.(\w+))?"
    for data, kind, name, attribute in re.findall(pattern, code):
        blocks, section = (folder.data, "data") if data else (folder.resources, "resource")
        assert (kind, name) in blocks, f"{data}{kind}.{name}"
        known = EXTRACT[kind.partition("_")[0]][section][kind]["attributes"]
        assert not attribute or attribute in known, f"{data}{kind}.{name}.{attribute}"


def test_every_variable_has_a_description(folder: Folder) -> None:
    for name, variable in folder.variables.items():
        assert literal(variable["description"]).endswith("."), name
        assert "type" in variable, name
        if folder.path in MODULES and name != "tags":  # with free keys and values
            assert variable.get("validation"), name
        for validation in variable.get("validation", ()):
            assert f"var.{name}" in validation["condition"], name
            assert re.search(r"[.…]$", literal(validation["error_message"])), name


def test_every_output_has_a_description_and_secrets_are_marked(folder: Folder) -> None:
    for name, output in folder.outputs.items():
        assert literal(output["description"]), name
        assert bool(output.get("sensitive")) == ("secret" in name), name


def test_an_example_sets_the_variables_of_its_module(example: Folder) -> None:
    (call,) = example.modules.values()
    module = Folder.read((example.path / literal(call["source"])).resolve())
    given = {name: value for name, value in call.items() if name not in META | {"source"}}
    assert given.keys() <= module.variables.keys()
    required = {name for name, body in module.variables.items() if "default" not in body}
    assert required <= given.keys()
    for name in re.findall(r"\bmodule\.mirror\.(\w+)", example.code):
        assert name in module.outputs


def test_an_examples_values_pass_their_validation(example: Folder) -> None:
    (call,) = example.modules.values()
    module = Folder.read((example.path / literal(call["source"])).resolve())
    tried = 0
    for name, value in call.items():
        for validation in module.variables.get(name, {}).get("validation", ()):
            written = rf'regex\("(.*)", var\.{name}\)'
            match = re.search(written, validation["condition"])
            plain = literal(value)
            if match and isinstance(plain, str) and not plain.startswith("${"):
                assert re.search(match[1].replace("\\\\", "\\"), plain), f"{name} = {plain}"
                tried += 1
            names = re.search(rf"contains\((\[.*\]), var\.{name}\)", validation["condition"])
            if names:
                assert plain in json.loads(names[1]), f"{name} = {plain}"
                tried += 1
    assert tried >= 2


def test_examples_pin_the_providers_of_the_schemas(example: Folder) -> None:
    module = Folder.read(example.path.parents[1])
    for provider, version in example.providers.items():
        assert version == EXTRACT[provider]["version"]
        least = module.providers[provider].removeprefix("~> ")
        major, minor = map(int, least.split("."))
        numbers = [int(number) for number in version.split(".")]
        assert numbers[0] == major, "~> 5.28 takes no 6"
        assert numbers[1] >= minor


def test_readmes_and_the_workflow_name_every_example() -> None:
    workflow = (ROOT / ".github" / "workflows" / "terraform.yml").read_text()
    for path in FOLDERS:
        assert f"- terraform/{short(path)}\n" in workflow
    for path in EXAMPLES:
        readme = (path.parents[1] / "README.md").read_text()
        assert f"examples/{path.name}/main.tf" in readme


def rendered(template: str, values: dict[str, str]) -> str:
    """Render a Terraform template, as far as ours need it: ${name}, and one kind of %{ if }."""
    kept = re.sub(
        r'%\{ if (\w+) != "" ~\}\s*(.*?)%\{ endif ~\}\n?',
        lambda match: match[2] if values[match[1]] else "",
        template,
        flags=re.DOTALL,
    )
    return re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], kept)


VALUES = {
    "url": "s3://plants/inat",
    "endpoint": "https://0123456789abcdef0123456789abcdef.eu.r2.cloudflarestorage.com",
    "region": "eu-central-1",
}


@pytest.mark.parametrize("public_url", ["", "https://img.example.org/inat"])
def test_the_output_is_a_section_of_mirror_toml(
    module: Folder, public_url: str, tmp_path: Path, clean_environment: None
) -> None:
    template = (module.path / "bucket.toml.tftpl").read_text()
    names = set(re.findall(r"\$\{(\w+)\}", template))
    call = module.outputs["mirror_toml"]["value"]
    assert set(re.findall(r"(\w+) = ", call)) == names, "what the template is given, and takes"
    (tmp_path / "mirror.toml").write_text(rendered(template, {**VALUES, "public_url": public_url}))

    settings = load(environ={}, cwd=tmp_path)

    assert settings.bucket.url == VALUES["url"]
    assert settings.bucket.public_url == (public_url or None)
    assert settings.bucket.endpoint == (VALUES["endpoint"] if "endpoint" in names else None)
    assert settings.bucket.region == (VALUES["region"] if "region" in names else "auto")


def grants_of(document: Body) -> dict[str, set[str]]:
    """The actions that a policy allows by resource, in any bucket, below any prefix."""
    grants: dict[str, set[str]] = {}
    for statement in document["statement"]:
        for resource in map(literal, statement["resources"]):
            bucket = re.sub(
                r"\$\{aws_s3_bucket.mirror.arn\}|aws_s3_bucket.mirror.arn", "*", resource
            )
            where = bucket.replace("${local.below}", "")
            grants.setdefault(where, set()).update(map(literal, statement["actions"]))
    return grants


# The test server does not know s3:if-none-match, so its writer has the rights of terraform's repairer.
ROLES = {"repairer": WRITER, "reader": READER, "gc": GC}


@pytest.mark.parametrize(("role", "identity"), ROLES.items(), ids=ROLES)
def test_the_test_server_has_the_policies_of_terraform(role: str, identity: Identity) -> None:
    """tests/security uses these policies on a server that enforces them."""
    documents = Folder.read(TERRAFORM / "s3").data
    tried: dict[str, set[str]] = {}
    for statement in json.loads(identity.policy)["Statement"]:
        for resource in statement["Resource"]:
            where = resource.removeprefix("arn:aws:s3:::")
            tried.setdefault(where, set()).update(statement["Action"])
    assert grants_of(documents["aws_iam_policy_document", role]) == tried


def conditions_of(statement: Body) -> set[tuple[str, ...]]:
    return {
        (literal(c["test"]), literal(c["variable"]), *literal(c["values"]))
        for c in statement.get("condition", ())
    }


def test_the_writer_may_add_and_not_overwrite() -> None:
    """tests/security/test_add_only.py tries this rule on a sync."""
    document = Folder.read(TERRAFORM / "s3").data["aws_iam_policy_document", "writer"]
    (source,) = document["source_policy_documents"]
    assert "data.aws_iam_policy_document.repairer.json" in source
    (statement,) = document["statement"]
    assert literal(statement["effect"]) == "Deny"
    assert grants_of(document) == {key: {"s3:PutObject"} for key in ADD_ONLY}
    assert conditions_of(statement) == {
        ("Null", "s3:if-none-match", "true"),
        ("Bool", "s3:ObjectCreationOperation", "true"),
    }


@pytest.mark.parametrize("role", ROLES)
def test_a_role_lists_the_prefix_only(role: str) -> None:
    """A request for a missing key names no prefix, and must be answered with 404."""
    document = Folder.read(TERRAFORM / "s3").data["aws_iam_policy_document", role]
    lists = [s for s in document["statement"] if "s3:ListBucket" in map(literal, s["actions"])]
    assert [conditions_of(statement) for statement in lists] == [
        {("StringLikeIfExists", "s3:prefix", "${local.below}*")}
    ]


def test_the_scan_finds_nothing_and_every_exception_has_a_reason() -> None:
    done = subprocess.run(
        [
            installed("terraform", "venv", "bin", "checkov"),
            *("--directory", TERRAFORM, "--framework", "terraform", "--output", "json"),
            *("--skip-download", "--compact"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("{"), done.stderr
    report = json.loads(done.stdout)
    results = report["results"]
    failed = [(check["check_id"], check["resource"]) for check in results["failed_checks"]]
    assert not failed
    assert report["summary"]["parsing_errors"] == 0
    skipped = {check["check_id"] for check in results["skipped_checks"]}
    text = "\n".join(file.read_text() for file in FILES)
    reasons = dict(re.findall(r"#checkov:skip=(\w+):(.+)", text))
    assert reasons.keys() == skipped, "an exception that is not needed goes"
    assert all(len(reason.split()) >= 2 for reason in reasons.values())


def test_bodies_are_distinguished_from_objects() -> None:
    assert is_body({"__is_block__": True})
    assert not is_body({"a": 1})
