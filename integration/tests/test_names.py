"""The names relay as a process, in a network namespace of its own: the mesh's names, and all others as they were."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from krun_testbed import dns_peers, namespaces, processes
from krun_testbed.namespaces import Namespace

pytestmark = pytest.mark.netns

PEERS = [sys.executable, "-I", "-S", str(Path(dns_peers.__file__))]
RELAY, SERVER, DEAD = "127.0.0.1", "127.0.0.2", "127.0.0.3"
MESH = {"code": 0, "count": 1, "truncated": False, "data": "240.240.0.1"}
EMPTY = {"code": 0, "count": 0, "truncated": False, "data": ""}


@pytest.fixture
def own() -> Iterator[Namespace]:
    with namespaces.namespace() as made, processes.start(made.inside([*PEERS, "serve", SERVER])) as server:
        server.wait_for("^ready$")
        yield made


@contextmanager
def relaying(own: Namespace, *servers: str, gateway: str = "gate.demo") -> Iterator[None]:
    argv = [sys.executable, "-I", "-m", "krun_launch.names_relay", RELAY, "demo,web", gateway, *servers]
    connect = ["sh", "-c", f"exec 2>/dev/null; {sys.executable} -I -S -c 'import socket; {UP}'"]
    with processes.start(own.inside(argv)):
        processes.wait_until(lambda: own.run(*connect).returncode == 0, what="the relay listens")
        yield


UP = f'socket.create_connection(("{RELAY}", 53), 1)'


def ask(own: Namespace, kind: str, name: str, *how: str) -> dict[str, Any]:
    done = own.run(*PEERS, "ask", RELAY, kind, name, *how)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("how", [(), ("tcp",)])
def test_names_of_the_mesh_have_one_address_and_no_other_record(how: tuple[str, ...], own: Namespace) -> None:
    with relaying(own, SERVER):
        for name in ("b.demo.svc.cluster.local", "b.other.svc.cluster.local", "b.demo.svc", "b.web", "B.Demo"):
            assert ask(own, "A", name, *how) == MESH, name
            for kind in ("AAAA", "TXT", "SRV", "HTTPS"):
                assert ask(own, kind, name, *how) == EMPTY, (name, kind)
        # What a search domain makes of a name outside is no name, and not asked outside either.
        assert ask(own, "A", "example.com.demo.svc.cluster.local", *how)["code"] == 3


def test_all_else_is_the_servers_own_answer_of_every_kind(own: Namespace) -> None:
    with relaying(own, SERVER):
        for kind in ("A", "AAAA", "TXT", "SRV", "MX", "PTR", "HTTPS"):
            assert ask(own, kind, "www.example.com")["data"] == f"{SERVER} udp", kind
        assert ask(own, "A", "absent.example.com")["code"] == 3
        # A name of one part as it is, a deeper one of a TLD that is called as a namespace, and the gateway's own.
        for name in ("redis", "a.b.demo", "gate.demo"):
            assert ask(own, "A", name)["data"] == f"{SERVER} udp", name


def test_answer_that_is_too_long_is_asked_for_again_by_tcp(own: Namespace) -> None:
    with relaying(own, SERVER):
        assert ask(own, "TXT", "large.example.com")["truncated"] is True
        assert ask(own, "TXT", "large.example.com", "tcp")["data"] == f"{SERVER} tcp"


@pytest.mark.parametrize("how", [(), ("tcp",)])
def test_server_where_nobody_is_is_passed_over(how: tuple[str, ...], own: Namespace) -> None:
    with relaying(own, DEAD, "no address", SERVER):
        assert ask(own, "A", "www.example.com", *how)["data"].startswith(SERVER)


def test_server_that_is_silent_is_not_waited_for(own: Namespace) -> None:
    hole = [sys.executable, "-I", "-S", "-c", HOLE]
    with processes.start(own.inside(hole)) as silent, relaying(own, DEAD, SERVER):
        silent.wait_for("^ready$")
        assert ask(own, "A", "www.example.com")["data"] == f"{SERVER} udp"


HOLE = f"""
import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("{DEAD}", 53))
print("ready", flush=True)
while True:
    udp.recv(9)
"""


@pytest.mark.parametrize("how", [(), ("tcp",)])
def test_without_a_server_that_answers_it_says_so_at_once(how: tuple[str, ...], own: Namespace) -> None:
    with relaying(own, DEAD):
        assert ask(own, "A", "www.example.com", *how)["code"] == 2
        assert ask(own, "A", "b.demo", *how) == MESH


def test_what_is_no_query_harms_nobody(own: Namespace) -> None:
    junk = "import socket, os; s = socket.socket(2, 2); [s.sendto(os.urandom(n), ('127.0.0.1', 53)) for n in range(99)]"
    with relaying(own, SERVER):
        assert own.run(sys.executable, "-I", "-S", "-c", junk).returncode == 0
        assert ask(own, "A", "b.demo") == MESH
        assert ask(own, "A", "www.example.com")["data"] == f"{SERVER} udp"
