"""A container for the tests of the front: HTTP/2 cleartext on PORT, tells what came, and echoes while it comes."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import h2.config
import h2.connection
import h2.events


class Container(asyncio.Protocol):
    def __init__(self) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.paths: dict[int, str] = {}
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.h2.initiate_connection()
        transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.answer(event.stream_id, {str(name): str(value) for name, value in event.headers})
            elif isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if self.paths[event.stream_id] == "/echo":
                    self.h2.send_data(event.stream_id, event.data)
            elif isinstance(event, h2.events.StreamEnded) and self.paths[event.stream_id] == "/echo":
                self.h2.end_stream(event.stream_id)
        self.transport.write(self.h2.data_to_send())

    def answer(self, stream: int, headers: dict[str, str]) -> None:
        self.paths[stream] = path = headers[":path"]
        if path == "/exit":
            os._exit(3)
        if path == "/silent":
            return
        self.h2.send_headers(stream, [(":status", "200")])
        if path == "/tell":
            platform = {
                name: os.environ[name] for name in ("PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION", "MINE")
            }
            self.h2.send_data(
                stream, json.dumps({"headers": headers, "environment": platform}).encode(), end_stream=True
            )


async def main() -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(Container, os.environ["KRUN_LOOPBACK"], int(os.environ["PORT"]))
    await ended.wait()
    server.close()
    print("ended by SIGTERM", flush=True)


asyncio.run(main())
