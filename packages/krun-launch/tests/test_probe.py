"""One question to a part of ours, asked of a real server, whatever it answers."""

from __future__ import annotations

import select
import socket
import threading

import pytest

from krun_launch.probe import Exchange

pytestmark = pytest.mark.loopback


def asked(address: str, answer: bytes, *, limit: int = 1 << 20, piece: int = 7) -> Exchange:
    """Ask a server that answers by these bytes, in small pieces, and closes."""
    with socket.create_server((address, 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(65536)
                for at in range(0, len(answer), piece):
                    client.sendall(answer[at : at + piece])

        thread = threading.Thread(target=serve)
        thread.start()
        exchange = Exchange(host=address, port=server.getsockname()[1], path="/x", wants_body=True, limit=limit)
        while not exchange.is_done:
            poll = select.poll()
            poll.register(exchange.fileno(), exchange.events)
            assert poll.poll(5000)
            exchange.advance()
        thread.join()
        return exchange


def test_body_of_chunks_is_put_together(address: str) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    exchange = asked(address, head + b"5\r\nhello\r\n1;x=y\r\n,\r\n6\r\n world\r\n0\r\n\r\n")
    assert (exchange.status, exchange.body) == (200, "hello, world")


def test_body_without_chunks_is_what_came(address: str) -> None:
    exchange = asked(address, b"HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\n5\r\n")
    assert (exchange.status, exchange.body) == (503, "5\r\n")


def test_chunks_that_are_cut_off_or_none_are_left_out(address: str) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert asked(address, head + b"3\r\nabc\r\nff\r\nabc").body == "abc"
    assert asked(address, head + b"-3\r\nabc\r\n").body == ""


def test_answer_is_kept_up_to_the_limit_and_read_to_its_end(address: str) -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    exchange = asked(address, head + b"x" * 100000, limit=len(head) + 10, piece=10000)
    assert (exchange.status, exchange.body) == (200, "x" * 10)


def test_what_is_no_http_has_no_status(address: str) -> None:
    assert asked(address, b"SSH-2.0-x\r\n").status == 0
