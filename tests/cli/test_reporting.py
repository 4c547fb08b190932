"""A run that nobody watches: its metrics, what its monitor hears, and its log for programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mirror.cli.main import run
from mirror.cli.ping import ping_url
from mirror.run.lock import locked
from mirror.run.metrics import FinishedRun, rendered, samples, write
from mirror.run.run_id import new_run_id
from tests.cli.test_bad_input import OBEYING
from tests.operations.test_monitoring import RULES
from tests.support.photos import blank, fill, name_of, photo, url_of

LABELS = {"command": "sync", "bucket": "s3://b", "cache": "/c"}


def read(text: str) -> dict[str, float]:
    """Metrics as Prometheus reads them: `name{outcome or reason}` → value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in LABELS}
            name = ",".join(labels.values())
            found[f"{sample.name}{{{name}}}" if name else sample.name] = sample.value
    return found


def finished(exit_status: int = 0, ended_at: float = 100.0, **report: Any) -> FinishedRun:
    return FinishedRun(LABELS, exit_status, ended_at, 2.5, report, exit_status == 0)


def test_counts_bytes_requests_and_reasons_each_have_their_metric() -> None:
    run = finished(
        scanned=9, failed=0, bytes_uploaded=7, bytes=5, retries=2, catalog_version=4, seconds=2.5,
        dry_run=False, flagged={"blank": 1}, requests={"put": 3}, failures=[], run_id="x",
    )  # fmt: skip
    assert read(rendered(list(samples(run)))) == {
        "mirror_run_timestamp_seconds": 100.0,
        "mirror_run_success_timestamp_seconds": 100.0,
        "mirror_run_exit_status": 0,
        "mirror_run_duration_seconds": 2.5,
        "mirror_run_items{scanned}": 9,
        "mirror_run_items{failed}": 0,
        "mirror_run_bytes{uploaded}": 7,
        "mirror_run_bytes{moved}": 5,
        "mirror_run_retries": 2,
        "mirror_catalog_version": 4,
        "mirror_run_items_by_reason{flagged,blank}": 1,
        "mirror_run_requests{put}": 3,
    }


def test_a_time_is_not_rounded() -> None:
    text = rendered(list(samples(finished(ended_at=1795493767.647))))
    assert read(text)["mirror_run_timestamp_seconds"] == 1795493767.647


def test_odd_characters_in_a_label_are_escaped() -> None:
    labels = {"command": "sync", "cache": 'a"b\\c\nd\udcff'}
    text = rendered(list(samples(FinishedRun(labels, 0, 1.0, 1.0, {}, succeeded=True))))
    (family, *_) = text_string_to_metric_families(text)
    assert family.samples[0].labels["cache"] == 'a"b\\c\nd?'


def test_what_a_run_does_not_know_is_kept_from_before(tmp_path: Path) -> None:
    file = tmp_path / "m.prom"
    write(file, finished(0, 100.0, catalog_version=7, scanned=3))
    write(file, finished(1, 200.0))
    after = read(file.read_text())
    assert after["mirror_run_success_timestamp_seconds"] == 100.0
    assert after["mirror_catalog_version"] == 7
    assert (after["mirror_run_timestamp_seconds"], after["mirror_run_exit_status"]) == (200.0, 1)
    assert "mirror_run_items{scanned}" not in after, "the counts are the last run's"
    write(file, finished(3, 300.0))
    assert read(file.read_text())["mirror_run_success_timestamp_seconds"] == 100.0


def test_what_was_damaged_is_not_well_because_a_run_could_not_begin(tmp_path: Path) -> None:
    file = tmp_path / "verify.prom"
    write(file, finished(3, missing=2, mismatched=0, orphaned=1))
    write(file, finished(1, 200.0))
    after = read(file.read_text())
    assert after["mirror_run_exit_status"] == 1
    assert after["mirror_run_items{missing}"] == 2
    assert "mirror_run_items{orphaned}" not in after
    write(file, finished(0, 300.0, missing=0, mismatched=0))
    assert read(file.read_text())["mirror_run_items{missing}"] == 0


