"""Start a server, wait until it answers, and leave nothing of it behind."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

LAUNCHER = Path(__file__).with_name("die_with_parent.py")
REPOSITORY = Path(__file__).resolve().parents[2]
LOG_LINES = 20


class ServerUnavailable(RuntimeError):
    """A server the tests need is not installed, or did not come up. Never a reason to skip."""


def installed(*parts: str) -> Path:
    """The path of something install.sh installs, which must be there."""
    root = Path(os.environ.get("SERVERS_DIR") or REPOSITORY / ".servers").resolve()
    path = root.joinpath(*parts)
    if not path.exists():
        raise ServerUnavailable(f"{path} is not installed; run: make servers")
    return path


def on_path(program: str) -> Path:
    """Where a program of the machine's own is, which must be there."""
    found = shutil.which(program)
    if found is None:
        raise ServerUnavailable(f"{program} is not on the PATH; install it, then run: make servers")
    return Path(found).absolute()


def free_ports(count: int) -> list[int]:
    """Loopback ports that the kernel gives to nobody else while a server is starting.

    A port that was merely bound and closed may be handed out again at once, to another server or to
    any outgoing connection. One that has seen a connection closed by its listening side rests in
    TIME_WAIT for a minute: it is not handed out, but whoever asks for it by number and with
    SO_REUSEADDR, as servers do, may listen on it.
    """
    return [_port_in_time_wait() for _ in range(count)]


def _port_in_time_wait() -> int:
    with socket.socket() as listener, socket.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        accepted.close()  # first, so that it is this side that waits
        port: int = listener.getsockname()[1]
        return port


def eventually(check: Callable[[], bool], *, within: float) -> bool:
    """Ask until the answer is yes or the time is up. No answer yet counts as a no."""
    deadline = time.monotonic() + within
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if check():
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str],
    folder: Path,
    *,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    patience: float = 60.0,
    stop_signal: signal.Signals = signal.SIGTERM,
    grace: float = 5.0,
) -> Iterator[None]:
    """Run a server inside `folder`, from when `ready` says so until the block is left.

    It is sent `stop_signal` at the end of the block, or by the kernel when this process dies; what
    is left of it after `grace` seconds is killed. The kernel takes the end of the *thread* that
    starts a server for the death of its process: start servers in the main thread.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    launcher = [sys.executable, "-I", "-S", LAUNCHER, f"{os.getpid()}", f"{stop_signal:d}"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in (*launcher, *command)],
            cwd=folder,
            # What it writes beside its data goes away with the folder, too.
            env={**os.environ, "TMPDIR": str(folder), **(environment or {})},
            stdin=subprocess.PIPE,  # held open: its end tells a server that we are gone
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for pytest, which then stops the server in order
        )
    try:
        _wait_until_ready(name, process, ready, patience, log)
        yield
    finally:
        _stop(process, stop_signal, grace)


def _wait_until_ready(
    name: str,
    process: subprocess.Popen[bytes],
    ready: Callable[[], bool],
    patience: float,
    log: Path,
) -> None:
    if not eventually(lambda: process.poll() is not None or ready(), within=patience):
        problem = f"did not answer within {patience:g} seconds"
    elif process.poll() is not None:
        problem = f"ended with status {process.returncode} before it was ready"
    else:
        return
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    raise ServerUnavailable("\n  ".join([f"{name} {problem}; its log ends:", *lines]))


def _stop(process: subprocess.Popen[bytes], stop_signal: signal.Signals, grace: float) -> None:
    """End the process and whatever it started; `start_new_session` made them one group."""
    try:
        process.send_signal(stop_signal)
        process.wait(grace)
    except subprocess.TimeoutExpired:
        pass  # what has not left by now is made to
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
