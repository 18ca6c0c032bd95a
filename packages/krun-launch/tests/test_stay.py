"""Who is loaded already is the krun-token that the start waits for: real processes, real sockets."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_launch.identity import OURS
from krun_launch.mode import AUTO, MODES, WAYS
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
# A krun-token for our own interpreter.
AHEAD = STAYS.replace("print(json.dumps(mesh), flush=True)\n", "")
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
    found = Stay(name="krun-discover", identity=None)
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


def mesh(folder: Path, *, discover: str, token: str = TOKEN, **env: str) -> dict[str, str]:
    """These programs beside krun-launch, and the environment of a mesh that needs nothing else."""
    for name, text in {"krun-discover": discover, "krun-token": token}.items():
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
        KRUN_LOG_LEVEL="debug",
    )
    return told | env


def run(folder: Path, *argv: str, env: dict[str, str]) -> tuple[int, str, str]:
    """Status, stdout and stderr of one of these programs."""
    # All are one user, whether or not others could reach these files.
    alone = ["setpriv", "--bounding-set", "-setpcap", "--inh-caps", "-setpcap"] if os.geteuid() == 0 else []
    done = processes.run([*alone, *argv], env=env, cwd=folder)
    return done.returncode, done.stdout, done.stderr


def start(folder: Path, *, discover: str, **env: str) -> tuple[int, str]:
    """Of ``krun`` with this krun-discover, in a mesh with a control plane: its status, and what it said."""
    told = mesh(folder, discover=discover, **env)
    status, printed, said = run(folder, str(folder / "krun-launch"), "--enter", "--", "echo", "started", env=told)
    assert printed == ""
    return status, said


def pipe(folder: Path, *, token: str, found: str = "{}", more: str = "", **env: str) -> tuple[int, str, str]:
    """Of ``krun-discover | krun-launch`` with this krun-token, where the control plane is known beforehand."""
    known = {"XDS_ADDR": "istiod.example:15012", "WORKLOAD_NAMESPACE": "demo", "CAROOT_ISTIOD": "none", **env}
    told = mesh(folder, discover=f"#!/bin/sh\necho '{found}'\n", token=token, **known)
    return run(folder, "sh", "-c", f"./krun-discover | {folder}/krun-launch {more} -- echo started", env=told)


def loaded(said: str) -> list[int]:
    """The numbers of the processes that were loaded ahead."""
    return [int(number) for number in re.findall(r"loaded ahead part=krun-token pid=([0-9]+)", said)]


def wait_until_gone(pid: int) -> None:
    processes.wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="it is gone", timeout=20.0)


def test_a_krun_discover_that_stays_is_krun_token_and_its_failure_is_that_of_the_step(tmp_path: Path) -> None:
    status, said = start(tmp_path, discover=STAYS)
    assert status == 77
    assert "asked kubernetes --audience istio-ca --namespace demo demo False\n" in said
    assert said.endswith("krun-launch: error: token: no token for you\nhint: ask nicely\n")


def test_after_a_krun_discover_that_goes_krun_token_is_started(tmp_path: Path) -> None:
    status, said = start(tmp_path, discover=GOES)
    assert status == 69
    assert said.endswith("krun-launch: error: token: started kubernetes\n")


def test_before_a_pipe_a_krun_token_that_was_loaded_ahead_is_the_one(tmp_path: Path) -> None:
    status, printed, said = pipe(tmp_path, token=AHEAD)
    assert (status, printed) == (77, "")
    assert f"goes on as krun-token part=krun-token pid={loaded(said)[0]}\n" in said
    assert "asked kubernetes --audience istio-ca --namespace demo demo False\n" in said
    assert said.endswith("krun-launch: error: token: no token for you\nhint: ask nicely\n")


def test_a_krun_token_of_somebody_else_is_not_told_to_wait(tmp_path: Path) -> None:
    status, _, said = pipe(tmp_path, token=TOKEN)
    assert (status, loaded(said)) == (69, [])
    assert said.endswith("krun-launch: error: token: started kubernetes\n")


def test_one_that_does_not_wait_is_replaced_by_a_process(tmp_path: Path) -> None:
    """As a krun-token of an older version, which does not know what --stay is."""
    older = f"#!{sys.executable}\nimport sys\nsys.exit(f'started {{sys.argv[1]}}')\n"
    status, _, said = pipe(tmp_path, token=older)
    assert status == 69
    assert len(loaded(said)) == 1
    assert "started kubernetes\n" in said


def test_one_that_is_not_wanted_after_all_ends_and_the_application_runs(tmp_path: Path) -> None:
    status, printed, said = pipe(tmp_path, token=AHEAD, found='{"KRUN_MODE": "none"}', KRUN_MODE="")
    assert (status, printed) == (0, "started\n"), said
    (pid,) = loaded(said)
    wait_until_gone(pid)


def test_one_that_waits_is_gone_when_the_start_fails(tmp_path: Path) -> None:
    status, _, said = pipe(tmp_path, token=AHEAD, found="nonsense")
    assert status == 65
    (pid,) = loaded(said)
    wait_until_gone(pid)


@pytest.mark.parametrize("more", ["--dry-run", "--rules"])
def test_where_nothing_is_started_no_token_is_made_ready(tmp_path: Path, more: str) -> None:
    status, _, said = pipe(tmp_path, token=AHEAD, more=more)
    assert (status, loaded(said)) == (0, [])


@pytest.mark.parametrize("chosen", MODES)
def test_one_is_loaded_ahead_in_every_mode_that_may_have_an_agent_and_in_no_other(tmp_path: Path, chosen: str) -> None:
    _, _, said = pipe(tmp_path, token=AHEAD, KRUN_MODE=chosen)
    assert len(loaded(said)) == (chosen in (AUTO, *WAYS)), said


@pytest.mark.parametrize("address", ["", "-"])
def test_where_no_control_plane_is_known_beforehand_none_is_loaded(tmp_path: Path, address: str) -> None:
    status, printed, said = pipe(tmp_path, token=AHEAD, XDS_ADDR=address, KRUN_MODE="")
    assert (status, printed, loaded(said)) == (0, "started\n", [])
