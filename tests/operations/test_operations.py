"""Follows docs/operations.md word for word, against SeaweedFS."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mirror import errors
from mirror.store.base import Create, Headers, list_all
from tests.cli.test_reporting import Monitor
from tests.conftest import MakePlace, Place
from tests.support.photos import blank, fill, photo, url_of

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text()
MARK = re.compile(r"<!-- ((?:not )?tried[^\n]*?) -->\n```console\n(.*?)```", re.DOTALL)
BLOCKS = MARK.findall(TEXT)


def test_every_console_block_is_marked_as_tried_or_not() -> None:
    assert len(BLOCKS) == TEXT.count("```console")
    for mark, block in BLOCKS:
        assert mark in ("tried", "tried: without a cache", "tried: moved") or mark.startswith(
            "not tried: it "
        )
        assert all(line.startswith("$ ") for line in block.splitlines()), block


def test_root_creates_nothing_in_the_users_state() -> None:
    """The timers' runs cannot write root's files, so root runs only commands that create none."""
    for _, block in BLOCKS:
        for line in block.splitlines():
            program = re.match(r"\$ (?:\S+/)?mirror ", line)
            own = " schedule" in line or (" init " in line and "--no-doctor" in line)
            assert not program or own, line
    assert not re.search(r"`(?:sudo )?mirror --config", TEXT)


def test_every_exit_status_has_its_row() -> None:
    table = TEXT.split("## When a run fails", 1)[1].split("## ", 1)[0]
    rows = {int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    ours = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert rows == ours | {137}


def test_every_alert_has_its_row() -> None:
    rules = yaml.safe_load((ROOT / "config" / "prometheus" / "mirror.rules.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert set(re.findall(r"^\| `(Mirror\w+)` \|", TEXT, re.MULTILINE)) == alerts


def test_files_that_are_installed_are_there() -> None:
    for path in re.findall(r"(?<![/\w])config/[\w./@-]+", TEXT):
        assert (ROOT / path).exists(), path


# $AS names the user of a program, because the user `mirror` does not exist here. Root may create nothing in
# that user's state, and the user cannot read root's current folder.
MIRROR = """\
#!/bin/sh
case "$AS $*" in
    "mirror "* | " init "*--no-doctor*) exec {python} -m mirror "$@" ;;
