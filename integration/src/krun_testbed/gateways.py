"""hgate as a process, and a workload behind it: what tests of the gateway share."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from krun_testbed import processes, tunnels
from krun_testbed.certificates import Authority, write
from krun_testbed.processes import Running

SNI = "outbound_.8080_._.b.demo.svc.cluster.local"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A TLS server that answers by the digest of what it reads to the end, and the root that signs it."""

    context: ssl.SSLContext  # of its clients
    names: list[str]  # server names that it was asked for


@contextlib.contextmanager
def workload(address: str, authority: Authority, folder: Path) -> Iterator[Workload]:
    """The TLS server at 15003, where a workload's Envoy would be, with hboned before it."""
    pair = authority.server(hosts=("b.demo.svc.cluster.local",))
    write(path=folder / "b.pem", content=pair.chain + pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "b.pem")
    names: list[str] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    client = ssl.create_default_context(cadata=authority.root.decode())
    client.check_hostname = False  # Istio's clients check the SPIFFE id, and never the SNI

    def echo(connected: socket.socket) -> None:
        with context.wrap_socket(connected, server_side=True) as secure:
            while data := secure.recv(65536):
                secure.sendall(data)

    env = processes.environment(KRUN_LOOPBACK=address)
    with tunnels.target(address, echo), processes.start(["hboned"], env=env) as hboned:
        hboned.wait_for("ready")
        yield Workload(context=client, names=names)


@contextlib.contextmanager
def gate(address: str, *flags: str, route: str = "", **variables: str) -> Iterator[Running]:
    routes = route or f"b.demo=http://{address}:15009"
    env = processes.environment(KRUN_ROUTES=routes, KRUN_LOG_FORMAT="json", **variables)
    with processes.start(["hgate", "--listen", f"{address}:15442", *flags], env=env) as running:
        running.wait_for('"ready"')
        yield running


def the_line(running: Running, message: str) -> dict[str, object]:
    running.wait_for(f'"{message}"')
    (line,) = tunnels.lines(running, message)
    return line


def tls(context: ssl.SSLContext, connected: socket.socket, *, sni: str = SNI) -> ssl.SSLSocket:
    return context.wrap_socket(connected, server_hostname=sni)
