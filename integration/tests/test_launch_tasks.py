"""What krun-launch runs to its end, again and again, or anew: its real supervisor, with scripts as parts."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from krun_testbed import apps, processes
from krun_testbed.processes import Running

pytestmark = pytest.mark.loopback

# The plan is what a mode makes; all that carries it out is krun-launch's own.
PROGRAM = """
import json, os, sys
from pathlib import Path
from krun_launch import errors, lines
from krun_launch.plan import APP, Credential, Plan, Step, Task
from krun_launch.settings import settings
from krun_launch.signals import Signals
from krun_launch.spawn import ProcessSpec, helper
from krun_launch.startup_probe import Probe
from krun_launch.supervise import Supervisor

told = json.loads(sys.argv[1])
env = dict(os.environ)
numbers = settings(env)
lines.configure(tool="krun-launch", style="text")

def process(name, script):
    return helper(name, argv=("sh", "-c", script), env=env)

def step(name, script="", run="", port=0, timeout=10.0):
    return Step(
        name=name,
        part=name,
        start=process(name, script) if script else None,
        run=process(name, run) if run else None,
        wait=Probe(host=numbers.loopback, port=port) if port else None,
        timeout=timeout,
        setting="KRUN_READY_TIMEOUT",
    )

app = ProcessSpec(name=APP, argv=tuple(told["app"]), env=env)
wait = Probe(host=numbers.loopback, port=numbers.app_port) if told["waits"] else None
plan = Plan(
    mode="captured",
    reason="a test",
    settings=numbers,
    run_dir=Path("/nonexistent"),
    steps=(
        *(step(**given) for given in told["steps"]),
        Step(name=APP, part=APP, start=app, wait=wait, timeout=20.0, setting="KRUN_APP_TIMEOUT"),
    ),
    has_app=True,
    tasks=tuple(
        Task(name=name, process=process(name, script), every=every, retry=retry, renews=name)
        for name, script, every, retry in told["tasks"]
    ),
    credentials=tuple(Credential(name=name, path=Path(path), kind=kind) for name, path, kind in told["credentials"]),
    status_host=numbers.loopback,
    interception="captured",
)

def start():
    with Signals() as signals:
        return Supervisor(plan, signals=signals).run()

