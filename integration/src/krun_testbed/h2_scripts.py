"""A server made of h2 alone that does with a tunnel what a test wants, one thread for each connection."""

from __future__ import annotations

import socket
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import h2.settings


class Scripted:
    """One connection of it, in the hands of a script."""

    def __init__(
        self, connected: socket.socket, *, settings: dict[h2.settings.SettingCodes, int] | None = None
    ) -> None:
        self.socket = connected
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, validate_outbound_headers=False)
        )
        if settings:
            self.h2.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self.h2.initiate_connection()
        self.flush()
        self.events: list[h2.events.Event] = []
        self.is_over = False

    def wait_for(self, kind: type[h2.events.Event]) -> h2.events.Event:
        """The next event of that kind; those before it are dropped."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if isinstance(event, kind):
                    return event
            self.receive()

    def receive(self) -> None:
        """Take what comes next."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionResetError("the client has ended")
        self.events += self.h2.receive_data(data)
        self.flush()

    def asked(self) -> int:
        """The stream of the next request."""
        event = self.wait_for(h2.events.RequestReceived)
        assert isinstance(event, h2.events.RequestReceived)
        return event.stream_id or 0

    def open(self) -> int:
        """The stream of the next request, which is answered."""
        stream = self.asked()
        self.h2.send_headers(stream, [(":status", "200")])
        self.flush()
        return stream

    def read_all(self, stream: int) -> bytes:
        """What the client sends until it ends."""
        data = b""
        while True:
            while self.events:
                event = self.events.pop(0)
                if isinstance(event, h2.events.DataReceived) and event.stream_id == stream:
                    data += event.data or b""
                    self.h2.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                elif isinstance(event, h2.events.StreamEnded) and event.stream_id == stream:
                    self.flush()
                    return data
            self.flush()
            self.receive()

    def send_all(self, stream: int, data: bytes, *, ends: bool = False) -> None:
        """Send as the client's windows allow."""
        rest = data
        while rest:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(rest))
            if not room:
                self.receive()
                continue
            self.h2.send_data(stream, rest[:room])
            rest = rest[room:]
            self.flush()
        if ends:
            self.h2.end_stream(stream)
            self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def wait_for_end(self) -> None:
        """Read until the client has closed the connection."""
        while self.socket.recv(65536):
            pass


Script = Callable[[Scripted], None]


def scripted(
    script: Script, *, settings: dict[h2.settings.SettingCodes, int] | None = None
) -> Callable[[socket.socket], None]:
    """A handler for ``tunnels.target``."""

    def handle(connected: socket.socket) -> None:
        script(Scripted(connected, settings=settings))

    return handle
