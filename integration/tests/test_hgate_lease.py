"""Of several replicas one writes: hgate's lease on a real API server, through a door that can be shut."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hgate import errors
from hgate.kube import LeaderKube, open_kube
from hgate.kube_answer import Answer, NotLeader
from hgate.lease import Election, Timing
from krun_testbed import processes
from krun_testbed.certificates import write
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_door import Door, Fault
from krun_testbed.kubernetes_kubeconfig import by_token, kubeconfig

pytestmark = pytest.mark.kubernetes

QUICK = Timing(life=3.0, renew=2.0, retry=0.2)
LEASE = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/hgate"


class Replica:
    """One that stands for election, by a door of its own."""

    def __init__(self, *, name: str, door: Door, namespace: str, path: Path, token: str) -> None:
        self.door = door
        self.failures: list[Answer | errors.Unreachable] = []
        self.told: list[bool] = []
        write(path=path, content=kubeconfig(server=door.url, root=door.authority.root, user=by_token(token)).encode())
        self.kube = open_kube(kubeconfig=str(path), answer_timeout=1.0)
        self.election = Election(
            kube=self.kube,
            namespace=namespace,
            name="hgate",
            me=name,
            changed=self.told.append,
            failed=self.failures.append,
            timing=QUICK,
        )
        self.election.start()

    @property
    def is_leader(self) -> bool:
        return self.election.is_leader()


@pytest.fixture
def replicas(kubernetes: Kubernetes, namespace: str, tmp_path: Path) -> Iterator[list[Replica]]:
    """Two of them, with the rights that the manifests give."""
    group = "rbac.authorization.k8s.io"
    metadata = {"name": "elected", "namespace": namespace}
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    rules = [{**leases, "verbs": ["create"]}, {**leases, "resourceNames": ["hgate"], "verbs": ["get", "update"]}]
    user = f"elected-{namespace}"
    kubernetes.apply(
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "elected"},
            "subjects": [{"kind": "User", "name": user}],
        },
    )
    with contextlib.ExitStack() as stack:
        made = []
        for name in ("a", "b"):
            door = stack.enter_context(Door(kubernetes=kubernetes, address="127.0.0.1"))
            token, path = kubernetes.outsider(user), tmp_path / f"{name}.kubeconfig"
            made.append(Replica(name=name, door=door, namespace=namespace, path=path, token=token))
            stack.callback(made[-1].election.stop)
        yield made


def leader_of(replicas: list[Replica]) -> Replica:
    processes.wait_until(lambda: any(each.is_leader for each in replicas), what="one is the leader")
    (leader,) = [each for each in replicas if each.is_leader]
    return leader


def other(replicas: list[Replica], leader: Replica) -> Replica:
    (found,) = [each for each in replicas if each is not leader]
    return found


def test_one_of_two_holds_the_lease_and_gives_it_back_when_it_ends(
    replicas: list[Replica], kubernetes: Kubernetes, namespace: str
) -> None:
    leader = leader_of(replicas)
    heir = other(replicas, leader)
    lease = kubernetes.admin.get(LEASE.format(namespace=namespace))["spec"]
    assert lease["holderIdentity"] in ("a", "b")
    leader.election.stop()
    assert not leader.is_leader
    assert leader.told == [True, False]
    # It need not wait until the lease has run out.
    processes.wait_until(lambda: heir.is_leader, what="the other holds it", timeout=2.5)
    assert kubernetes.admin.get(LEASE.format(namespace=namespace))["spec"]["leaseTransitions"] >= 1


def test_who_is_cut_off_stops_before_another_begins(replicas: list[Replica]) -> None:
    leader = leader_of(replicas)
    heir = other(replicas, leader)
    both = threading.Event()
    watching = threading.Event()

    def watch() -> None:
        while not watching.is_set():
            if leader.is_leader and heir.is_leader:
                both.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    leader.door.close()
    processes.wait_until(lambda: heir.is_leader, what="the other holds it")
    watching.set()
    watcher.join()
    assert not both.is_set()
    assert not leader.is_leader
    assert isinstance(leader.failures[0], errors.Unreachable)
    # Whoever comes back does not take it away again.
    leader.door.open()
    asked = len(leader.door.asked)
    processes.wait_until(lambda: len(leader.door.asked) > asked + 5, what="it asks again")
    assert heir.is_leader
    assert not leader.is_leader


def test_a_server_that_does_not_answer_takes_the_lease_away_by_time_alone(replicas: list[Replica]) -> None:
    leader = leader_of(replicas)
    leader.door.faults.append(Fault(pattern="leases", silent=True))
    processes.wait_until(lambda: not leader.is_leader, what="it holds the lease no more", timeout=6)
    api = LeaderKube(leader.kube, is_leader=leader.election.is_leader, learned=lambda item, gone: None)
    asked = leader.door.count("POST /api/v1")
    for call in (
        lambda: api.create("/api/v1/namespaces/default/configmaps", {}),
        lambda: api.replace("/api/v1/namespaces/default/configmaps/a", {}),
        lambda: api.delete("/api/v1/namespaces/default/configmaps/a"),
    ):
        with pytest.raises(NotLeader):
            call()
    assert leader.door.count("POST /api/v1") == asked
    leader.door.let_go.set()


def test_a_refused_renewal_is_said_and_the_lease_runs_out(replicas: list[Replica]) -> None:
    leader = leader_of(replicas)
    leader.door.faults.append(Fault(pattern="PUT .*leases", status=403, reason="Forbidden"))
    processes.wait_until(lambda: not leader.is_leader, what="it holds the lease no more", timeout=6)
    denied = [failure for failure in leader.failures if isinstance(failure, Answer) and failure.is_denied]
    assert denied
    assert (denied[0].access.verb, denied[0].access.resource) == ("update", "leases")
    heir = other(replicas, leader)
    processes.wait_until(lambda: heir.is_leader, what="the other holds it")
