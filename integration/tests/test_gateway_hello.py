"""hgate reads a hello: the name in it decides, and what is none is closed with one line."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from krun_testbed import tunnels
from krun_testbed.certificates import Authority
from krun_testbed.gateways import SNI, gate, the_line, tls, workload

pytestmark = pytest.mark.loopback


def connect(address: str) -> socket.socket:
    return tunnels.connect(address, 15442)


def in_pieces(context: ssl.SSLContext, connected: socket.socket, *, size: int) -> bytes:
    """Shake hands with the hello sent in pieces, then have ``hello`` echoed."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=SNI)
    is_first = True
    while True:
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            data = outgoing.read()
            step = size if is_first else len(data) or 1
            for start in range(0, len(data), step):
                connected.sendall(data[start : start + step])
            is_first = False
            incoming.write(connected.recv(65536))
    client.write(b"hello")
    connected.sendall(outgoing.read())
    while True:
        try:
            return client.read(5)
        except ssl.SSLWantReadError:
            incoming.write(connected.recv(65536))


def closed(connected: socket.socket) -> bool:
    """Wait for the other side to close, in order or not; true when it said nothing before."""
    try:
        return connected.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("size", [1, 5, 300])
def test_hello_in_pieces_is_put_together(address: str, authority: Authority, tmp_path: Path, size: int) -> None:
    with workload(address, authority, tmp_path) as b, gate(address), connect(address) as client:
        assert in_pieces(b.context, client, size=size) == b"hello"


def test_plain_name_and_route_by_port(address: str, authority: Authority, tmp_path: Path) -> None:
    route = f"b.demo:9090=http://{address}:15009/_hbone/404 b.demo.svc=http://{address}:15009"
    with workload(address, authority, tmp_path) as b, gate(address, route=route) as hgate:
        with tls(b.context, connect(address), sni="b.demo.svc.cluster.local") as client:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
        with connect(address) as plain, pytest.raises((ssl.SSLError, ConnectionResetError)):
            tls(b.context, plain, sni="outbound_.9090_._.b.demo.svc.cluster.local")
        line = the_line(hgate, "connection failed")
        assert line["status"] == 404
        assert line["url"] == f"http://{address}:15009/_hbone/404"
        assert "hint: " in str(line["reason"])


@pytest.mark.parametrize(
    ("sni", "reason"),
    [
        ("outbound_.8080_._.c.demo.svc.cluster.local", "no route"),
        ("b.other.svc.cluster.local", "no route"),
        ("www.example", "not the name of a service"),
        ("", "no server name"),
    ],
)
def test_unknown_name_is_closed_with_one_line(address: str, authority: Authority, sni: str, reason: str) -> None:
    context = ssl.create_default_context(cadata=authority.root.decode())
    context.check_hostname = False
    with gate(address) as hgate:
        with connect(address) as plain, pytest.raises((ssl.SSLError, ConnectionResetError)):
            context.wrap_socket(plain, server_hostname=sni or None)
        line = the_line(hgate, "connection refused")
        assert (line["sni"], line["reason"]) == (sni, reason)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x00", b"\x16\x03\x01\xff\xff"])
def test_what_is_no_tls_is_closed_with_one_line(address: str, data: bytes) -> None:
    with gate(address) as hgate:
        with connect(address) as client:
            client.sendall(data)
            assert closed(client)
        assert the_line(hgate, "connection refused")["sni"] == ""


def test_hello_that_is_too_big_is_closed_with_one_line(address: str) -> None:
    with gate(address) as hgate:
        with connect(address) as client:
            client.sendall(b"\x16\x03\x01\x00\x04\x01\x00\x40\x01")
            assert closed(client)
        assert "16384" in str(the_line(hgate, "connection refused")["reason"])


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_client_that_does_not_finish_its_hello_is_cut_off_in_time(address: str, said: bytes) -> None:
    with gate(address, "--hello-timeout", "0.3") as hgate:
        with connect(address) as client:
            client.sendall(said)
            assert closed(client)
        assert "within 0.3 s" in str(the_line(hgate, "connection refused")["reason"])
