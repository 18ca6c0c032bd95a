"""``krun-iptables verify`` beside others: what they left, or end too soon for it to be seen, is no false alarm."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator

import pytest

from krun_testbed import processes, traffic
from krun_testbed.traffic import ANY, HERE, THERE, WAYS, Network

pytestmark = pytest.mark.netns

PORTS = range(40000, 40032)
SYSCTL = "/proc/sys/net/ipv4/ip_local"
ENVOY = f"tcp:1337:{ANY[4]}:15001"
# Begins connections as the proxy from each of the ports that it is told, and is gone: nobody answers.
BEGIN = f"""
import os, socket, sys
os.setegid(1337)
os.seteuid(1337)
for port in sys.argv[1:]:
    client = socket.socket()
    client.setblocking(False)
    client.bind(("{HERE[4]}", int(port)))
    client.connect_ex(("10.1.0.3", 15002))
"""
# Listens at 15001 and resets whoever comes.
RESET = """
import socket, struct
listener = socket.create_server(("", 15001))
print("ready", flush=True)
while True:
    client, _ = listener.accept()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
"""


@pytest.fixture
def network() -> Iterator[Network]:
    """Namespaces of one test alone: no earlier connection is known in them."""
    with traffic.network() as made:
        yield made


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def first(network: Network, count: int) -> tuple[int, ...]:
    """The ports that clients get before all others: the kernel gives odd ones first (inet_csk_find_open_port)."""
    odd = PORTS[1::2]
    reserved = ",".join(map(str, odd[count:]))
    write = f"echo {PORTS[0]} {PORTS[-1]} >{SYSCTL}_port_range && echo {reserved} >{SYSCTL}_reserved_ports"
    network.workload.must("sh", "-c", write)
    return tuple(odd[:count])


@pytest.mark.parametrize("is_envoys", [False, True], ids=["ours", "Envoy's"])
def test_a_port_whose_last_connection_was_led_to_the_same_place(network: Network, way: str, is_envoys: bool) -> None:
    network.apply(way, "-i", "*")
    with contextlib.ExitStack() as stack:
        with network.listen(ENVOY):
            # verify keeps one each time that it tries, and the third time none is left for what is led.
            for port in first(network, 2):
                # Two minutes long, whoever has its port is seen at 15001 by another one.
                assert network.call(THERE[4], 8080, source=HERE[4], source_port=port)["at"] == 15001
        if is_envoys:
            stack.enter_context(network.listen(ENVOY))
        done = network.krun("verify", "-i", "*")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    seen = "which another program has" if is_envoys else "and the answer came back"
    assert f"uid 65534, gid 65534): arrived at port 15001, {seen}" in done.stdout


def test_a_port_whose_last_connection_to_the_same_place_was_spared(network: Network, way: str) -> None:
    flags = ("-i", "*", "-x", f"{THERE[4]}/32")
    network.apply(way, *flags)
    # Two minutes long, what has their ports and goes where they went is taken for them, whoever sends it. verify keeps
    # three of these the first time that it tries, and the second time none is left for what is led.
    done = network.workload.run(sys.executable, "-I", "-S", "-c", BEGIN, *map(str, first(network, 5)))
    assert (done.returncode, done.stderr) == (0, "")
    done = network.krun("verify", *flags)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "uid 65534, gid 65534): arrived at port 15001, and the answer came back" in done.stdout


def test_a_listener_that_resets_whoever_comes(network: Network, way: str) -> None:
    network.apply(way, "-i", "*")
    argv = network.workload.inside([sys.executable, "-I", "-S", "-c", RESET])
    with processes.start(argv) as listening:
        listening.wait_for("^ready$")
        done = network.krun("verify", "-i", "*")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert re.search(
        "^(ok|unknown) +outbound IPv4 anywhere .*: (arrived at|another program has) port 15001", done.stdout, re.M
    )
