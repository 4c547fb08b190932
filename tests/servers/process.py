"""Starts a server, waits until it answers, and leaves nothing behind."""

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
    """A server is not installed, or did not start. Tests must not skip because of it."""


def installed(*parts: str) -> Path:
    """The path of a program that install.sh has installed. Raises if it is missing."""
    root = Path(os.environ.get("SERVERS_DIR") or REPOSITORY / ".servers").resolve()
    path = root.joinpath(*parts)
    if not path.exists():
        raise ServerUnavailable(f"{path} is not installed; run: make servers")
    return path


def on_path(program: str) -> Path:
    """The path of a program of the machine. Raises if it is missing."""
    found = shutil.which(program)
    if found is None:
        raise ServerUnavailable(f"{program} is not on the PATH; install it, then run: make servers")
    return Path(found).absolute()


def free_ports(count: int) -> list[int]:
    """Loopback ports that the kernel gives to no other program while a server starts.

    A port that was only bound and closed may be given out again at once, to another server or to an
    outgoing connection. A port whose listening side closed a connection stays in TIME_WAIT for a
    minute. The kernel does not give it out, but a server may still listen on it by number and with
    SO_REUSEADDR.
    """
    return [_port_in_time_wait() for _ in range(count)]


def _port_in_time_wait() -> int:
    with socket.socket() as listener, socket.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        accepted.close()  # first, so that this side waits
        port: int = listener.getsockname()[1]
        return port


def eventually(check: Callable[[], bool], *, within: float) -> bool:
    """Call `check` until it returns true or the time is up. A network error counts as false."""
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
    """Run a server inside `folder`, from the moment that `ready` returns true to the end of the block.

    The server gets `stop_signal` at the end of the block, or from the kernel when this process dies.
    Its remains are killed after `grace` seconds. For the kernel, the end of the *thread* that started
    the server counts as the death of its process. So start servers in the main thread.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    launcher = [sys.executable, "-I", "-S", LAUNCHER, f"{os.getpid()}", f"{stop_signal:d}"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in (*launcher, *command)],
            cwd=folder,
            # Its temporary files go away with the folder, too.
            env={**os.environ, "TMPDIR": str(folder), **(environment or {})},
            stdin=subprocess.PIPE,  # held open: its end shows a server that this process has ended
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C goes to pytest, which then stops the server
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
    """End the process and its children. `start_new_session` made them one group."""
    try:
        process.send_signal(stop_signal)
        process.wait(grace)
    except subprocess.TimeoutExpired:
        pass  # kill the processes that are still running
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