errors.run_plain(start, tool="krun-launch")
"""


@dataclass(kw_only=True)
class Told:
    """A plan: steps (name, script, run, port, timeout), tasks (name, script, every, retry), and the application."""

    app: Sequence[str] = ("sh", "-c", "echo app started; sleep 60")
    waits: bool = False
    steps: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[tuple[str, str, float, float]] = field(default_factory=list)
    credentials: list[tuple[str, str, str]] = field(default_factory=list)


@contextmanager
def launched(told: Told, *, address: str, **variables: str) -> Iterator[Running]:
    env = processes.environment(KRUN_LOOPBACK=address, **variables)
    with processes.start([sys.executable, "-I", "-c", PROGRAM, json.dumps(vars(told))], env=env) as running:
        yield running


def get(address: str, path: str, *, method: str = "GET") -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"http://{address}:15019{path}", method=method)
    with opener.open(request, timeout=10) as answer:
        body: bytes = answer.read()
        return body.decode()


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def fails(status: int) -> str:
    return f"echo before >&2; echo 'krun-token: error: no such luck' >&2; echo 'hint: try again' >&2; exit {status}"


def test_next_step_waits_for_the_end_of_a_process(address: str) -> None:
    steps = [{"name": "token", "run": "echo one >&2; sleep 0.3; echo two >&2"}]
    with launched(Told(steps=steps), address=address) as running:
        running.wait_for("ready mode=captured")
        said = running.stderr.splitlines()
        assert said.index("one") < said.index("two")
        (done,) = [number for number, line in enumerate(said) if "step done step=token" in line]
        assert said.index("two") < done
        assert float(json.loads(get(address, "/readyz"))["steps"]["token"]) >= 0.3


@pytest.mark.parametrize(
    ("status", "ours"), [(65, 65), (69, 69), (75, 75), (77, 77), (78, 78), (2, 78), (1, 69), (70, 69)]
)
def test_failure_of_a_process_is_the_cause_and_its_status_is_ours(status: int, ours: int, address: str) -> None:
    with launched(Told(steps=[{"name": "token", "run": fails(status)}]), address=address) as running:
        assert running.wait() == ours
        assert running.stderr.splitlines()[-2:] == ["krun-launch: error: token: no such luck", "hint: try again"]
        assert "krun-token: error" not in running.stderr
        assert "before" in running.stderr
        assert "app started" not in running.stdout


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo gibberish >&2; exit 3", "krun-launch: error: token: token ended with status 3"),
        ("kill -KILL $$", "krun-launch: error: token: token ended with status 137 (SIGKILL)"),
    ],
)
def test_process_that_does_not_tell_why_is_named_with_its_status(script: str, words: str, address: str) -> None:
    with launched(Told(steps=[{"name": "token", "run": script}]), address=address) as running:
        assert running.wait() == 69
        assert running.stderr.splitlines()[-2:] == [words, "hint: see what token says above"]


def test_process_that_does_not_end_in_time_is_75_and_gone(address: str) -> None:
    steps = [{"name": "token", "run": "echo pid $$ >&2; exec sleep 60", "timeout": 0.5}]
    with launched(Told(steps=steps), address=address) as running:
        pid = int(running.wait_for(r"^pid (\d+)$")[1])
        assert running.wait() == 75
        assert "krun-launch: error: token: token has not ended within 0.5 s" in running.stderr
        assert "KRUN_READY_TIMEOUT sets the limit" in running.stderr
        assert is_gone(pid)


def test_signal_while_a_process_runs_ends_the_start_at_once(address: str) -> None:
    steps = [{"name": "token", "run": "echo pid $$ >&2; exec sleep 60", "timeout": 60.0}]
    with launched(Told(steps=steps), address=address) as running:
        pid = int(running.wait_for(r"^pid (\d+)$")[1])
        assert running.terminate(timeout=5) == 143
        assert is_gone(pid)
        assert "killed part" not in running.stderr


def test_whoever_a_process_leaves_with_its_stderr_holds_nobody_up(address: str) -> None:
    with launched(Told(steps=[{"name": "token", "run": "sleep 60 & exit 0"}]), address=address) as running:
        running.wait_for("app started", timeout=10)


def test_much_that_is_said_is_passed_on_whole(address: str) -> None:
    steps = [{"name": "token", "run": "seq 1 100000 >&2; " + fails(77)}]
    with launched(Told(steps=steps), address=address) as running:
        assert running.wait() == 77
        assert [line for line in running.stderr.splitlines() if line.isdecimal()] == [str(n) for n in range(1, 100001)]


def test_task_is_run_again_and_again_and_never_twice_at_once(address: str, tmp_path: Path) -> None:
    # mkdir fails where somebody else is in the room.
    script = f"mkdir {tmp_path}/room || echo both >&2; echo run >&2; sleep 0.2; rmdir {tmp_path}/room"
    with launched(Told(tasks=[("token", script, 0.1, 0.1)]), address=address) as running:
        running.wait_for("(?s)(run.*){5}")
        assert "both" not in running.stderr


def test_task_that_fails_is_a_warning_and_tried_again_and_nothing_ends(address: str, tmp_path: Path) -> None:
    script = f"test -e {tmp_path}/good || {{ {fails(69)}; }}; echo renewed >&2"
    with launched(Told(tasks=[("token", script, 5.0, 0.1)]), address=address) as running:
        # The first run is one whole pause after the start.
        running.wait_for('warning: task failed, tried again part=token reason="no such luck" count=2')
        (tmp_path / "good").touch()
        running.wait_for("^renewed$")
        assert "krun-token: error" not in running.stderr
        metrics = get(address, "/metrics")
        assert int(re.findall(r'krun_task_runs_total\{task="token",result="failure"\} (\d+)', metrics)[0]) >= 2
        state = json.loads(get(address, "/readyz"))
        assert state["ready"] is True
        assert running.terminate() == 143


def test_task_is_run_while_the_application_still_starts(address: str) -> None:
    told = Told(
        app=apps.argv(address=address, listen_after=60), waits=True, tasks=[("token", "echo run >&2", 0.1, 0.1)]
    )
    with launched(told, address=address) as running:
        running.wait_for("(?s)(run.*){3}")
        assert json.loads(_any(address))["step"] == "app"


def _any(address: str) -> str:
    """The state of somebody who is not ready."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(address, "/readyz")
    return caught.value.read().decode()


def test_task_is_run_while_envoy_is_frozen(address: str) -> None:
    told = Told(
        steps=[{"name": "pilot-agent", "script": "echo pid $$ >&2; exec sleep 60"}],
        tasks=[("token", "echo run >&2", 0.1, 0.1)],
    )
    with launched(told, address=address) as running:
        pid = int(running.wait_for(r"^pid (\d+)$")[1])
        os.kill(pid, signal.SIGSTOP)
        seen = running.stderr.count("run")
        running.wait_for(f"(?s)(run.*){{{seen + 3}}}")
        assert running.terminate() == 143
        assert is_gone(pid)


def test_task_that_hangs_is_ended_with_all_else_and_in_no_time(address: str) -> None:
    told = Told(tasks=[("token", "trap '' TERM; echo pid $$ >&2; while true; do sleep 0.1; done", 0.1, 0.1)])
    with launched(told, address=address) as running:
        pid = int(running.wait_for(r"^pid (\d+)$")[1])
        assert running.terminate(timeout=8) == 143
        assert is_gone(pid)


