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
