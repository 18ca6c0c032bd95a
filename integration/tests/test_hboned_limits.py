"""What a peer may hold of hboned: a connection for ten seconds if it says nothing, and a thousand streams of one."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import pytest

from krun_testbed.certificates import Authority
from krun_testbed.public_peers import PREFACE, Http2, head
from krun_testbed.tunnels import connect, lines, server, tls_flags

pytestmark = pytest.mark.loopback

HALVES = (b"", b"PRI * HT", b"GET / HTTP/1.1\r\nhost: a\r\n", PREFACE, PREFACE + b"\0\0\x06\x04")
HALF_HELLO = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(40)
STREAMS, REFUSED_STREAM = 1000, 7
LIMIT, LATE = 10.0, 30.0  # seconds that are promised, and those of a busy machine


def test_connections_that_do_not_begin_are_closed_in_time_whatever_they_have_said(
    address: str, authority: Authority, tmp_path: Path
) -> None:
    flags = tls_flags(authority, tmp_path, address)
    with (
        server(address, "--public", "app") as plain,
        server(address, *flags, port=15010) as secure,
        contextlib.ExitStack() as stack,
    ):
        begun = time.monotonic()
        silent = [opened(stack, address, 15009, said) for said in HALVES]
        silent += [opened(stack, address, 15010, said) for said in (b"", HALF_HELLO)]
        for connected in silent:
            read_to_end(connected)
            assert LIMIT - 1 < time.monotonic() - begun < LATE
        secure.wait_for("connection refused")
        reasons = {line["reason"] for line in lines(secure, "connection refused")}
        assert reasons == {"TLS failed: no handshake within 10 s"}
        plain.wait_for("did not begin HTTP/2 within 10 s")


def test_stream_beyond_a_thousand_is_refused_and_the_others_go_on(address: str) -> None:
    with socket.create_server((address, 15003), backlog=2048), server(address), connect(address, 15009) as connected:
        peer = Http2(connected)
        streams = [peer.request(head(b"/_hbone/15003", b"POST"), end=False) for _ in range(STREAMS + 1)]
        assert peer.wait(streams[-1]).reset == REFUSED_STREAM
        assert {peer.wait_for_head(stream).status for stream in streams[:-1]} == {200}
        # One that is over makes room for another.
        peer.reset(streams[0])
        assert peer.wait_for_head(peer.request(head(b"/_hbone/15003", b"POST"), end=False)).status == 200


def opened(stack: contextlib.ExitStack, address: str, port: int, said: bytes) -> socket.socket:
    connected = stack.enter_context(connect(address, port))
    connected.settimeout(LATE)
    connected.sendall(said)
    return connected


def read_to_end(connected: socket.socket) -> None:
    """Whatever is said at the end: settings, 408, nothing, a reset."""
    with contextlib.suppress(ConnectionResetError):
        while connected.recv(65536):
            pass