esac
echo "the user cannot write root's files: mirror $*" >&2
exit 1
"""
RUNUSER = """\
#!/bin/sh
[ "$1 $2 $3 $PWD" = "-u mirror -- /" ] || { echo "runuser $* in $PWD" >&2; exit 1; }
shift 3
AS=mirror exec "$@"
"""


SET_ENVIRONMENT = "set -a; . /etc/mirror/monitoring; . /etc/mirror/environment; set +a"


def file_of_the_page(name: str) -> dict[str, str]:
    """The variables of a file in /etc/mirror that the page shows."""
    shown = TEXT.split(f"<!-- the file: /etc/mirror/{name} -->\n```ini\n")[1].split("```")[0]
    return dict(line.split("=", 1) for line in shown.splitlines())


def write_variables(file: Path, values: dict[str, str]) -> None:
    file.write_text("".join(f"{name}={value}\n" for name, value in values.items() if value))


class Machine:
    """The page's machine in a folder: /etc/mirror, /data, /var/lib/mirror and so on."""

    def __init__(self, folder: Path, place: Place) -> None:
        self.folder = folder
        self.place = place
        self.cache = folder / "cache"
        self.environment = folder / "etc" / "environment"
        self.metrics = folder / "mirror-sync.prom"
        self.config = folder / "etc" / "mirror.toml"
        self.config.parent.mkdir()
        fill(self.cache, {url_of(n): photo(n % 9) for n in range(12)} | {url_of(99): blank()})
        programs = folder / "bin"
        programs.mkdir()
        mirror = programs / "mirror"
        mirror.write_text(MIRROR.format(python=shlex.quote(sys.executable)))
        mirror.chmod(0o755)
        runuser = programs / "runuser"
        runuser.write_text(RUNUSER)
        runuser.chmod(0o755)

    def here(self, text: str) -> str:
        """The page's commands with this machine's paths."""
        for theirs, ours in {
            "/opt/mirror/bin/mirror": str(self.folder / "bin" / "mirror"),
            "/etc/mirror": str(self.folder / "etc"),
            "/data/image_cache": str(self.cache),
            "/var/lib/mirror": str(self.folder / "state"),
            "s3://plants/inat": self.place.layer["url"],
            "https://ACCOUNT.r2.cloudflarestorage.com": self.place.layer["endpoint"],
            " -o mirror -g mirror": "",
            "--region auto": f"--region {self.place.layer['region']}",
        }.items():
            text = text.replace(theirs, ours)
        return text

    def write_environment(self, ping: str = "") -> None:
        """Write the files from the page, with the server's key."""
        assert self.place.server is not None
        values = file_of_the_page("environment")
        values["AWS_ACCESS_KEY_ID"] = self.place.server.access_key
        values["AWS_SECRET_ACCESS_KEY"] = self.place.server.secret_key
        write_variables(self.environment, values)
        values = file_of_the_page("monitoring")
        assert values["MIRROR_METRICS_FILE"].endswith("/mirror-{command}.prom")
        values["MIRROR_METRICS_FILE"] = f"{self.folder}/mirror-{{command}}.prom"
        values["MIRROR_PING"] = ping
        write_variables(self.environment.with_name("monitoring"), values)

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_ACC", "AWS_SEC"))}
        kept["PATH"] = f"{self.folder / 'bin'}{os.pathsep}{kept['PATH']}"
        return subprocess.run(
            ["/bin/sh", "-e"],
            input=self.here(script),
            cwd=self.folder,
            env=kept,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def follow(self, block: str) -> str:
        """Run a block's commands, which must all succeed. Returns their output."""
        commands = [line.removeprefix("$ ") for line in block.splitlines()]
        done = self.shell("\n".join(commands))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def service(self) -> subprocess.CompletedProcess[str]:
        """Run ExecStart of the unit with the unit's environment, as the timer does."""
        unit = (ROOT / "config" / "systemd" / "mirror-sync.service").read_text()
        settings = re.findall(r"^(User|EnvironmentFile|ExecStart)=-?(.*)$", unit, re.MULTILINE)
        files = " ".join(f". {value};" for name, value in settings if name == "EnvironmentFile")
        service = dict(settings)
        return self.shell(
            f"set -a; {files} set +a; export AS={service['User']}; exec {service['ExecStart']}"
        )

    def status(self) -> dict[str, object]:
        done = self.shell(
            f"{SET_ENVIRONMENT}; cd /\n"
            "runuser -u mirror -- mirror --json --config /etc/mirror/mirror.toml status"
        )
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def machine(make_place: MakePlace, tmp_path: Path) -> Machine:
    return Machine(tmp_path, make_place("seaweedfs-obstore"))


async def objects_of(place: Place) -> dict[str, bytes]:
    """All objects of a mirror, in the order in which the page copies them."""
    store = place.open()
    keys = [
        info.key for prefix in ("objects/", "catalog/") async for info in list_all(store, prefix)
    ]
    found = {key: await store.get(key) for key in [*keys, "format.json"]}
    await store.aclose()
    return found


async def put_objects(place: Place, objects: dict[str, bytes]) -> None:
    store = place.open()
    for key, body in objects.items():
        await store.put(key, body, Create(), Headers())
    await store.aclose()


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    monitor = Monitor()
    yield monitor
    monitor.close()


def test_the_whole_page_works(machine: Machine, make_place: MakePlace, monitor: Monitor) -> None:
    tried = [block for mark, block in BLOCKS if mark == "tried"]
    configure, look, fill_it, every_month, new_machine = tried
    machine.write_environment(f"{monitor.url}/{{command}}")
    setting = f"$ cd /\n$ {SET_ENVIRONMENT}\n"
    assert setting in configure + new_machine, "the page sets the environment in the same way"

    printed = machine.follow(configure)
    assert "FAIL" not in printed
    assert "warn" not in printed
    assert "Dry run: nothing was read, sent or written." in machine.follow(setting + look)
    printed = machine.follow(setting + fill_it)
    assert re.search(r"unchanged +13\n", printed), printed
    assert re.search(r"requests +1  list 1\n", printed), printed

    # The timer's second run has nothing to do.
    monitor.heard.clear()
    done = machine.service()
    assert done.returncode == 0, done.stderr
    assert re.search(r"unchanged +13\n", done.stdout)
    metrics = machine.metrics.read_text()
    assert 'outcome="uploaded"} 0\n' in metrics
    assert re.search(r"^mirror_run_exit_status\{.*\} 0$", metrics, re.MULTILINE)

    assert [signal for signal, _, _ in monitor.heard] == ["sync/start", "sync/0"]

    # A failure is reported.
    machine.cache.rename(machine.folder / "unmounted")
    done = machine.service()
    assert done.returncode == 1
    assert "mounted" in done.stderr
    metrics = machine.metrics.read_text()
    assert re.search(r"^mirror_run_exit_status\{.*\} 1$", metrics, re.MULTILINE)
    assert "mirror_run_success_timestamp_seconds" in metrics
    (signal, _, body) = monitor.heard[-1]
    assert signal == "sync/1"
    assert "mounted" in body
    (machine.folder / "unmounted").rename(machine.cache)

    # Every month.
    printed = machine.follow(setting + every_month)
    assert re.search(r"read back +\d", printed), printed
    assert re.search(r"orphaned +0\n", printed), printed
    assert 'command="verify"' in (machine.folder / "mirror-verify.prom").read_text()
    assert 'command="sync"' in machine.metrics.read_text(), "no command writes over another's"

    # A new machine uploads nothing.
    printed = machine.follow(setting + new_machine)
    assert re.search(r"uploaded +0  0 B\n", printed), printed
    assert machine.status()["unsynced"] == {"new": 0, "changed": 0, "bytes": 0}
    before = machine.status()

    # A machine without the cache restores it.
    machine.cache.rename(machine.folder / "lost")
    (without,) = (block for mark, block in BLOCKS if mark == "tried: without a cache")
    printed = machine.follow(setting + without)
    assert re.search(r"pulled +12\b", printed), printed
    assert re.search(r"uploaded +0  0 B\n", printed), printed
    for file in machine.cache.iterdir():
        assert file.read_bytes() == (machine.folder / "lost" / file.name).read_bytes()
    assert len(list(machine.cache.iterdir())) == 12, "all but the blank one"
    shutil.rmtree(machine.cache)
    (machine.folder / "lost").rename(machine.cache)

    # A copied bucket is named in the configuration, and nothing is uploaded again.
    objects = asyncio.run(objects_of(machine.place))
    other = make_place("miniflare-obstore")  # from here on, its key is in the environment
    asyncio.run(put_objects(other, objects))
    text = machine.config.read_text()
    for name in ("url", "endpoint", "region"):
        old = f'{name} = "{machine.place.layer[name]}"'
        assert old in text
        text = text.replace(old, f'{name} = "{other.layer[name]}"')
    machine.config.write_text(text)
    machine.place = other
    machine.write_environment()
    (moved,) = (block for mark, block in BLOCKS if mark == "tried: moved")
    printed = machine.follow(moved)
    assert "FAIL" not in printed
    assert re.search(r"uploaded +0  0 B\n", printed), printed
    after = machine.status()
    for key in ("files", "objects", "bytes", "verdicts"):
        assert after[key] == before[key], key


def test_an_ended_key_is_reported(machine: Machine) -> None:
    machine.write_environment()
    for mark, block in BLOCKS[:4]:
        if mark == "tried":
            machine.follow(f"$ cd /\n$ {SET_ENVIRONMENT}\n{block}")
    text = machine.environment.read_text()
    machine.environment.write_text(re.sub(r"(SECRET_ACCESS_KEY=).*", r"\1ended", text))
    done = machine.service()
    assert done.returncode == 78
    assert "not accepted" in done.stderr
