"""A registration that is killed at any point is finished by the next: nothing doubled or lost, nothing of others."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hgate import reconcile, written
from hgate.kube import open_kube
from krun_testbed import hgate_rounds, processes
from krun_testbed.hgate_rounds import OWN, Rounds
from krun_testbed.kubernetes import Kubernetes

KILLS = 200 if os.environ.get("KRUN_SOAK") else 10
SERVICES = 6

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300 + KILLS * 30)]


@pytest.fixture
def rounds(kubernetes: Kubernetes, namespace: str) -> Rounds:
    hgate_rounds.definitions(kubernetes)
    return Rounds(kube=open_kube(kubeconfig=str(kubernetes.kubeconfig)), namespaces=(namespace,))


def declared(chance: random.Random) -> dict[str, str]:
    """Some services, each with what it declares, which may be of none's right."""
    one = f"https://{{}}-{OWN}.us-central1.run.app"
    both = f"{one}=25 https://{{}}-{OWN}.europe-west1.run.app=75"
    choice = [one, both, "", "https://foreign-999999999.us-central1.run.app", None]
    made = {}
    for number in range(SERVICES):
        name = f"web-{number}"
        text = chance.choices(choice, weights=(5, 3, 1, 1, 2))[0]
        if text is not None:
            made[name] = text.format(name, name)
    return made


def apply(kubernetes: Kubernetes, services: dict[str, str], *, namespace: str, chance: random.Random) -> None:
    """Let exactly these Services be there, each with an annotation that changes a little."""
    path = f"/api/v1/namespaces/{namespace}/services"
    for item in kubernetes.admin.get(path)["items"]:
        is_ours = "app.kubernetes.io/managed-by" in item["metadata"].get("labels", {})
        if not is_ours and item["metadata"]["name"] not in services:
            kubernetes.admin.delete(f"{path}/{item['metadata']['name']}")
    for name, url in services.items():
        annotations = {"hgate.krun/timeout": str(chance.choice([60, 300]))} | ({"hgate.krun/url": url} if url else {})
        kubernetes.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "annotations": annotations},
                "spec": {"ports": [{"name": "http", "port": 8080}], "selector": {"app": name}},
            },
            namespace=namespace,
        )


def killed(kubernetes: Kubernetes, namespace: str, *, after: int, within: bool) -> str:
    """A round that is killed at a point, before or after a write, or ``within`` the one that follows; where it was."""
    argv = [sys.executable, "-m", "krun_testbed.hgate_rounds", "--kubeconfig", str(kubernetes.kubeconfig)]
    with subprocess.Popen(
        [*argv, "--namespace", namespace], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=processes.environment()
    ) as running:
        last = ""
        for point, line in enumerate(lines(running)):
            last = line
            is_last = point == after or line == "whole"
            if is_last and not within:
                break
            running.stdin.write(b"\n")  # type: ignore[union-attr]
            running.stdin.flush()  # type: ignore[union-attr]
            if is_last:
                break  # the request is on its way, or was answered just now
        running.kill()
    return last


def lines(running: subprocess.Popen[bytes]) -> Iterator[str]:
    assert running.stdout is not None
    for line in running.stdout:
        yield line.decode().strip()
    raise AssertionError(f"it ended by itself: {running.wait()}")


def test_whoever_is_killed_leaves_what_the_next_can_finish(kubernetes: Kubernetes, rounds: Rounds) -> None:
    (namespace,) = rounds.namespaces
    chance = random.Random(int(os.environ.get("KRUN_SEED", "7")))
    persons = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "web-1"},
        "spec": {"host": "elsewhere.example"},
    }
    (mine,) = kubernetes.apply(persons, namespace=namespace)
    points: set[str] = set()
    for _ in range(KILLS):
        services = declared(chance)
        apply(kubernetes, services, namespace=namespace, chance=chance)
        where = killed(kubernetes, namespace, after=chance.randrange(24), within=chance.random() < 0.3)
        points.add(where.partition(" ")[0])
        rounds.run()
        check(rounds, services)
        assert kubernetes.admin.get(kubernetes.admin.path_of(mine))["metadata"]["uid"] == mine["metadata"]["uid"]
    assert {"create", "done"} <= points


def check(rounds: Rounds, services: dict[str, str]) -> None:
    """All is there, once, as it should be, and nothing else; and the next round has nothing to do."""
    (namespace,) = rounds.namespaces
    seen = rounds.seen()
    there = {f"{kind} {name}" for kind, where, name in seen if where == namespace}
    assert there == {each for name, url in services.items() for each in expected(name, url)}
    for key, item in seen.items():
        assert written.is_untouched(reconcile.whole(key, item)), key
    assert not rounds.run().is_changed
    told = [(item["involvedObject"]["uid"], item["message"]) for item in rounds.events(namespace)]
    assert len(set(told)) == len(told)
    by_name = {refused.ref.name for refused in rounds.result().refused}
    assert by_name == {name for name, url in services.items() if "foreign" in url}


def expected(name: str, url: str) -> list[str]:
    """What follows from one declaration, in words of this test."""
    if not url or "foreign" in url:
        return []
    side = [f"PeerAuthentication {name}", f"Sidecar {name}"]
    if " " in url:
        regions = [f"{name}-us-central1", f"{name}-europe-west1"]
        own = [f"{kind} {each}" for each in regions for kind in ("DestinationRule", "Service", "WorkloadEntry")]
        return [*side, *own, f"VirtualService {name}"]
    # The rule of one of them is somebody's own.
    return [*side, f"WorkloadEntry {name}", *([] if name == "web-1" else [f"DestinationRule {name}"])]
