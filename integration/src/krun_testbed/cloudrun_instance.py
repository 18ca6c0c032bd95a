"""One service of Cloud Run, and the container that runs for it: a command with the platform's environment."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from krun_testbed.processes import environment, listens

GRACE = 10.0  # seconds from SIGTERM to SIGKILL (the platform's)
STARTUP = 240.0  # seconds until a container must listen (the platform's default)


class Failed(Exception):
    """The front or an instance did not start, or has died; the text names it and says why."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service: its name, the host of its URL, and what its container runs (argv, or a text for ``sh -c``)."""

    name: str
    host: str
    command: str | Sequence[str]
    address: str
    env: Mapping[str, str] = field(default_factory=dict)
    port: int = 15009
    allow_unauthenticated: bool = False
    http2: bool = True  # --use-http2: the container is spoken to by HTTP/2 without TLS, else by HTTP/1.1
    startup_timeout: float = STARTUP
    # Where stdout and stderr go; None: to ours.
    log: Path | None = None


class Instance:
    """One running container of a service: a process group with the platform's environment."""

    def __init__(self, service: Service, *, died: Callable[[str], None]) -> None:
        self.service = service
        self._died = died
        self._stopping = False
        self._revision = f"{service.name}-00001-{secrets.token_hex(2)}"
        self._process = self._start()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status as a shell gives it (128+N after a signal); None while it runs."""
        status = self._process.poll()
        return status if status is None or status >= 0 else 128 - status

    def wait_until_started(self) -> None:
        """The startup probe: TCP on PORT. Failed when it ends before, or does not listen in time."""
        service = self.service
        deadline = time.monotonic() + service.startup_timeout
        while not listens(service.address, service.port):
            if self.status is not None:
                raise Failed(f"{service.name}: the container ended with {self.status} before it listened on PORT")
            if time.monotonic() > deadline:
                where = f"{service.address}:{service.port}"
                raise Failed(f"{service.name}: nothing listens on {where} after {service.startup_timeout:g} s")
            time.sleep(0.01)

    def stop(self, *, grace: float = GRACE) -> int:
        """SIGTERM to the container's first process, SIGKILL to all after ``grace`` seconds; returns the status."""
        self._stopping = True
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        # A container's other processes end with its first one, whatever session or group they made for themselves.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pid in self._others():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._watcher.join(2.0)
        return self.status or 0

    def _start(self) -> subprocess.Popen[bytes]:
        service = self.service
        argv = ["/bin/sh", "-c", service.command] if isinstance(service.command, str) else list(service.command)
        platform = {
            "PORT": str(service.port),
            "K_SERVICE": service.name,
            "K_REVISION": self._revision,
            "K_CONFIGURATION": service.name,
        }
        with contextlib.ExitStack() as stack:
            output: IO[bytes] | None = stack.enter_context(service.log.open("ab")) if service.log else None
            try:
                return subprocess.Popen(
                    argv,
                    env={**environment(), **service.env, **platform},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            except OSError as error:
                raise Failed(f"{service.name}: cannot start {argv[0]}: {error.strerror}") from error

    def _watch(self) -> None:
        self._process.wait()
        if not self._stopping:
            self._died(f"{self.service.name}: the container ended with {self.status}")

    def _others(self) -> list[int]:
        mark = f"K_REVISION={self._revision}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                with contextlib.suppress(OSError):
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        found.append(int(folder.name))
        return found
