"""The order of the end: decided (pure), and kept by the real command with requests under way."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from krun_launch import ending
from krun_testbed import apps, processes
from krun_testbed.certificates import Authority, spiffe_id, write_workload
from krun_testbed.processes import Running

READY = r"krun-launch: ready mode=static"
ALL = ("app", "envoy", "hboned", "krun-sshd")


def test_order_of_a_drain() -> None:
    assert ending.order(alive=ALL, was_up=True) == (
        "not ready",
        "no new tunnels",
        "envoy drains",
        "inbound at zero",
        "app ends",
        "tunnels close",
        "helpers end",
    )


@pytest.mark.parametrize(
    ("alive", "was_up", "steps"),
    [
        ((), False, ("not ready",)),
        (("app",), True, ("not ready", "app ends")),
        (("envoy",), False, ("not ready", "helpers end")),
        (("envoy", "hboned"), False, ("not ready", "tunnels close", "helpers end")),
        (("app", "hboned"), True, ("not ready", "no new tunnels", "app ends", "tunnels close")),
        (("app", "envoy"), False, ("not ready", "app ends", "helpers end")),
    ],
)
def test_order_names_only_what_is_there(alive: tuple[str, ...], was_up: bool, steps: tuple[str, ...]) -> None:
    assert ending.order(alive=alive, was_up=was_up) == steps


def test_application_always_ends_before_its_way_out() -> None:
    for size in range(len(ALL) + 1):
        for alive in itertools.combinations(ALL, size):
            for was_up in (False, True):
                steps = ending.order(alive=alive, was_up=was_up)
                last = [step for step in steps if step in ("app ends", "tunnels close", "helpers end")]
                assert last == sorted(last, key=["app ends", "tunnels close", "helpers end"].index)
                assert steps[0] == "not ready"


def _steps(running: Running) -> dict[str, int]:
    """The steps of the end in the order of the log, with their times."""
    return {step: int(at) for step, at in re.findall(r'end step done step="?([^"\n]*?)"? at_ms=(\d+)', running.stderr)}


@pytest.mark.loopback
def test_order_of_the_end_is_in_the_log_with_times(workload: dict[str, str], address: str) -> None:
    argv = ["krun-launch", "--no-env", "--", *apps.argv(address=address)]
    with processes.start(argv, env={**workload, "KRUN_LOG_FORMAT": "json"}) as running:
        running.wait_for('"message": "ready", "mode": "static"')
        assert running.terminate() == 0
        lines = [json.loads(line) for line in running.stderr.splitlines() if line.startswith("{")]
    ours = [line for line in lines if line["tool"] == "krun-launch"]
    steps = [line["step"] for line in ours if line["message"] == "end step done"]
    times = [line["at_ms"] for line in ours if line["message"] == "end step done"]
    assert tuple(steps) == ending.order(alive=("app", "envoy", "hboned"), was_up=True)
    assert times == sorted(times)
    assert ours[-1]["message"] == "ended"
    assert ours[-1]["status"] == 0


@pytest.mark.loopback
@pytest.mark.parametrize(("seconds", "drain", "is_answered"), [("0.8", "5", True), ("60", "0.5", False)])
def test_request_under_way_is_waited_for_but_not_for_ever(
    seconds: str,
    drain: str,
    is_answered: bool,
    workload: dict[str, str],
    address: str,
    authority: Authority,
    tmp_path: Path,
) -> None:
    argv = ["krun-launch", "--no-env", "--", *apps.argv(address=address)]
    with processes.start(argv, env={**workload, "KRUN_DRAIN": drain}) as running:
        running.wait_for(READY)
        with _mtls(address, authority=authority, folder=tmp_path / "client") as client:
            client.sendall(f"GET /sleep/{seconds} HTTP/1.1\r\nHost: b\r\n\r\n".encode())
            answer = b""

            def read() -> None:
                nonlocal answer
                answer = client.recv(65536)

            reader = threading.Thread(target=read)
            reader.start()
            running.wait_for("^sleeping")
            running.terminate()
            reader.join(10)
        assert (b"200 OK" in answer) == is_answered
        # The application hears of the end only when nobody waits for it any more.
        steps = _steps(running)
        assert steps["app ends"] >= steps["inbound at zero"] >= 400
        if is_answered:
            assert b"connection: close" in answer.lower()


@pytest.mark.loopback
def test_requests_under_way_in_every_worker_of_hboned_are_waited_for(workload: dict[str, str], address: str) -> None:
    env = {**workload, "KRUN_WORKERS": "2", "KRUN_PUBLIC": "app", "KRUN_DRAIN": "8"}
    argv = ["krun-launch", "--no-env", "--", *apps.argv(address=address)]
    with processes.start(argv, env=env) as running:
        running.wait_for(READY)
        below = processes.children(running.pid)
        clients = [socket.create_connection((address, 15009), timeout=20) for _ in range(4)]
        for number, client in enumerate(clients, start=1):
            client.sendall(b"GET /sleep/2 HTTP/1.1\r\nHost: b\r\n\r\n")
            running.wait_for(f"(?s)(^sleeping.*){{{number}}}")
        assert running.terminate() == 0
        for client in clients:
            with client:
                assert b"200 OK" in client.recv(65536)
        assert _steps(running)["app ends"] >= _steps(running)["inbound at zero"]
    processes.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), what="all have ended")


def _mtls(address: str, *, authority: Authority, folder: Path) -> ssl.SSLSocket:
    """A connection to 15003 as a workload of the mesh makes it."""
    identity = spiffe_id(trust_domain="cluster.local", namespace="demo", account="client")
    write_workload(directory=folder, pair=authority.workload(spiffe_id=identity), root=authority.root)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(folder / "ca_certificates.pem")
    context.load_cert_chain(folder / "certificates.pem", folder / "private_key.pem")
    return context.wrap_socket(socket.create_connection((address, 15003), timeout=20))


@pytest.mark.loopback
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signal_is_forwarded_and_the_status_is_the_applications(number: signal.Signals, alone: dict[str, str]) -> None:
    code = (
        "import signal, sys\n"
        f"signal.signal({int(number)}, lambda n, f: sys.exit(44))\n"
        "print('up', flush=True)\n"
        "while True: signal.pause()\n"
    )
    with processes.start(["krun-launch", "--no-env", "--", sys.executable, "-I", "-c", code], env=alone) as running:
        running.wait_for("^up$")
        running.signal(number)
        assert running.wait() == 44


@pytest.mark.loopback
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH, signal.SIGCONT, signal.SIGQUIT])
def test_forwarded_signal_that_the_application_survives_ends_nothing(
    number: signal.Signals, workload: dict[str, str], address: str
) -> None:
    # In a mesh too: 15009 goes on.
    code = (
        "import signal, socket, os\n"
        f"signal.signal({int(number)}, lambda n, f: print('app got', n, flush=True))\n"
        f"server = socket.create_server(({address!r}, 8080))\n"
        "while True: signal.pause()\n"
    )
    with processes.start(["krun-launch", "--no-env", "--", sys.executable, "-I", "-c", code], env=workload) as running:
        running.wait_for(READY)
        running.signal(number)
        running.wait_for(f"app got {int(number)}$")
        assert processes.listens(address, 15009)
        assert running.terminate() == 143


DEAF = ["sh", "-c", "trap '' TERM INT; echo up; while true; do sleep 0.05; done"]


@pytest.mark.loopback
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_at_once(second: signal.Signals, workload: dict[str, str]) -> None:
    with processes.start(
        ["krun-launch", "--no-env", "--grace", "60", "--", *DEAF], env={**workload, "CLOUD_RUN_JOB": "x"}
    ) as running:
        running.wait_for(READY)
        running.wait_for("^up$")  # deaf from here on
        below = processes.children(running.pid)
        running.signal(signal.SIGTERM)
        running.wait_for('step="inbound at zero"')
        running.signal(second)
        assert running.wait(timeout=5) == 128 + second
        assert "second signal: killed" in running.stderr
        assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []


@pytest.mark.loopback
@pytest.mark.parametrize("is_ending", [False, True])
def test_death_of_the_init_is_one_signal_and_cuts_no_end_short(is_ending: bool, alone: dict[str, str]) -> None:
    code = (
        "import signal, time\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])\n"
        "print('up', flush=True)\n"
        "signal.sigwait([signal.SIGTERM])\n"
        "print('ending', flush=True)\n"
        "signal.sigtimedwait([signal.SIGTERM], 1)\n"
        "print('whole', flush=True)\n"
    )
    argv = ["krun-launch", "--init", "--", "krun-launch", "--no-env", "--", sys.executable, "-I", "-c", code]
    with processes.start(argv, env=alone) as running:
        running.wait_for("^up$")
        if is_ending:
            running.signal(signal.SIGTERM)
            running.wait_for("^ending$")
        running.signal(signal.SIGKILL)
        running.wait_for("^whole$")
        running.wait_for("ended status=0")
        assert "second signal" not in running.stderr


@pytest.mark.loopback
def test_envoy_that_dies_in_the_end_is_named(workload: dict[str, str], address: str) -> None:
    argv = [
        "krun-launch",
        "--no-env",
        "--",
        "sh",
        "-c",
        "trap 'echo ending; read word; exit 7' TERM; while :; do sleep 0.05; done",
    ]
    with processes.start(argv, env={**workload, "CLOUD_RUN_JOB": "x"}, stdin=subprocess.PIPE) as running:
        running.wait_for(READY)
        (envoy,) = [
            pid
            for pid in processes.children(running.pid)
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(workload["KRUN_ENVOY"].encode())
        ]
        running.signal(signal.SIGTERM)
        running.wait_for("^ending$")
        os.kill(envoy, signal.SIGKILL)
        running.wait_for('warning: died before its turn part=envoy step="app ends"')
        assert running.process.stdin is not None
        running.process.stdin.write(b"go\n")
        running.process.stdin.flush()
        assert running.wait() == 7


@pytest.mark.loopback
def test_what_is_left_at_the_end_of_the_grace_is_killed(alone: dict[str, str]) -> None:
    with processes.start(["krun-launch", "--no-env", "--grace", "1.5", "--", *DEAF], env=alone) as running:
        running.wait_for("^up$")
        assert running.terminate() == 137
        ended = int(running.wait_for(r"grace is over: killed part=app at_ms=(\d+)")[1])
        # Half a second before the platform would.
        assert 900 <= ended < 1500


@pytest.mark.loopback
def test_outgoing_way_is_open_until_the_application_has_ended(workload: dict[str, str], address: str) -> None:
    code = (
        "import signal, socket, sys, time\n"
        "def end(number, frame):\n"
        f"    socket.create_connection(({address!r}, 15007), timeout=2).close()\n"
        "    print('way out is open', flush=True)\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        f"server = socket.create_server(({address!r}, 8080))\n"
        "while True: signal.pause()\n"
    )
    with processes.start(["krun-launch", "--no-env", "--", sys.executable, "-I", "-c", code], env=workload) as running:
        running.wait_for(READY)
        assert running.terminate() == 0
        assert "way out is open" in running.stdout
