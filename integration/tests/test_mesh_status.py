"""What krun-launch tells of itself in a real mesh; how it ends there, and goes on when parts of it die or freeze."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from krun_testbed import mesh_agent, mesh_call, mesh_cluster, mesh_gate, mesh_pod, mesh_workload, processes
from krun_testbed.mesh_call import Answer
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_gate import Gate
from krun_testbed.mesh_pod import Pod
from krun_testbed.mesh_workload import Workload

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]

STATUS, PROXY = 15019, 15007


@dataclass(frozen=True, kw_only=True)
class World:
    """A pod, and what a workload outside needs to be called by it."""

    cluster: Cluster
    namespace: str
    web: Pod
    gate: Gate

    @contextmanager
    def workload(self, **variables: str) -> Iterator[Workload]:
        """The workload ``a``, captured unless told otherwise, called by pods as a service."""
        with mesh_workload.workload(self.cluster, "a", namespace=self.namespace, env=variables) as a:
            self.gate.lead(a.place, mesh_gate.server_name(a.host, 8080))
            mesh_agent.wait_for_config(a.place, "_15003")
            mesh_pod.wait_until_served(a.place, self.web.place.address)
            yield a

    def call_in(self, path: str = "/") -> Answer:
        """The pod calls the workload."""
        host = f"a.{self.namespace}.svc.cluster.local"
        return self.web.call(f"http://a:8080{path}", to=self.cluster.names.names[host], timeout=30)


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> Iterator[World]:
    namespace = cluster.namespace()
    with cluster.gate() as gate, cluster.pod("web", namespace=namespace) as web:
        cluster.register("a", gate, namespace=namespace)
        mesh_pod.wait_until_served(web.place, gate.address)
        yield World(cluster=cluster, namespace=namespace, web=web, gate=gate)


def told(a: Workload) -> dict[str, Any]:
    found: dict[str, Any] = mesh_call.admin(a.place, "/readyz", port=STATUS).json
    return found


def calls_out(a: Workload) -> bool:
    """Whether the application's call of the pod is answered, by mTLS."""
    try:
        said = json.loads(a.curl("http://web:8080/"))
    except (AssertionError, ValueError):
        return False
    return f"URI={a.identity}" in said["headers"].get("x-forwarded-client-cert", "")


def pids(a: Workload, program: str) -> list[int]:
    """The processes of the workload that run a program."""
    below = processes.children(a.running.pid)
    return [pid for pid in below if program in " ".join(processes.command_line(pid)).partition(" --")[0]]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_readyz_and_metrics_tell_mode_steps_and_ages_and_no_secret(world: World) -> None:
    with world.workload() as a:
        state = told(a)
        metrics = mesh_call.admin(a.place, "/metrics", port=STATUS).body.decode()
        assert (state["mode"], state["interception"], state["ready"]) == ("captured", "captured", True)
        assert {"token", "agent ready", "app answers"} <= set(state["steps"])
        assert set(state["credentials"]) == {"token", "root", "certificate"}
        assert 0 <= state["credentials"]["token"]["age"] < 600
        # istiod's certificates begin two minutes before they are made.
        assert 120 <= state["credentials"]["certificate"]["age"] < 720
        for name in ("token", "root", "certificate"):
            assert f'krun_credential_age_seconds{{credential="{name}"}} ' in metrics
            assert f'krun_credential_expiry_timestamp_seconds{{credential="{name}"}} ' in metrics
        assert 'krun_info{mode="captured",interception="captured"} 1\n' in metrics
        assert re.search(r'krun_start_step_seconds\{step="agent ready"\} \d+\.\d', metrics)
        said = json.dumps(state) + metrics + a.running.said()
        assert "eyJ" not in said
        assert "PRIVATE KEY" not in said


def test_quitquitquit_waits_for_the_request_under_way_and_ends_all(world: World) -> None:
    with world.workload() as a:
        answers: list[Answer] = []
        caller = threading.Thread(target=lambda: answers.append(world.call_in("/sleep/2")))
        caller.start()
        processes.wait_until(lambda: active(a) > 0, what="a request is under way")
        assert mesh_call.admin(a.place, "/quitquitquit", port=STATUS, method="POST").status == 200
        assert a.running.wait() == 143  # the application has no handler
        caller.join()
        assert [answer.status for answer in answers] == [200]
        steps = re.findall(r'"end step done", "step": "([^"]*)", "at_ms": (\d+)', a.running.stderr)
        assert [name for name, _ in steps] == [
            "not ready",
            "no new tunnels",
            "envoy drains",
            "inbound at zero",
            "app ends",
            "tunnels close",
            "helpers end",
        ]
        # The agent waits for nothing after that, though its own way is to sleep for 5 seconds.
        assert int(dict(steps)["helpers end"]) < 5000
        assert "killed" not in a.running.stderr
        # Nor does Envoy complain of its own end.
        assert "config stream" not in a.running.stderr


def active(a: Workload) -> int:
    """Requests that its Envoy has taken from the mesh and not answered."""
    text = mesh_call.admin(a.place, "/stats?filter=inbound.*downstream_rq_active").body.decode()
    return sum(int(count) for count in re.findall(r"downstream_rq_active: (\d+)", text))


