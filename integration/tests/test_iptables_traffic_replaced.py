"""While rules of ours are replaced by others of ours, no connection gets past both: told by calling all the time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from krun_testbed import components, namespaces, processes
from krun_testbed.namespaces import Namespace

pytestmark = pytest.mark.netns

CHANGES = 40 if os.environ.get("KRUN_SOAK") else 3
# Counts by place who has come, until stdin ends.
LISTENER = """\
import json, selectors, socket, sys
ready, counts = selectors.DefaultSelector(), dict.fromkeys(sys.argv[1:], 0)
for place in counts:
    host, _, port = place.rpartition(":")
    ready.register(socket.create_server((host, int(port)), backlog=1024), selectors.EVENT_READ, place)
ready.register(sys.stdin, selectors.EVENT_READ)
print("ready", flush=True)
while called := [key for key, _ in ready.select() if key.data]:  # none: stdin has ended, and nobody waits
    for key in called:
        key.fileobj.accept()[0].close()
        counts[key.data] += 1
print(json.dumps(counts))
"""
# Calls one place again and again, as another user; each call has to wait for a guard at most as long as TCP does.
CALLER = """\
import os, select, socket, struct, sys
os.nice(10)  # it is the changes that are to be quick
"".encode("idna")  # is loaded while it may be read
os.setgid(2000), os.setuid(2000)
host, _, port = sys.argv[1].rpartition(":")
print("ready", flush=True)
count = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    with socket.create_connection((host, int(port)), timeout=10) as call:
        # Until it was taken: a guard may have dropped the end of the handshake, and who resets then was never there.
        call.recv(1)
        call.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # the port is free at once
        count += 1
print(count)
"""
ONCE = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10).close()"
OTHER = ("--include", "10.0.0.0/8", "--exclude-ports", "99", "--inbound-ports", "8080,9090")
ONE = ("--include", "*", "--inbound-ports", "8080", "--drop-invalid")
WAYS = {
    "legacy": [("--iptables", "legacy")],
    "nft": [("--iptables", "nft")],
    "native": [("--native-nftables",)],
    "guarded": [("--iptables", "nft", "--reconcile")],
    "by-turns": [("--iptables", "nft"), ("--native-nftables",), ("--iptables", "legacy")],
}


@contextlib.contextmanager
def running(where: Namespace, code: str, *arguments: str) -> Iterator[list[str]]:
    """Run it until the block ends; then what it said is in the list."""
    said: list[str] = []
    argv = where.inside([sys.executable, "-I", "-S", "-c", code, *arguments])
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield said
    finally:
        said.append(process.communicate(timeout=processes.WAIT)[0])
    assert process.returncode == 0


def iptables(where: Namespace, *arguments: str) -> None:
    done = where.run(components.command("krun-iptables"), *arguments)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", WAYS)
def test_no_connection_gets_past_both_sets_while_one_takes_the_others_place(name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("rules name users that only root can be: run the tests as root")
    ways = WAYS[name]
    turns = [(*settings, *ways[turn % len(ways)]) for turn, settings in enumerate([ONE, OTHER] * CHANGES)]
    with namespaces.namespace() as here, namespaces.namespace(beside=here) as there:
        namespaces.join(here, there, here_addresses=["10.1.0.1/24"], there_addresses=["10.1.0.2/24"])
        iptables(here, *turns[0])
        with (
            running(here, LISTENER, "0.0.0.0:15001", "0.0.0.0:15006", "0.0.0.0:8080") as inside,
            running(there, LISTENER, "10.1.0.2:80") as outside,
        ):
            with running(here, CALLER, "10.1.0.2:80") as leaving, running(there, CALLER, "10.1.0.1:8080") as coming:
                for turn in turns[1 : CHANGES + 1]:
                    iptables(here, *turn)
            iptables(here, "--remove")
            # Without rules it does get there: else nothing would have been proven.
            assert here.run(sys.executable, "-c", ONCE, "10.1.0.2", "80").returncode == 0
    counts = {**json.loads(inside[0]), **json.loads(outside[0])}
    assert counts["10.1.0.2:80"] == 1
    assert counts["0.0.0.0:8080"] == 0
    assert counts["0.0.0.0:15001"] == int(leaving[0]) > CHANGES
    assert counts["0.0.0.0:15006"] == int(coming[0]) > CHANGES
