"""Start the real commands as a user's shell would, and wait for what they promise: a line, a port, an end."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from krun_testbed import components

WAIT = 20.0  # seconds; generous, as it is only reached when a test fails


def environment(**extra: str) -> dict[str, str]:
    """A small environment in which our commands and the real Envoy are found, and nothing of this machine leaks in."""
    paths = [
        str(Path(sys.executable).parent),
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
    return {
        "PATH": ":".join(paths),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        # No metadata server of this machine is asked: a test that wants one starts its own.
        "NO_GCE_CHECK": "true",
        "KRUN_ENVOY": components.envoy(),
        **extra,
    }


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | None = "",
    timeout: float = 60.0,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; stdin is text through a pipe, or ``None`` for /dev/null."""
    return subprocess.run(
        list(argv),
        env=dict(environment() if env is None else env),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=cwd,
    )


class Running:
    """A command that runs, with what it has said so far on stdout and stderr."""

    def __init__(self, *, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._changed = threading.Condition()
        self._text = {"stdout": "", "stderr": ""}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        return self._text["stdout"]

    @property
    def stderr(self) -> str:
        return self._text["stderr"]

    def wait_for(self, pattern: str, *, timeout: float = WAIT) -> re.Match[str]:
        """Wait until stdout or stderr holds the pattern (multi-line regular expression)."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for text in self._text.values():
                    if match := re.search(pattern, text, re.MULTILINE):
                        return match
                left = deadline - time.monotonic()
                if left <= 0 or not self._reader.is_alive():
                    raise AssertionError(f"{pattern!r} never came from {self.process.args!r}\n{self.said()}")
                self._changed.wait(min(left, 0.5))

    def wait(self, *, timeout: float = WAIT) -> int:
        """Wait for the end, and return the exit status as a shell gives it (128+N after a signal)."""
        if not self.ends(timeout=timeout):
            raise AssertionError(f"{self.process.args!r} has not ended\n{self.said()}")
        self._reader.join(2.0)
        status = self._status()
        return status if status >= 0 else 128 - status

    def ends(self, *, timeout: float) -> bool:
        """Wait for the end, and do not reap: until ``start`` has ended the group, its number must be nobody else's."""
        if self.process.returncode is not None:
            return True
        descriptor = os.pidfd_open(self.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(descriptor, selectors.EVENT_READ)
                return bool(selector.select(timeout))
        finally:
            os.close(descriptor)

    def _status(self) -> int:
        """The status as Popen gives it, of a process that has ended."""
        if self.process.returncode is None:
            end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            if end is not None:
                return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
        return self.process.wait()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def terminate(self, *, timeout: float = WAIT) -> int:
        """SIGTERM, and wait for the end."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout=timeout)

    def said(self) -> str:
        return f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            for name in ("stdout", "stderr"):
                pipe = getattr(self.process, name)
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ, name)
            while selector.get_map():
                for key, _ in selector.select():
                    data = os.read(key.fd, 65536)
                    if not data:
                        selector.unregister(key.fileobj)
                    with self._changed:
                        self._text[key.data] += data.decode(errors="replace")
                        self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


@contextlib.contextmanager
def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[Running]:
    """Start a command; when the block ends it is ended too, with all that is in its process group."""
    process = subprocess.Popen(
        list(argv),
        env=dict(environment() if env is None else env),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=cwd,
        pass_fds=pass_fds,
    )
    running = Running(process=process)
    try:
        yield running
    finally:
        if not running.ends(timeout=0):
            process.send_signal(signal.SIGTERM)
            running.ends(timeout=12)
        # Before the leader is reaped: process numbers come round within minutes of tests, and then this group
        # would be a command of somebody else's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        running._reader.join(2.0)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def wait_until(condition: Callable[[], bool], *, what: str, timeout: float = WAIT, poll: float = 0.01) -> None:
    """Wait until a condition of the outside world holds that nobody announces, such as a port of another process."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout} s")
        time.sleep(poll)


def wait_for_port(address: str, port: int, *, timeout: float = WAIT) -> None:
    """Wait until something listens."""
    wait_until(lambda: listens(address, port), what=f"{address}:{port} listens", timeout=timeout)


def listens(address: str, port: int) -> bool:
    """Tell whether a TCP connection is accepted."""
    try:
        with socket.create_connection((address, port), timeout=1.0):
            return True
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """The processes below a process, at any depth; each may be gone by now."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").glob("*/children"):
                below = [int(word) for word in task.read_text().split()]
                found += below
                waiting += below
    return found


def command_line(pid: int) -> list[str]:
    """The words of a process; none when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")[:-1]
    except OSError:
        return []


def program(pid: int) -> str:
    """The first of them."""
    return next(iter(command_line(pid)), "")


def end_children() -> None:
    """End and reap every process below this one that is still there; a last resort."""
    for pid in children(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