def test_life_of_a_token_decides_when_it_is_renewed_before_the_schedule_does(address: str, tmp_path: Path) -> None:
    # 'token' lives for 2 seconds from now on; the schedule alone would run it in an hour.
    write = (
        f'{sys.executable} -I -c "import base64, json, time; now = time.time();'
        "body = base64.urlsafe_b64encode(json.dumps({'iat': now, 'exp': now + 2}).encode()).decode().rstrip('=');"
        f"open('{tmp_path}/token', 'w').write('h.' + body + '.canary-5e1f')\" && echo written >&2"
    )
    told = Told(
        steps=[{"name": "token", "run": write}, {"name": "pilot-agent", "script": "exec sleep 60"}],
        tasks=[("token", write, 3600.0, 0.1)],
        credentials=[("token", f"{tmp_path}/token", "token"), ("root", f"{tmp_path}/absent", "root")],
    )
    with launched(told, address=address) as running:
        running.wait_for("(?s)(^written$.*){3}")
        state, metrics = get(address, "/readyz"), get(address, "/metrics")
        assert json.loads(state)["credentials"]["token"]["age"] <= 2
        assert json.loads(state)["credentials"]["root"] is None
        assert 'krun_credential_age_seconds{credential="token"}' in metrics
        assert "canary" not in state + metrics + running.said()


def test_quitquitquit_ends_all_in_order_as_sigterm_does(address: str) -> None:
    told = Told(app=apps.argv(address=address), waits=True)
    with launched(told, address=address) as running:
        running.wait_for("ready mode=captured")
        get(address, "/quitquitquit", method="POST")
        assert running.wait() == 0
        assert "app stops" in running.stdout
        assert 'asked to end reason="POST /quitquitquit"' in running.stderr


def test_second_quitquitquit_does_not_cut_the_end_short(address: str) -> None:
    app = (
        "sh",
        "-c",
        "trap 'echo ending; sleep 1; echo whole; exit 5' TERM; echo app started; while true; do sleep 0.1; done",
    )
    with launched(Told(app=app), address=address) as running:
        running.wait_for("app started")
        get(address, "/quitquitquit", method="POST")
        running.wait_for("ending")
        get(address, "/quitquitquit", method="POST")
        assert running.wait() == 5
        assert "whole" in running.stdout


def agent(address: str) -> dict[str, object]:
    """A part that has a child which listens, and survives it, as Envoy does its agent."""
    listen = (
        f"import socket, time; s = socket.create_server(('{address}', 15020)); print('up', flush=True); time.sleep(60)"
    )
    script = f'{sys.executable} -I -c "{listen}" >&2 & echo pid $$ >&2; wait'
    return {"name": "pilot-agent", "script": script, "port": 15020}


def test_agent_that_dies_is_started_again_as_often_as_was_asked_for(address: str) -> None:
    with launched(Told(steps=[agent(address)]), address=address, KRUN_RESTARTS="2") as running:
        for count in (1, 2):
            running.wait_for(f"(?s)(ready mode=captured.*){{{count}}}")
            pids = re.findall(r"^pid (\d+)$", running.stderr, re.MULTILINE)
            assert len(pids) == count
            os.kill(int(pids[-1]), signal.SIGKILL)
            running.wait_for(f"died, started again part=pilot-agent status=137 count={count}")
        running.wait_for("(?s)(ready mode=captured.*){3}")
        assert json.loads(get(address, "/readyz"))["restarts"] == {"pilot-agent": 2}
        assert 'krun_restarts_total{part="pilot-agent"} 2' in get(address, "/metrics")
        os.kill(int(re.findall(r"^pid (\d+)$", running.stderr, re.MULTILINE)[-1]), signal.SIGKILL)
        assert running.wait() == 69
        assert "krun-launch: error: pilot-agent ended with status 137 (SIGKILL)" in running.stderr
        assert running.stdout.count("app started") == 1


def test_agent_that_dies_ends_all_unless_restarts_are_asked_for(address: str) -> None:
    with launched(Told(steps=[agent(address)]), address=address) as running:
        running.wait_for("ready mode=captured")
        os.kill(int(running.wait_for(r"^pid (\d+)$")[1]), signal.SIGKILL)
        assert running.wait() == 69


def test_agent_that_dies_again_while_it_starts_again_counts_each_time(address: str, tmp_path: Path) -> None:
    # The first one lives; those that follow end at once.
    first = agent(address)
    first["script"] = f"test ! -e {tmp_path}/not-first || exit 4; touch {tmp_path}/not-first; {first['script']}"
    with launched(Told(steps=[first]), address=address, KRUN_RESTARTS="3") as running:
        running.wait_for("ready mode=captured")
        os.kill(int(running.wait_for(r"^pid (\d+)$")[1]), signal.SIGKILL)
        assert running.wait() == 69
        assert running.stderr.count("died, started again") == 3
        assert "krun-launch: error: pilot-agent ended with status 4" in running.stderr
