"""hboned and hbone as processes with TCP servers behind them: what tests of the tunnel share."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from krun_testbed import processes
from krun_testbed.certificates import Authority, write
from krun_testbed.processes import Running

Handler = Callable[[socket.socket], None]


@contextlib.contextmanager
def target(address: str, handler: Handler, *, port: int = 15003) -> Iterator[int]:
    """A TCP server: one thread for each connection, which is closed when its handler returns."""
    threads: list[threading.Thread] = []

    def handle(connected: socket.socket) -> None:
        with connected, contextlib.suppress(ConnectionError):
            handler(connected)

    def accept() -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            connected.settimeout(processes.WAIT)
            threads.append(threading.Thread(target=handle, args=(connected,), daemon=True))
            threads[-1].start()

    with socket.create_server((address, port), backlog=512) as listener:
        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join(processes.WAIT)
    for thread in threads:
        thread.join(processes.WAIT)
        assert not thread.is_alive(), "a target's connection was never closed"


def read_all(connected: socket.socket) -> bytes:
    return b"".join(iter(lambda: connected.recv(65536), b""))


def read_exactly(connected: socket.socket, count: int) -> bytearray:
    """So many bytes; fewer when the end comes before. MSG_WAITALL does not wait on a socket that has a timeout."""
    data = bytearray(count)
    rest = memoryview(data)
    while rest and (got := connected.recv_into(rest)):
        rest = rest[got:]
    return data[: count - len(rest)]


def echo(connected: socket.socket) -> None:
    while data := connected.recv(65536):
        connected.sendall(data)


def greet(connected: socket.socket) -> None:
    connected.sendall(b"hello\n")


def digest_after_end(connected: socket.socket) -> None:
    """Answers only when the caller has ended: its digest, then as many bytes back."""
    data = read_all(connected)
    connected.sendall(hashlib.sha256(data).hexdigest().encode() + data)


@contextlib.contextmanager
def server(address: str, *flags: str, port: int = 15009, **variables: str) -> Iterator[Running]:
    env = processes.environment(KRUN_LOOPBACK=address, KRUN_LOG_FORMAT="json", **variables)
    with processes.start(["hboned", "--port", str(port), *flags], env=env) as running:
        running.wait_for('"ready"')
        yield running


@contextlib.contextmanager
def forward(address: str, url: str, *flags: str) -> Iterator[tuple[Running, int]]:
    argv = ["hbone", "-L", f"{address}:0", *flags, url]
    with processes.start(argv, env=processes.environment(KRUN_LOG_FORMAT="json")) as running:
        port = int(running.wait_for(r'"ready".*"address": "[^"]*:(\d+)"')[1])
        yield running, port


def lines(running: Running, message: str) -> list[dict[str, object]]:
    entries = [json.loads(line) for line in running.stderr.splitlines()]
    return [entry for entry in entries if entry["message"] == message]


def pipe(*argv: str, data: bytes = b"", variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run hbone over stdin and stdout, in bytes."""
    env = processes.environment(**(variables or {}))
    return subprocess.run(["hbone", *argv], input=data, capture_output=True, env=env, timeout=60, check=False)


def connect(address: str, port: int) -> socket.socket:
    return socket.create_connection((address, port), timeout=processes.WAIT)


def url(address: str, name: str = "15003") -> str:
    return f"http://{address}:15009/_hbone/{name}"


def tls_flags(authority: Authority, folder: Path, *hosts: str) -> tuple[str, ...]:
    pair = authority.server(hosts=hosts)
    write(path=folder / "server.pem", content=pair.chain)
    write(path=folder / "server.key", content=pair.key)
    write(path=folder / "root.pem", content=authority.root)
    return "--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key")
