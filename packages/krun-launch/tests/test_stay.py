"""The krun-discover that found the mesh is the krun-token that the start waits for: real processes, real sockets."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_launch.identity import OURS
from krun_launch.parts import Parts
from krun_launch.spawn import ProcessSpec, helper
from krun_launch.stay import Stay
from krun_testbed import components, processes

pytestmark = pytest.mark.loopback

# Prints a mesh whose proxy is not needed: the start ends with the token. Then it says what it is asked to be.
STAYS = f"""#!{sys.executable}
import json, os, socket, sys
mesh = {{"XDS_ADDR": "istiod.example:15012", "WORKLOAD_NAMESPACE": "demo", "CAROOT_ISTIOD": "none"}}
print(json.dumps(mesh), flush=True)
with socket.socket(fileno=int(sys.argv[sys.argv.index("--stay") + 1])) as channel:
    data, passed, _, _ = socket.recv_fds(channel, 65536, 1)
    while piece := channel.recv(65536):
        data += piece
asked = json.loads(data)
os.dup2(passed[0], 2)
print("asked", *asked["argv"][1:6], asked["env"]["WORKLOAD_NAMESPACE"], "KRUN_INIT_FD" in asked["env"], file=sys.stderr)
print("krun-token: error: no token for you\\nhint: ask nicely", file=sys.stderr)
raise SystemExit(77)
"""
# The same, but it goes.
GOES = """#!/bin/sh
echo '{"XDS_ADDR": "istiod.example:15012", "WORKLOAD_NAMESPACE": "demo", "CAROOT_ISTIOD": "none"}'
"""
TOKEN = """#!/bin/sh
echo "krun-token: error: started $1" >&2
exit 69
"""


def spec(**more: object) -> ProcessSpec:
    return helper("krun-token", argv=("/bin/sh", "-c", "exit 7"), env={}).but(**{"may_borrow": True, **more})


@pytest.fixture
def theirs(stay: Stay) -> Iterator[socket.socket]:
    """The end of the socket that it has."""
    with stay.end.dup() as end:
        stay.started(4711)
        yield end


@pytest.fixture
def stay() -> Iterator[Stay]:
    """One that is process 4711."""
    found = Stay(identity=None)
    yield found
    found.close()


@pytest.mark.usefixtures("theirs")
def test_it_is_taken_once(stay: Stay) -> None:
    assert stay.take(spec()) == 4711
    assert stay.take(spec()) is None


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("other", [{"may_borrow": False}, {"identity": OURS}])
def test_another_kind_of_process_and_another_user_is_not_what_it_can_be(stay: Stay, other: dict[str, object]) -> None:
    assert stay.take(spec(**other)) is None
    assert stay.take(spec()) == 4711


def test_one_that_has_gone_is_replaced_by_a_process(stay: Stay, theirs: socket.socket) -> None:
    theirs.close()
    pid = Parts(stay=stay).start(spec())
    assert pid != 4711
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_an_environment_that_is_larger_than_a_sockets_buffer_is_handed_over(stay: Stay, theirs: socket.socket) -> None:
    pid = os.fork()
    if pid == 0:
        stay.close()
        count = 0
        while piece := theirs.recv(65536):
            count += len(piece)
        os._exit(0 if count > 2_000_000 else 1)
    theirs.close()
    assert stay.take(spec(env={"LARGE": "x" * 2_000_000})) == 4711
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def start(folder: Path, *, discover: str, **env: str) -> tuple[int, str]:
    """Of ``krun`` with this krun-discover, in a mesh with a control plane: its status, and what it said."""
    for name, text in {"krun-discover": discover, "krun-token": TOKEN}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "krun-launch").symlink_to(components.command("krun-launch"))
    (folder / "template").touch()
    told = processes.environment(
        PATH="/usr/bin:/bin",
        KRUN_MODE="whitebox",
        KRUN_ENVOY="/bin/true",
        KRUN_PILOT_AGENT="/bin/true",
        ISTIO_BOOTSTRAP=str(folder / "template"),
        KRUN_LOG_FORMAT="text",
        **env,
    )
    # All are one user, whether or not others could reach these files.
    alone = ["setpriv", "--bounding-set", "-setpcap", "--inh-caps", "-setpcap"] if os.geteuid() == 0 else []
    done = processes.run([*alone, str(folder / "krun-launch"), "--enter", "--", "echo", "started"], env=told)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_a_krun_discover_that_stays_is_krun_token_and_its_failure_is_that_of_the_step(tmp_path: Path) -> None:
    status, said = start(tmp_path, discover=STAYS)
    assert status == 77
    assert "asked kubernetes --audience istio-ca --namespace demo demo False\n" in said
    assert said.endswith("krun-launch: error: token: no token for you\nhint: ask nicely\n")


def test_after_a_krun_discover_that_goes_krun_token_is_started(tmp_path: Path) -> None:
    status, said = start(tmp_path, discover=GOES)
    assert status == 69
    assert said.endswith("krun-launch: error: token: started kubernetes\n")
