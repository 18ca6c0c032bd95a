"""One call through the gateway by hand: TLS with the SNI of a mesh name, with or without a client certificate."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Whether the other side took the call, and its own words."""

    accepted: bool
    text: str


def call(*, gate: tuple[str, int], name: str, root: Path, identity: Path | None) -> Answer:
    """GET / of a mesh name (``b.demo``) through the SNI gateway; ``identity`` is a workload's folder."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(root)
    context.check_hostname = False  # a workload's name is its SPIFFE id, no host
    if identity is not None:
        context.load_cert_chain(identity / "certificates.pem", identity / "private_key.pem")
    sni = f"outbound_.8080_._.{name}.svc.cluster.local"
    request = f"GET / HTTP/1.1\r\nhost: {name}:8080\r\nconnection: close\r\n\r\n".encode()
    try:
        with (
            socket.create_connection(gate, timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=sni) as connection,
        ):
            connection.sendall(request)
            # TLS 1.3: a server that refuses the client's certificate says so only after the client's handshake is done.
            first = connection.recv(65536)
    except ssl.SSLError as error:
        return Answer(accepted=False, text=(error.reason or str(error)).lower().replace("_", " "))
    except OSError as error:
        return Answer(accepted=False, text=str(error))
    line = first.split(b"\r\n", 1)[0].decode(errors="replace")
    return Answer(accepted=line.startswith("HTTP/1.1 200"), text=line or "closed without an answer")
