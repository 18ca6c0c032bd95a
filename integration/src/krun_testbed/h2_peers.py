"""HTTP/2 peers made of h2 alone, with blocking sockets: a client, and a server that refuses."""

from __future__ import annotations

import socket

import h2.config
import h2.connection
import h2.events


class Peer:
    """An HTTP/2 client made of h2 alone, with a blocking socket."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.h2 = h2.connection.H2Connection()
        self.events: list[h2.events.Event] = []
        self.h2.initiate_connection()
        self.flush()

    def open(self, address: str, name: str = "15003") -> int:
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "http"), (":authority", address), (":path", f"/_hbone/{name}")]
        self.h2.send_headers(stream, head)
        self.flush()
        return stream

    def wait_for(self, kind: type[h2.events.Event], stream: int | None = None) -> h2.events.Event:
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None)):
                    return event
            data = self.socket.recv(65536)
            assert data, f"the connection ended before {kind.__name__}"
            self.events += self.h2.receive_data(data)
            self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())


class Front:
    """A server made of h2 alone that answers each request with one status."""

    def __init__(self, *, status: int, text: str) -> None:
        self.status = status
        self.text = text
        self.requests: list[dict[str, str]] = []

    def __call__(self, connected: socket.socket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        connected.sendall(connection.data_to_send())
        while data := connected.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    fields = {name.decode(): value.decode() for name, value in event.headers or ()}
                    self.requests.append(fields)
                    stream = event.stream_id or 0
                    connection.send_headers(stream, [(":status", str(self.status))])
                    connection.send_data(stream, self.text.encode(), end_stream=True)
            connected.sendall(connection.data_to_send())