def test_another_mirrors_success_is_not_ours(tmp_path: Path) -> None:
    file = tmp_path / "m.prom"
    write(file, finished(0, 100.0))
    write(file, FinishedRun({**LABELS, "bucket": "s3://other"}, 1, 200.0, 1.0, {}, succeeded=False))
    assert "mirror_run_success_timestamp_seconds" not in read(file.read_text())


@pytest.mark.parametrize("before", [b"", b"\xff\xfe", b"no metrics", b"mirror_catalog_version{"])
def test_a_file_that_is_no_metrics_is_replaced(tmp_path: Path, before: bytes) -> None:
    file = tmp_path / "m.prom"
    file.write_bytes(before)
    write(file, finished(1))
    assert read(file.read_text())["mirror_run_exit_status"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m.prom"]


def test_what_is_no_plain_file_is_left_alone(tmp_path: Path, clean_environment: None) -> None:
    """A device may be read without end: 2 GB of memory are the end of it here."""
    fill(tmp_path / "cache", {url_of(1): photo(1)})
    place = [f"--bucket=file://{tmp_path}/m", f"--state={tmp_path}/s", f"--cache={tmp_path}/cache"]
    command = [sys.executable, "-m", "mirror", "-q", "sync", *place, "--metrics-file=/dev/full"]
    before = os.stat("/dev/full").st_mode
    done = subprocess.run(
        ["sh", "-c", 'ulimit -v 2000000 && exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("mirror: The metrics of this run are not in /dev/full: ")
    assert "not a plain file" in done.stderr
    assert os.stat("/dev/full").st_mode == before


def test_the_exporter_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write(tmp_path / "m.prom", finished())
    finally:
        os.umask(before)
    assert (tmp_path / "m.prom").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://hc.example/uuid", "https://hc.example/uuid/start?rid=RID"),
        ("https://hc.example/uuid/", "https://hc.example/uuid/start?rid=RID"),
        ("http://hc.example/p?create=1", "http://hc.example/p/start?create=1&rid=RID"),
        ("http://hc.example", "http://hc.example/start?rid=RID"),
    ],
)
def test_the_address_of_a_signal(url: str, expected: str) -> None:
    rid = str(uuid.uuid5(uuid.NAMESPACE_OID, "run"))
    assert ping_url(url, "start", "run") == expected.replace("RID", rid)


def test_run_ids_differ() -> None:
    assert len({new_run_id() for _ in range(100)}) == 100


class Monitor:
    """Hears `(signal, rid, body)`; answers what it is told to."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, str]] = []
        self.status = 200
        monitor = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                path, _, query = self.path.partition("?rid=")
                monitor.heard.append((path.removeprefix("/secret/"), query, body))
                self.send_response(monitor.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Silence."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/secret"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    monitor = Monitor()
    yield monitor
    monitor.close()


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class CronSetup:
    """A cache and a mirror in a folder, and `mirror` as cron calls it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.metrics = folder / "sync.prom"
        self._capsys = capsys
        fill(self.cache, {url_of(n): photo(n) for n in range(3)} | {url_of(9): blank()})
        (folder / "mirror.toml").write_text(
            f'[cache]\ndir = "cache"\n[bucket]\nurl = "file://{folder}/mirror"\n'
            '[state]\ndir = "state"\n'
        )

    def run(self, *arguments: str) -> Done:
        self._capsys.readouterr()
        return Done(run(list(arguments)), *self._capsys.readouterr())

    def run_obeying_permissions(self, *arguments: str) -> Done:
        """In a process of its own: root, who could read what has no permissions, gives that up."""
        command = [*OBEYING, sys.executable, "-m", "mirror", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=60
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def sync(self, monitor: Monitor, *arguments: str) -> Done:
        reports = (f"--metrics-file={self.metrics}", f"--ping={monitor.url}")
        return self.run("-q", "--json", "sync", *reports, *arguments)


@pytest.fixture
def cron_setup(
    tmp_path: Path,
    clean_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> CronSetup:
    monkeypatch.chdir(tmp_path)
    return CronSetup(tmp_path, capsys)


def test_a_run_tells_its_beginning_its_end_and_its_counts(
    cron_setup: CronSetup, monitor: Monitor
) -> None:
    done = cron_setup.sync(monitor)
    assert done.returncode == 0, done.stderr
    (start, rid, _), (end, same_rid, body) = monitor.heard
    assert (start, end) == ("start", "0")
    report = json.loads(done.stdout)
    assert rid == same_rid == str(uuid.uuid5(uuid.NAMESPACE_OID, report["run_id"]))
    head, _, log = body.partition("\n")
    assert head == f"run {report['run_id']}: exit status 0"
    assert json.loads(log) == report
    metrics = read(cron_setup.metrics.read_text())
    assert metrics["mirror_run_items{uploaded}"] == 3
    assert metrics["mirror_run_items_by_reason{flagged,blank}"] == 1
    assert metrics["mirror_run_bytes{uploaded}"] == report["bytes_uploaded"]
    assert metrics["mirror_catalog_version"] == report["catalog_version"]
    first = metrics["mirror_run_success_timestamp_seconds"]

    cron_setup.sync(monitor)
    metrics = read(cron_setup.metrics.read_text())
    assert metrics["mirror_run_items{unchanged}"] == 4
    assert metrics["mirror_catalog_version"] == report["catalog_version"], "kept: nothing was read"
    assert metrics["mirror_run_success_timestamp_seconds"] > first


EVERY = {
    # command: its words, its exit status, and something that its metrics tell
    "sync": ([], 0, "mirror_run_items{uploaded}"),
    "verify": ([], 0, "mirror_run_items{checked}"),
    "gc": (["--grace-days=2"], 0, "mirror_run_items{planned}"),
    "pull": (["--cache=pulled"], 0, "mirror_run_bytes{moved}"),
    "backfill": (["in.jsonl", "--contact=a@example.org"], 3, "mirror_run_requests{get}"),
}


@pytest.mark.parametrize("command", EVERY)
def test_every_command_that_runs_unattended_reports(
    cron_setup: CronSetup, monitor: Monitor, command: str
) -> None:
    assert cron_setup.run("-q", "sync").returncode == 0
    # On no list of hosts, so that nobody is asked.
    (cron_setup.folder / "in.jsonl").write_text('{"image_url": "https://img.example.org/1.jpg"}\n')
    words, status, told = EVERY[command]
    done = cron_setup.run(
        *("-q", "--json", command, *words),
        *(
            f"--metrics-file={cron_setup.folder}/{{command}}.prom",
            f"--ping={monitor.url}/{{command}}",
        ),
    )
    assert done.returncode == status, done.stderr
    (start, rid, _), (end, same_rid, body) = monitor.heard
    # An image that is gone is no reason to wake somebody.
    assert (start, end) == (f"{command}/start", f"{command}/0")
    report = json.loads(done.stdout)
    assert rid == same_rid == str(uuid.uuid5(uuid.NAMESPACE_OID, report["run_id"]))
    assert json.loads(body.partition("\n")[2]) == report
    text = (cron_setup.folder / f"{command}.prom").read_text()
    metrics = read(text)
    assert metrics["mirror_run_exit_status"] == status
    assert "mirror_run_success_timestamp_seconds" in metrics
    assert told in metrics
    assert f'{{command="{command}",bucket="file://{cron_setup.folder}/mirror",' in text


def test_the_cure_of_damage_ends_its_alert(
    cron_setup: CronSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands that the alert and the page name, as they name them, with the timers' environment."""
    root = Path(__file__).resolve().parents[2]
    (rule,) = (rule for rule in RULES if rule["alert"] == "MirrorDamaged")
    (row,) = re.findall(
        r"^\| `MirrorDamaged` \|.*", (root / "docs" / "operations.md").read_text(), re.MULTILINE
    )
    cure = re.findall(r"mirror (repair|verify)\b", rule["annotations"]["description"])
    assert re.findall(r"`mirror (repair|verify)\b", row) == cure

    selector = re.fullmatch(r'(\w+)\{command="(\w+)", outcome=~"([\w|]+)"\} > 0', rule["expr"])
    assert selector

    def alert_is_on() -> bool:
        text = "".join(path.read_text() for path in cron_setup.folder.glob("*.prom"))
        values = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == selector[1]
            and sample.labels["command"] == selector[2]
            and sample.labels["outcome"] in selector[3].split("|")
        ]
        assert values
        return max(values) > 0

    monkeypatch.setenv("MIRROR_METRICS_FILE", f"{cron_setup.folder}/{{command}}.prom")
    assert cron_setup.run("-q", "sync").returncode == 0
    next((cron_setup.folder / "mirror" / "objects").rglob("*.jpg")).unlink()
    assert cron_setup.run("-q", "verify").returncode == 3
    assert alert_is_on()
    for command in cure:
        assert cron_setup.run("-q", command).returncode == 0
    assert not alert_is_on()


@pytest.mark.parametrize("command", [name for name in EVERY if name != "verify"])
def test_a_dry_run_reports_nothing(cron_setup: CronSetup, monitor: Monitor, command: str) -> None:
    assert cron_setup.run("-q", "sync").returncode == 0
    (cron_setup.folder / "in.jsonl").write_text("")
    reports = (f"--metrics-file={cron_setup.metrics}", f"--ping={monitor.url}")
    cron_setup.run(command, *EVERY[command][0], *reports, "--dry-run")
    assert not monitor.heard
    assert not cron_setup.metrics.exists()


@pytest.mark.parametrize("command", [name for name in EVERY if name != "sync"])
def test_a_mirror_that_is_not_there_is_told_to_the_monitor(
    cron_setup: CronSetup, monitor: Monitor, command: str
) -> None:
    reports = (f"--metrics-file={cron_setup.metrics}", f"--ping={monitor.url}")
    done = cron_setup.run(command, *EVERY[command][0], *reports)
    (signal, _, body) = monitor.heard[-1]
    assert signal == str(done.returncode)
    assert done.returncode in (1, 2)
    assert read(cron_setup.metrics.read_text())["mirror_run_exit_status"] == done.returncode
    assert "exit status" in body


def test_a_failure_is_told_with_its_reason(cron_setup: CronSetup, monitor: Monitor) -> None:
    cron_setup.sync(monitor)
    monitor.heard.clear()
    done = cron_setup.sync(monitor, "--cache=cache/nowhere")
    assert done.returncode == 1
    (start, _, _), (end, _, body) = monitor.heard
    assert (start, end) == ("start", "1")
    assert "does not exist" in body


def test_files_that_fail_are_told_by_status_3(cron_setup: CronSetup, monitor: Monitor) -> None:
    (cron_setup.cache / name_of(url_of(2))).chmod(0)
    reports = (f"--metrics-file={cron_setup.metrics}", f"--ping={monitor.url}")
    assert cron_setup.run_obeying_permissions("-q", "sync", *reports).returncode == 3
    assert [signal for signal, _, _ in monitor.heard] == ["start", "3"]
    metrics = read(cron_setup.metrics.read_text())
    assert metrics["mirror_run_items{failed}"] == 1
    assert "mirror_run_success_timestamp_seconds" not in metrics


def test_a_configuration_that_is_wrong_is_told_too(cron_setup: CronSetup, monitor: Monitor) -> None:
    (cron_setup.folder / "mirror.toml").write_text("[bucket]\nurll = 's3://b'\n")
    assert cron_setup.sync(monitor).returncode == 78
    ((signal, _, body),) = monitor.heard
    assert signal == "78"
    assert "bucket.urll" in body
    assert not cron_setup.metrics.exists(), "whose metrics they are is not known"


def test_a_run_that_finds_another_at_work_reports_nothing(
    cron_setup: CronSetup, monitor: Monitor
) -> None:
    cron_setup.sync(monitor)
    monitor.heard.clear()
    before = cron_setup.metrics.read_text()
    (state,) = (cron_setup.folder / "state").glob("*/state.sqlite")
    with locked(state.parent, "sync"):
        assert cron_setup.sync(monitor).returncode == 75
    assert not monitor.heard
    assert cron_setup.metrics.read_text() == before


def test_a_monitor_that_is_away_or_unwell_does_not_fail_the_run(
    cron_setup: CronSetup, monitor: Monitor
) -> None:
    monitor.status = 500
    done = cron_setup.sync(monitor)
    assert done.returncode == 0
    assert "did not hear of this run: it answered 500" in done.stderr
    monitor.heard.clear()
    monitor.status = 307
    done = cron_setup.sync(monitor)
    assert "did not hear of this run: it answered 307" in done.stderr
    assert {signal for signal, _, _ in monitor.heard} == {"start", "0"}, "nobody else is told"
    done = cron_setup.run("-q", "sync", "--ping=http://127.0.0.1:9/very-secret")
    assert done.returncode == 0
    assert done.stderr.count("did not hear of this run: Connection refused.") == 2
    assert "very-secret" not in done.stderr, "who knows the address can silence the monitor"


def test_metrics_that_cannot_be_written_do_not_fail_the_run(
    cron_setup: CronSetup, monitor: Monitor
) -> None:
    cron_setup.metrics = cron_setup.folder / "no" / "such" / "folder.prom"
    done = cron_setup.sync(monitor)
    assert done.returncode == 0
    assert "are not in" in done.stderr


def test_both_can_stand_in_the_environment(
    cron_setup: CronSetup, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIRROR_PING", monitor.url)
    monkeypatch.setenv("MIRROR_METRICS_FILE", str(cron_setup.metrics))
    assert cron_setup.run("-q", "sync").returncode == 0
    assert [signal for signal, _, _ in monitor.heard] == ["start", "0"]
    assert cron_setup.metrics.exists()


def test_an_address_that_is_none_is_refused(cron_setup: CronSetup) -> None:
    done = cron_setup.run("sync", "--ping=file:///etc/passwd")
    assert done.returncode == 2
    assert "web address" in done.stderr


def records(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize("before", [True, False], ids=["before the command", "after it"])
def test_a_log_for_programs_is_an_object_a_line(cron_setup: CronSetup, before: bool) -> None:
    words = ["--log-format=json", "sync"] if before else ["sync", "--log-format=json"]
    done = cron_setup.run("--json", *words)
    (record,) = records(done)
    assert record["run_id"] == json.loads(done.stdout)["run_id"]
    assert record["level"] == "info"
    assert record["message"].startswith("4 files scanned")
    assert record["time"].endswith("+00:00")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["sync", "--cache=nowhere"], 1, "does not exist"),
        (["sync", "--no-such-option"], 2, "No such option"),
        (["sync", "--bucket=http://b"], 78, "s3://BUCKET"),
    ],
)
def test_errors_are_objects_too(
    cron_setup: CronSetup, arguments: list[str], status: int, words: str
) -> None:
    done = cron_setup.run("--log-format=json", *arguments)
    assert done.returncode == status
    record = records(done)[-1]
    assert record["level"] == "error"
    assert words in record["message"]


def test_files_that_failed_are_one_object(cron_setup: CronSetup) -> None:
    (cron_setup.cache / name_of(url_of(2))).chmod(0)
    done = cron_setup.run_obeying_permissions("--log-format=json", "-q", "sync")
    assert done.returncode == 3
    (record,) = records(done)
    assert record["message"] == "1 file failed"
    assert (len(record["items"]), record["left_out"]) == (1, 0)
    assert record["items"][0].startswith(name_of(url_of(2)))


@pytest.mark.parametrize(("most", "left"), [("1", ["3"]), ("9", [])])
def test_what_a_limit_leaves_is_said(cron_setup: CronSetup, most: str, left: list[str]) -> None:
    done = cron_setup.run("sync", f"--max-files={most}")
    assert done.returncode == 0
    assert re.findall(r"^left +(\d+)  for the next run", done.stdout, re.MULTILINE) == left