@pytest.mark.parametrize("mode", ["captured", "whitebox"])
def test_egress_probe_that_is_answered_lets_the_application_start(mode: str, world: World) -> None:
    with world.workload(KRUN_MODE=mode, KRUN_EGRESS_PROBE="http://web:8080/status/202") as a:
        assert "egress probe" in told(a)["steps"]
        asked = [request for request in world.web.app.requests if request["path"] == "/status/202"]
        assert f"URI={a.identity}" in asked[-1]["headers"]["x-forwarded-client-cert"]


@pytest.mark.parametrize("mode", ["captured", "whitebox"])
def test_egress_probe_that_is_not_answered_is_75_and_the_application_never_starts(mode: str, world: World) -> None:
    env = {"KRUN_MODE": mode, "KRUN_EGRESS_PROBE": "http://web:8080/status/503", "KRUN_EGRESS_PROBE_TIMEOUT": "5"}
    with unready(world, **env) as running:
        assert running.wait() == 75
        assert "egress probe: http://web:8080/status/503: no good answer within 5 s: HTTP 503" in running.stderr
        assert "app listens" not in running.stdout


def test_egress_probe_that_is_not_required_is_a_warning(world: World) -> None:
    env = {"KRUN_EGRESS_PROBE": "http://web:8080/status/503", "KRUN_EGRESS_PROBE_TIMEOUT": "1"}
    with world.workload(**env, KRUN_EGRESS_PROBE_REQUIRED="false") as a:
        assert "egress probe failed, going on all the same" in a.running.stderr


def test_sidecar_without_an_application_leads_others_into_the_mesh_and_ends_with_0(world: World) -> None:
    with world.cluster.network.place(name="a") as place:
        place.resolver(mesh_cluster.OUTSIDE_RESOLVER)
        env = mesh_workload.environment(world.cluster, place, name="a", namespace=world.namespace)
        with mesh_workload.started(place, [], env={**env, "KRUN_MODE": "whitebox"}) as running:
            running.wait_for(r'"krun-launch", "message": "ready"')
            mesh_pod.wait_until_served(place, world.web.place.address)
            answer = mesh_call.call(place, "http://web:8080/", to="127.0.0.1", port=PROXY)
            assert answer.by == "web"
            assert answer.identities[0] == f"spiffe://cluster.local/ns/{world.namespace}/sa/default"
            assert running.terminate() == 0


def test_job_ends_at_once_with_the_applications_status(world: World) -> None:
    with unready(world, app=["sh", "-c", "exit 7"], CLOUD_RUN_JOB="nightly") as running:
        assert running.wait(timeout=60) == 7
        steps = re.findall(r'"end step done", "step": "([^"]*)", "at_ms": (\d+)', running.stderr)
        assert [name for name, _ in steps] == ["not ready", "helpers end"]
        assert "killed" not in running.stderr


@contextmanager
def unready(world: World, *, app: Sequence[str] = (), **variables: str) -> Iterator[processes.Running]:
    """The workload, which is not going to be ready, or not for long."""
    with world.cluster.network.place(name="a") as place:
        place.resolver(mesh_pod.RESOLVER)
        env = mesh_workload.environment(world.cluster, place, name="a", namespace=world.namespace)
        argv = ["--", *(app or mesh_workload.application("a"))]
        with mesh_workload.started(place, argv, env={**env, **variables}) as running:
            yield running


@pytest.mark.parametrize("program", ["pilot-agent", "envoy"])
def test_death_of_the_agent_or_of_its_envoy_ends_all_with_69(program: str, world: World) -> None:
    with world.workload() as a:
        (pid,) = pids(a, f"/{program}")
        below = processes.children(a.running.pid)
        os.kill(pid, signal.SIGKILL)
        assert a.running.wait() == 69
        assert "krun-launch: error: pilot-agent ended with status " in a.running.stderr
        assert [pid for pid in below if is_alive(pid)] == []


@pytest.mark.parametrize("program", ["pilot-agent", "envoy"])
def test_agent_that_is_started_again_is_in_the_mesh_again(program: str, world: World) -> None:
    with world.workload(KRUN_RESTARTS="1") as a:
        assert calls_out(a)
        app = pids(a, "mesh_app")
        (pid,) = pids(a, f"/{program}")
        os.kill(pid, signal.SIGKILL)
        a.running.wait_for("died, started again")
        a.running.wait_for(r'(?s)("krun-launch", "message": "ready".*){2}')
        processes.wait_until(lambda: calls_out(a), what="the application calls the pod again")
        mesh_agent.wait_for_config(a.place, "_15003")
        assert world.call_in().by == "a"
        assert told(a)["restarts"] == {"pilot-agent": 1}
        assert pids(a, "mesh_app") == app
        (pid,) = pids(a, "/pilot-agent")
        os.kill(pid, signal.SIGKILL)
        assert a.running.wait() == 69


def test_envoy_that_is_frozen_holds_up_neither_tokens_nor_the_end(world: World) -> None:
    with world.workload(KRUN_TOKEN_REFRESH="1", KRUN_GRACE="6") as a:
        (pid,) = pids(a, "/envoy")
        os.kill(pid, signal.SIGSTOP)
        before = told(a)["tasks"]["token"]["succeeded"]
        processes.wait_until(lambda: told(a)["tasks"]["token"]["succeeded"] > before + 1, what="tokens are renewed")
        assert a.running.terminate() == 143
        assert not is_alive(pid)
