"""A thin stand-in for hgate's raw side: what comes from a pod's sidecar at 15442 goes to port 15003 of a workload."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from krun_testbed import mesh_sockets
from krun_testbed.mesh_network import Place

PORT = 15442
INBOUND = 15003
NAME = re.compile(rb"outbound_\.[A-Za-z0-9._-]+")

Way = Callable[[], socket.socket]


@dataclass(kw_only=True)
class Gate:
    """``names``: the server name of each connection; ``ways``: by server name, how its workload is reached."""

    address: str
    names: list[str] = field(default_factory=list)
    ways: dict[str, Way] = field(default_factory=dict)

    def lead(self, workload: Place, *names: str, port: int = INBOUND) -> None:
        """Lead these server names straight to a workload's port on its loopback."""
        for name in names:
            self.ways[name] = lambda: workload.connect("127.0.0.1", port)


@contextlib.contextmanager
def gate(where: Place, address: str) -> Iterator[Gate]:
    """Listen at PORT of an address of the place; who asks for an unknown name is let go without a word."""
    made = Gate(address=address)

    def serve(connected: socket.socket) -> None:
        hello = _hello(connected)
        found = NAME.search(hello)
        name = found[0].decode() if found else ""
        made.names.append(name)
        if name not in made.ways:
            return
        with made.ways[name]() as there:
            there.sendall(hello)
            mesh_sockets.relay(connected, there)

    with mesh_sockets.serving(where.listener(address, PORT), serve):
        yield made


def _hello(connected: socket.socket) -> bytes:
    """The first record whole: a ClientHello with a key share for after quantum computers comes in two segments."""
    hello = b""
    while len(hello) < 5 or len(hello) < 5 + int.from_bytes(hello[3:5]):
        data = connected.recv(65536)
        if not data:
            raise ConnectionError
        hello += data
    return hello


def server_name(host: str, port: int) -> str:
    """The server name by which Istio's proxies ask for a service's port."""
    return f"outbound_.{port}_._.{host}"
