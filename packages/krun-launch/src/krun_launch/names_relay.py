"""The process behind port 53 of a workload that is captured: answers names of the mesh, hands all else on as it is.

Not Envoy's dns_filter: it answers NXDOMAIN for a name that has A and no AAAA, has no records but A, AAAA and its own
SRV, and takes every name below a wildcard for one that it knows (docs/decisions/0003).
Started by krun-launch: ``python -I -m krun_launch.names_relay ADDRESS NAMESPACE,... GATEWAY SERVER...``, a server as
ADDRESS or ADDRESS#PORT. With ``-`` for the namespaces it has no names of its own, and hands everything on.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from krun_launch import dns, mesh_names
from krun_launch.mesh_names import VIRTUAL

PORT = 53
LONGEST = 65535
NEXT_SERVER = 1.0  # seconds until the next server is asked too
GIVEN_UP = 12.0  # seconds until a query is forgotten: longer than resolvers wait
PENDING = 1000  # queries under way; what is more is dropped, and asked again by whoever asked
CLIENTS = 64  # TCP connections at once
PATIENCE = 10.0  # seconds for one message by TCP

Address = tuple[str | int, ...]
Server = tuple[socket.AddressFamily, Address]


@dataclass(kw_only=True)
class Query:
    """One that was handed on: who asked what, and the servers that were asked so far."""

    client: Address
    asked: dns.Question
    message: bytes
    since: float
    tried: int = 0
    sockets: list[socket.socket] = field(default_factory=list)


class Relay:
    """The two listeners, and the queries under way."""

    def __init__(self, *, address: str, namespaces: Sequence[str] | None, gateway: str, servers: Sequence[str]) -> None:
        self._namespaces = None if namespaces is None else frozenset(namespaces)
        self._gateway = gateway.lower().rstrip(".")
        self._servers = [found for server in servers if (found := _server(server))]
        self._selector = selectors.DefaultSelector()
        self._queries: dict[socket.socket, Query] = {}
        self._room = threading.BoundedSemaphore(CLIENTS)
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, PORT))
        self._udp.setblocking(False)
        self._tcp = socket.create_server((address, PORT))
        self._tcp.setblocking(False)
        self._selector.register(self._udp, selectors.EVENT_READ)
        self._selector.register(self._tcp, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until a signal ends the process."""
        while True:
            for key, _ in self._selector.select(NEXT_SERVER / 4 if self._queries else None):
                ready = key.fileobj
                assert isinstance(ready, socket.socket)  # noqa: S101 - nothing else is registered
                with contextlib.suppress(BlockingIOError):
                    if ready is self._udp:
                        self._ask()
                    elif ready is self._tcp:
                        self._accept()
                    else:
                        self._answer(ready)
            self._look_at_times()

    def own_answer(self, message: bytes) -> bytes | None:
        """The answer to a name of the mesh's; None for what is to be handed on."""
        if self._namespaces is None:
            return None
        asked = dns.question(message)
        # The way into the mesh cannot lead through itself, whatever it is called.
        if asked is None or asked.name.lower() == self._gateway:
            return None
        match mesh_names.kind(asked.name, namespaces=self._namespaces):
            case mesh_names.Kind.MESH:
                return dns.address_answer(asked, address=VIRTUAL)
            case mesh_names.Kind.ABSENT:
                return dns.error(asked, code=dns.NO_SUCH_NAME)
        return None

    def _ask(self) -> None:
        message, client = self._udp.recvfrom(LONGEST)
        if answer := self.own_answer(message):
            self._send(answer, client)
            return
        asked = dns.question(message)
        if asked is None or len({id(query) for query in self._queries.values()}) >= PENDING:
            return
        query = Query(client=client, asked=asked, message=message, since=time.monotonic())
        self._try_next(query)

    def _try_next(self, query: Query) -> None:
        """Ask the next server that can be asked; when none is left and none is being waited for, say so."""
        while query.tried < len(self._servers):
            family, address = self._servers[query.tried]
            query.tried += 1
            # A socket of its own, and so a port of its own, for each: what a forger would have to guess (RFC 5452 §9).
            outward = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                outward.connect(address)
                outward.send(query.message)
            except OSError:
                outward.close()
                continue
            query.sockets.append(outward)
            self._queries[outward] = query
            self._selector.register(outward, selectors.EVENT_READ)
            return
        if not query.sockets:
            self._send(dns.error(query.asked, code=dns.SERVER_FAILED), query.client)

    def _answer(self, outward: socket.socket) -> None:
        query = self._queries.get(outward)
        if query is None:
            return  # closed in this same turn
        try:
            message = outward.recv(LONGEST)
        except BlockingIOError:
            return
        except OSError:  # nobody there
            self._close(outward, query=query)
            self._try_next(query)
            return
        if message[:2] == query.message[:2]:
            self._forget(query)
            self._send(message, query.client)

    def _look_at_times(self) -> None:
        now = time.monotonic()
        for query in {id(query): query for query in self._queries.values()}.values():
            if now - query.since > GIVEN_UP:
                self._forget(query)
            elif now - query.since > query.tried * NEXT_SERVER and query.tried < len(self._servers):
                self._try_next(query)

    def _forget(self, query: Query) -> None:
        for outward in list(query.sockets):
            self._close(outward, query=query)

    def _close(self, outward: socket.socket, *, query: Query) -> None:
        query.sockets.remove(outward)
        del self._queries[outward]
        self._selector.unregister(outward)
        outward.close()

    def _send(self, message: bytes, client: Address) -> None:
        with contextlib.suppress(OSError):  # it is gone, or the buffer is full: it asks again
            self._udp.sendto(message, client)

    def _accept(self) -> None:
        client, _ = self._tcp.accept()
        if not self._room.acquire(blocking=False):
            client.close()
            return
        threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One TCP client (RFC 7766): message after message, in order."""
        try:
            with client:
                client.settimeout(PATIENCE)
                while message := _receive(client):
                    answer = self.own_answer(message) or self._fetch(message)
                    if not answer:
                        return
                    client.sendall(len(answer).to_bytes(2, "big") + answer)
        except OSError:
            return
        finally:
            self._room.release()

    def _fetch(self, message: bytes) -> bytes:
        for family, address in self._servers:
            try:
                with socket.socket(family, socket.SOCK_STREAM) as outward:
                    outward.settimeout(PATIENCE)
                    outward.connect(address)
                    outward.sendall(len(message).to_bytes(2, "big") + message)
                    if answer := _receive(outward):
                        return answer
            except OSError:
                continue
        asked = dns.question(message)
        return dns.error(asked, code=dns.SERVER_FAILED) if asked else b""


def _receive(stream: socket.socket) -> bytes:
    """One message with its length before it; empty at the end. Raises OSError."""
    length = _exactly(stream, 2)
    return _exactly(stream, int.from_bytes(length, "big")) if length else b""


def _exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        if not piece:
            return b""
        data += piece
    return data


def _server(text: str) -> Server | None:
    host, _, port = text.partition("#")
    try:
        found = socket.getaddrinfo(host, port or PORT, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None  # resolvers pass over what is no address, too
    # The numeric form of an IPv4 or IPv6 address: a port is in the second place, and two more of IPv6 after it.
    return found[0][0], cast(Address, found[0][4])


def main() -> None:
    """Run as a process."""
    address, namespaces, gateway, *servers = sys.argv[1:]
    try:
        own = None if namespaces == "-" else namespaces.split(",")
        relay = Relay(address=address, namespaces=own, gateway=gateway, servers=servers)
    except OSError as error:
        sys.exit(f"krun-launch: names relay: port {PORT} on {address}: {error.strerror}")
    relay.run()


if __name__ == "__main__":
    main()
