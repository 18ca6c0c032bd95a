"""The tunnel through a real Envoy."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from krun_testbed import footprint, processes
from krun_testbed.plain_front import front
from krun_testbed.tunnels import (
    connect,
    echo,
    forward,
    pipe,
    read_all,
    server,
    target,
)

pytestmark = pytest.mark.loopback


def test_full_connection_gets_a_further_one_through_a_real_envoy(address: str, tmp_path: Path) -> None:
    with (
        target(address, echo),
        server(address),
        front(address, tmp_path, streams=10),
        forward(address, f"http://{address}:9000/_hbone/15003") as (running, port),
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(connect(address, port)) for _ in range(35)]
        for client in clients:
            client.sendall(b"x")
        for client in clients:
            assert client.recv(1) == b"x"
        assert footprint.connections(running.pid, address, 9000) == 4


def test_end_of_the_answer_through_a_real_envoy_loses_nothing_on_its_way(address: str, tmp_path: Path) -> None:
    got: list[int] = []

    def end_first(connected: socket.socket) -> None:
        connected.shutdown(socket.SHUT_WR)
        got.append(len(read_all(connected)))

    with target(address, end_first), server(address), front(address, tmp_path, streams=100):
        done = pipe(f"http://{address}:9000/_hbone/15003", data=bytes(1024 * 1024))
        assert done.returncode == 0
        processes.wait_until(lambda: bool(got), what="the target has read all")
    assert got == [1024 * 1024]
