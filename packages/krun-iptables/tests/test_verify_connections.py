"""Whether a connection is seen at a port in the kernel's own list, with real connections over loopback."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from krun_iptables.verify_connections import arrived

pytestmark = pytest.mark.loopback


@pytest.mark.parametrize(
    ("listens_at", "called"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1"), ("::", "::1")]
)
def test_a_connection_is_seen_at_its_port_and_at_no_other(listens_at: str, called: str) -> None:
    family = socket.AF_INET6 if ":" in listens_at else socket.AF_INET
    with socket.create_server((listens_at, 0), family=family, dualstack_ipv6=listens_at == "::") as server:
        port = server.getsockname()[1]
        with socket.create_connection((called, port)) as client:
            name = client.getsockname()
            me = (ip_address(name[0]), name[1])
            # Not accepted yet: Envoy may be busy.
            assert arrived(me, port)
            assert not arrived(me, port ^ 1)
            assert not arrived((me[0], port), port)


def test_a_client_that_is_gone_is_not_seen_though_its_port_is_still_known() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            name = client.getsockname()
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1) == b""  # its end has come: the connection is in CLOSE_WAIT
            assert not arrived((ip_address(name[0]), name[1]), port)
