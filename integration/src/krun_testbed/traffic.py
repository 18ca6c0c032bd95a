"""A workload's network for tests of interception: namespaces with cables, listeners in them, and calls by any user.

The workload has two cables to its peer (``eth0``, ``eth1``) and one to a virtual machine (``vm0``) that reaches the
peer through it. Every end has addresses of both families, and they are ready at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from krun_testbed import components, namespaces, processes
from krun_testbed.namespaces import Namespace

PEER = str(Path(__file__).with_name("traffic_peer.py"))
# By family: of the workload, of its peer, of the peer outside of the ranges, and of its DNS servers.
HERE = {4: "10.1.0.1", 6: "2001:db8:1::1"}
THERE = {4: "10.1.0.2", 6: "2001:db8:1::2"}
OUTSIDE = {4: "192.0.2.2", 6: "2001:db8:2::2"}
SERVER = {4: "10.1.0.53", 6: "2001:db8:1::53"}
OTHER_SERVER = {4: "10.1.0.54", 6: "2001:db8:1::54"}
BY_ETH1 = {4: "10.2.0.2", 6: "2001:db8:e::2"}
RANGE = {4: "10.1.0.0/24", 6: "2001:db8:1::/64"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
ANY = {4: "0.0.0.0", 6: "::"}
# Flags that bring the rules into the kernel by each of the ways.
WAYS = {
    "legacy": ("--force-iptables-binary", "legacy"),
    "nft": ("--force-iptables-binary", "nft"),
    "native": ("--native-nftables",),
}
CABLES = (
    # our end and its addresses; the peer's
    ("eth0", ("10.1.0.1/24", "192.0.2.1/24", "2001:db8:1::1/64", "2001:db8:2::1/64")),
    ("eth1", ("10.2.0.1/24", "2001:db8:e::1/64")),
)
PEERS = {
    "eth0": (
        *(f"{address}/24" for address in ("10.1.0.2", "10.1.0.53", "10.1.0.54", "192.0.2.2")),
        *(f"2001:db8:{rest}/64" for rest in ("1::2", "1::53", "1::54", "2::2")),
    ),
    "eth1": ("10.2.0.2/24", "2001:db8:e::2/64"),
}


@dataclass(kw_only=True)
class Caller:
    """Calls from within a namespace, by any user."""

    process: subprocess.Popen[str] = field(repr=False)

    def __call__(
        self,
        address: str,
        port: int,
        *,
        protocol: str = "tcp",
        uid: int = 1000,
        gid: int = 1000,
        source: str = "",
        source_port: int = 0,
    ) -> dict[str, Any]:
        """Where a call arrived: ``by`` whom, ``at`` which port, ``from`` where, what it ``wanted``; or an ``error``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        call = {"address": address, "port": port, "protocol": protocol, "uid": uid, "gid": gid}
        self.process.stdin.write(json.dumps({**call, "source": source, "source_port": source_port}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@dataclass(frozen=True, kw_only=True)
class Network:
    """The namespaces, and a caller in each."""

    workload: Namespace
    peer: Namespace
    machine: Namespace  # the virtual one
    call: Caller  # from the workload
    call_in: Caller  # from the peer
    call_virtual: Caller

    def krun(self, *arguments: str, resolv: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """``krun-iptables`` in the workload, which finds its DNS servers in this file."""
        mounted = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(resolv)]
        command = [components.command("krun-iptables"), *arguments]
        env = processes.environment(KRUN_LOG_FORMAT="text", **environment)
        return self.workload.run(*(mounted if resolv else []), *command, env=env)

    def apply(self, way: str, *flags: str, resolv: Path | None = None, **environment: str) -> None:
        """Bring rules into the workload's kernel by one of WAYS, as Istio's init container does."""
        done = self.krun("istio-iptables", "--dual-stack", *WAYS[way], *flags, resolv=resolv, **environment)
        if done.returncode != 0:
            raise AssertionError(f"{flags}: {done.returncode}: {done.stderr}")

    def stray(self, address: str, port: int, *, known: int) -> str:
        """What the workload does with a packet of no connection: ``reset`` or ``silence``; a listener is ``known``."""
        return self.peer.must(sys.executable, "-I", "-S", PEER, "stray", address, str(port), str(known)).strip()

    def listen(self, *places: str) -> contextlib.AbstractContextManager[None]:
        """Listeners in the workload that say ``here``; see traffic_peer.py for places."""
        return _listening(self.workload, "here", places)

    def listen_there(self, *places: str) -> contextlib.AbstractContextManager[None]:
        """The same at the peer; they say ``there``."""
        return _listening(self.peer, "there", places)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """All of it, for root."""
    if os.geteuid() != 0:
        raise AssertionError("rules name users that only root can be: run the tests as root")
    with contextlib.ExitStack() as stack:
        workload, peer, machine = (stack.enter_context(namespaces.namespace()) for _ in range(3))
        for name, addresses in CABLES:
            _cable(workload, name, peer, name, addresses, PEERS[name])
        _cable(
            workload, "vm0", machine, "eth0", ("10.3.0.1/24", "2001:db8:f::1/64"), ("10.3.0.2/24", "2001:db8:f::2/64")
        )
        workload.must(
            "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding"
        )
        for version, gateway, back in (("-4", "10.3.0.1", "10.1.0.1"), ("-6", "2001:db8:f::1", "2001:db8:1::1")):
            machine.must("ip", version, "route", "add", "default", "via", gateway)
            peer.must("ip", version, "route", "add", "default", "via", back)
        callers = [stack.enter_context(_caller(where)) for where in (workload, peer, machine)]
        yield Network(
            workload=workload,
            peer=peer,
            machine=machine,
            call=callers[0],
            call_in=callers[1],
            call_virtual=callers[2],
        )


def _cable(
    here: Namespace, name: str, there: Namespace, far: str, addresses: tuple[str, ...], far_addresses: tuple[str, ...]
) -> None:
    here.must("ip", "link", "add", name, "type", "veth", "peer", "name", far, "netns", str(there.pid))
    for end, interface, given in ((here, name, addresses), (there, far, far_addresses)):
        end.must("ip", "link", "set", interface, "up")
        for address in given:
            # Nobody else has it: it need not be asked for first.
            end.must("ip", "address", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))


@contextlib.contextmanager
def _caller(where: Namespace) -> Iterator[Caller]:
    argv = where.inside([sys.executable, "-I", "-S", PEER, "call"])
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Caller(process=process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


@contextlib.contextmanager
def _listening(where: Namespace, name: str, places: tuple[str, ...]) -> Iterator[None]:
    argv = where.inside([sys.executable, "-I", "-S", PEER, "listen", name, *places])
    with processes.start(argv) as running:
        running.wait_for("^ready$")
        yield
