"""Who closes first, behind Cloud Run's front: nothing is lost, though the front takes an early end for an abort."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from krun_testbed import addresses, processes
from krun_testbed.certificates import Authority, write
from krun_testbed.cloudrun import CloudRun, Service
from krun_testbed.google_tokens import Issuer
from krun_testbed.tunnels import connect, lines, read_all, target

pytestmark = pytest.mark.loopback

HOST = "b-424242.local1.run.app"
SENT = os.urandom(5 * 1024 * 1024)
DIGEST = hashlib.sha256(SENT).hexdigest()


@contextlib.contextmanager
def through_the_front(
    address: str, authority: Authority, folder: Path, handler: Callable[[socket.socket], None]
) -> Iterator[int]:
    """A local port that leads through hbone, the front and hboned to a target; its number."""
    write(path=folder / "root.pem", content=authority.root)
    service = Service(
        name="b",
        host=HOST,
        command=["hboned"],
        address=address,
        env={"KRUN_LOOPBACK": address, "KRUN_BIND": address},
        allow_unauthenticated=True,
        startup_timeout=processes.WAIT,
        log=folder / "hboned.log",
    )
    listen = (address, addresses.free_port(address=address))
    front = CloudRun(services=[service], issuer=Issuer(), authority=authority, listen=listen, directory=folder)
    flags = ["--connect-to", f"{address}:{listen[1]}", "--ca-file", str(folder / "root.pem")]
    argv = ["hbone", "-L", f"{address}:0", *flags, f"{HOST}:15003"]
    env = processes.environment(KRUN_LOG_FORMAT="json")
    with target(address, handler), front, processes.start(argv, env=env) as hbone:
        yield int(hbone.wait_for(r'"ready".*"address": "[^"]*:(\d+)"')[1])
        hbone.wait_for("tunnel closed")
        assert [line["reason"] for line in lines(hbone, "tunnel closed")] == ["ended"]


def test_server_closes_first_and_the_client_is_quiet(address: str, authority: Authority, tmp_path: Path) -> None:
    def talk(connected: socket.socket) -> None:
        connected.sendall(SENT)

    with through_the_front(address, authority, tmp_path, talk) as port, connect(address, port) as client:
        assert hashlib.sha256(read_all(client)).hexdigest() == DIGEST


def test_server_ends_first_and_the_client_is_still_sending(address: str, authority: Authority, tmp_path: Path) -> None:
    got: list[str] = []

    def end_first(connected: socket.socket) -> None:
        connected.shutdown(socket.SHUT_WR)
        got.append(hashlib.sha256(read_all(connected)).hexdigest())

    with through_the_front(address, authority, tmp_path, end_first) as port, connect(address, port) as client:
        client.sendall(SENT)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
        processes.wait_until(lambda: bool(got), what="the target has read all")
    assert got == [DIGEST]


def test_both_send_and_the_server_ends_first(address: str, authority: Authority, tmp_path: Path) -> None:
    got: list[str] = []

    def talk_and_end(connected: socket.socket) -> None:
        connected.sendall(SENT)
        connected.shutdown(socket.SHUT_WR)
        got.append(hashlib.sha256(read_all(connected)).hexdigest())

    with through_the_front(address, authority, tmp_path, talk_and_end) as port, connect(address, port) as client:

        def send() -> None:
            client.sendall(SENT)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert hashlib.sha256(read_all(client)).hexdigest() == DIGEST
        sender.join(processes.WAIT)
        processes.wait_until(lambda: bool(got), what="the target has read all")
    assert got == [DIGEST]
