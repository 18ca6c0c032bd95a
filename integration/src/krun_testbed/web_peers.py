"""Servers for clients of HTTP and HTTPS: answers from a list, requests kept; and a proxy that lets CONNECT through."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from krun_testbed.certificates import Pair

TIMEOUT = 20.0  # seconds


@dataclass(kw_only=True)
class WebPeer:
    """A server on a port of its own. ``answers``: whole answers as bytes, one for each connection, the last again."""

    answers: list[bytes]
    port: int = 0
    requests: list[bytes] = field(default_factory=list)  # head and body, as they came


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@contextlib.contextmanager
def web_peer(address: str, *answers: bytes, tls: ssl.SSLContext | None = None) -> Iterator[WebPeer]:
    """Serve; an empty answer closes the connection without a word."""
    peer = WebPeer(answers=list(answers))

    def serve(connected: socket.socket) -> None:
        with contextlib.suppress(OSError), connected:
            stream = tls.wrap_socket(connected, server_side=True) if tls else connected
            with stream:
                peer.requests.append(_request(stream))
                stream.sendall(peer.answers[0] if len(peer.answers) == 1 else peer.answers.pop(0))

    with _listening(address, serve) as port:
        peer.port = port
        yield peer


@contextlib.contextmanager
def connect_proxy(address: str, *, refuses: str = "") -> Iterator[WebPeer]:
    """A proxy for CONNECT; ``refuses``: the status line's end of its answer to everybody, as ``407 Login``."""
    peer = WebPeer(answers=[])

    def serve(connected: socket.socket) -> None:
        with contextlib.suppress(OSError), connected:
            head = _request(connected)
            peer.requests.append(head)
            if refuses:
                connected.sendall(f"HTTP/1.1 {refuses}\r\n\r\n".encode())
                return
            host, _, port = head.split(b" ")[1].decode().rpartition(":")
            with socket.create_connection((host, int(port)), timeout=TIMEOUT) as other:
                connected.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=_copy, args=(other, connected))
                back.start()
                _copy(connected, other)
                back.join()

    with _listening(address, serve) as port:
        peer.port = port
        yield peer


def server_tls(pair: Pair, folder: str) -> ssl.SSLContext:
    """A server's side of TLS with this certificate; the files go to the folder."""
    for name, text in (("chain.pem", pair.chain), ("key.pem", pair.key)):
        with open(f"{folder}/{name}", "wb") as file:  # noqa: PTH123
            file.write(text)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(f"{folder}/chain.pem", f"{folder}/key.pem")
    return made


@contextlib.contextmanager
def _listening(address: str, serve: Callable[[socket.socket], None]) -> Iterator[int]:
    with socket.create_server((address, 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connected, _ = listener.accept()
                    connected.settimeout(TIMEOUT)
                    threading.Thread(target=serve, args=(connected,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _request(stream: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = stream.recv(65536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length and (piece := stream.recv(65536)):
        body += piece
    return head + b"\r\n\r\n" + body


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
