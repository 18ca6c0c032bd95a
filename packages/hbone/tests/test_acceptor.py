"""Accepting connections, at its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest

from hbone.acceptor import accept
from hbone.stop import Stop

pytestmark = pytest.mark.loopback


@pytest.mark.parametrize("turns", range(4))
def test_connection_that_comes_in_the_moment_of_the_end_breaks_nothing(turns: int) -> None:
    """Whatever comes first, the word to stop or the connection: both are there when the loop looks next."""
    faults: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        stop = Stop()

        async def serve(connected: socket.socket, peer: str) -> None:
            connected.close()

        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                group.create_task(accept(listener, stop=stop, serve=serve))
                for _ in range(8):
                    await asyncio.sleep(0)  # it waits for a connection now
                client = socket.create_connection(listener.getsockname(), timeout=20)
                for _ in range(turns):
                    await asyncio.sleep(0)
                stop.ask()
            with client, contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""

    asyncio.run(main())
    assert faults == []
