"""Ports that are taken are found before anything starts, and their holder is named."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from krun_launch import ports
from krun_launch.errors import Misconfigured
from krun_launch.plan import Port

pytestmark = pytest.mark.loopback


def test_free_port_is_left_free(address: str) -> None:
    port = Port(name="a part", host=address, number=15009)
    ports.check([port, port])
    with socket.create_server((address, 15009)):
        pass


@pytest.mark.parametrize("variable", ["", "PORT"])
def test_taken_port_is_named_with_holder_and_a_way_out(variable: str, address: str) -> None:
    with socket.create_server((address, 15009)), pytest.raises(Misconfigured) as caught:
        ports.check([Port(name="hboned", host=address, number=15009, variable=variable)])
    own = f"{Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"
    assert caught.value.message == f"port 15009 on {address}, for hboned: Address already in use, by {own}"
    assert (variable or "KRUN_LOOPBACK") in caught.value.hint


def test_holder_of_the_same_port_on_another_address_is_nobody(address: str) -> None:
    with socket.create_server((address, 15003)):
        assert ports.holder(address, 15003)
        assert ports.holder("127.255.255.254", 15003) == ""
        assert ports.holder("0.0.0.0", 15003)


def test_address_that_is_not_ours_is_refused_with_the_reason() -> None:
    # TEST-NET-1, RFC 5737: on no machine.
    with pytest.raises(Misconfigured, match="for hboned: Cannot assign requested address") as caught:
        ports.check([Port(name="hboned", host="192.0.2.1", number=15009, variable="PORT")])
    assert caught.value.hint == "192.0.2.1 is no address of this machine: see KRUN_BIND and KRUN_LOOPBACK"


def test_connections_that_linger_do_not_count(address: str) -> None:
    with socket.create_server((address, 15003)) as server:
        client = socket.create_connection((address, 15003))
        accepted, _ = server.accept()
        accepted.close()
        client.close()
    ports.check([Port(name="Envoy's mTLS", host=address, number=15003)])
