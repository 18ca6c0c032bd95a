"""The answers of /readyz; the listener itself is driven in test_supervise.py."""

from __future__ import annotations

import socket

import pytest

from krun_launch.loop import Loop
from krun_launch.signals import Signals
from krun_launch.status import CLIENTS, Pages, Status, answer
from krun_testbed import addresses

READY = {"mode": "static", "ready": True, "step": "ready"}
QUIT = b"POST /quitquitquit HTTP/1.1\r\nHost: x"


def pages(*, is_ready: bool = True, asked: list[str] | None = None) -> Pages:
    told = asked if asked is not None else []
    return Pages(
        state=lambda: {**READY, "ready": is_ready}, metrics=lambda: "krun_ready 1\n", end=lambda: told.append("end")
    )


@pytest.mark.parametrize(
    ("request_", "is_ready", "status", "body"),
    [
        (b"GET /readyz HTTP/1.1", True, b"200 OK", b'{"mode": "static", "ready": true, "step": "ready"}\n'),
        (b"GET /readyz?x HTTP/1.1", False, b"503 ", b'{"mode": "static", "ready": false, "step": "ready"}\n'),
        (b"HEAD /readyz HTTP/1.1", True, b"200 OK", b""),
        (b"GET /metrics HTTP/1.1", False, b"200 OK", b"krun_ready 1\n"),
        (b"GET / HTTP/1.1", True, b"404 ", b""),
        (b"POST /readyz HTTP/1.1", True, b"405 ", b""),
        (b"", True, b"405 ", b""),
    ],
)
def test_answer(request_: bytes, is_ready: bool, status: bytes, body: bytes) -> None:
    head, _, rest = answer(request_, pages=pages(is_ready=is_ready), is_local=False).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert rest == body


@pytest.mark.parametrize(
    ("request_", "is_local", "status"),
    [
        (QUIT, True, b"200 OK"),
        (QUIT, False, b"403 "),
        (QUIT + b"\r\nOrigin: http://somewhere.example", True, b"403 "),
        (QUIT.replace(b"POST", b"GET"), True, b"405 "),
    ],
)
def test_end_is_asked_for_by_post_from_this_machine_alone(request_: bytes, is_local: bool, status: bytes) -> None:
    asked: list[str] = []
    assert answer(request_, pages=pages(asked=asked), is_local=is_local).startswith(b"HTTP/1.1 " + status)
    assert asked == (["end"] if status == b"200 OK" else [])


@pytest.mark.loopback
def test_clients_that_say_nothing_do_not_keep_others_out(address: str) -> None:
    port = addresses.free_port(address=address)
    with Signals() as signals:
        loop = Loop(signals)
        status = Status(host=address, port=port, loop=loop, pages=pages())
        silent = []
        for _ in range(CLIENTS * 2):
            silent.append(socket.create_connection((address, port), timeout=5))
            loop.turn(1)
        with socket.create_connection((address, port), timeout=5) as client:
            client.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
            loop.turn(1)
            loop.turn(1)
            assert client.recv(4096).startswith(b"HTTP/1.1 200 OK")
        for connection in silent:
            connection.close()
        status.close()
