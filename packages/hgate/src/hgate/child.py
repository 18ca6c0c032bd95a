"""One worker, as the control process has it: a process of its own, and the socket to it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass

from hgate import errors
from hgate.wire import Wire

# Of our environment, a worker gets what TLS, names and times depend on.
VARIABLES = ("LANG", "LC_ALL", "LOCALDOMAIN", "PATH", "RES_OPTIONS", "SSL_CERT_DIR", "SSL_CERT_FILE", "TZ")


@dataclass(frozen=True, kw_only=True)
class LogStyle:
    """How workers log; their stderr is ours."""

    level: str = "info"
    style: str = "auto"


class Child:
    """The worker; it is ended and reaped by ``close``."""

    def __init__(self, *, listener: socket.socket, memory: int, number: int, log_style: LogStyle) -> None:
        """Start it; ``memory`` is the descriptor of what it shares with the others, among whom it has this number.

        Raises:
            Unreachable: this machine cannot start a process.
        """
        self.is_ready = False
        ours, theirs = socket.socketpair()
        numbers = (str(listener.fileno()), str(theirs.fileno()), str(memory), str(number))
        # -I: what is in the folder, or in variables of Python's, is none of its business.
        argv = [sys.executable, "-I", "-m", "hgate.worker", *numbers, log_style.level, log_style.style]
        try:
            self._process = subprocess.Popen(
                argv,
                env={name: os.environ[name] for name in VARIABLES if name in os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(listener.fileno(), theirs.fileno(), memory),
            )
        except OSError as error:
            ours.close()
            raise errors.Unreachable(f"cannot start a worker: {error.strerror}", hint="see ulimit -u, -n") from error
        finally:
            theirs.close()
        self.wire = Wire(ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ended(self) -> int:
        """Wait for its end; the exit status, as a shell gives it."""
        loop = asyncio.get_running_loop()
        descriptor = os.pidfd_open(self.pid)
        is_over = asyncio.Event()
        loop.add_reader(descriptor, is_over.set)
        try:
            await is_over.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        status = self._process.wait()
        return status if status >= 0 else 128 - status

    def kill(self) -> None:
        """It hangs. Its end is waited for by whoever waits already."""
        self._process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """End it, if it has not ended, and forget it."""
        self.wire.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
