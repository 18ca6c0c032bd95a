"""mesh-env as hgate writes it on a real API server, and as krun-discover reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import hgate_control, processes
from krun_testbed.certificates import Authority
from krun_testbed.hgate_control import SYSTEM, Installed
from krun_testbed.kubernetes import Kubernetes

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(180)]

PATH = f"/api/v1/namespaces/{SYSTEM}/configmaps/mesh-env"


@pytest.fixture
def hgate(kubernetes: Kubernetes, tmp_path: Path) -> Iterator[Installed]:
    """The manifests applied, and all that follows from them taken away again."""
    installed = hgate_control.install(kubernetes, folder=tmp_path)
    installed.sweep()
    yield installed
    installed.sweep()


def holds(hgate: Installed, **values: str) -> None:
    processes.wait_until(
        lambda: values.items() <= (hgate.mesh_env() or {}).items(), what=f"mesh-env holds {', '.join(values)}"
    )


def test_addresses_roots_tenant_and_trust_domain_are_written_and_kept_up(hgate: Installed) -> None:
    kubernetes, root = hgate.kubernetes, Authority(name="mesh").root.decode()
    with hgate.replica(CLUSTER_NAME="demo", CLUSTER_LOCATION="us-central1") as gate:
        holds(hgate, PROJECT_ID="demo-project", CLUSTER_NAME="demo", CLUSTER_LOCATION="us-central1")
        hgate.balanced(public="203.0.113.7", internal="10.1.2.3")
        kubernetes.config_map("istio-ca-root-cert", {"root-cert.pem": root}, namespace=SYSTEM)
        kubernetes.config_map("env-asm-managed", {"CLOUDRUN_ADDR": "asm-demo.a.run.app:443"}, namespace=SYSTEM)
        kubernetes.config_map("istio", {"mesh": "trustDomain: td.example"}, namespace=SYSTEM)
        holds(hgate, MCON_ADDR="203.0.113.7", IMCON_ADDR="10.1.2.3", CAROOT_ISTIOD=root)
        holds(hgate, MESH_TENANT="asm-demo.a.run.app:443", TRUST_DOMAIN="td.example")
        # Its address changes; what cannot be known any more stays.
        hgate.balanced(internal="10.9.9.9")
        holds(hgate, MCON_ADDR="203.0.113.7", IMCON_ADDR="10.9.9.9")
        new = Authority(name="mesh").root.decode()
        kubernetes.config_map("istio-ca-root-cert", {"root-cert.pem": new}, namespace=SYSTEM)
        holds(hgate, CAROOT_ISTIOD=f"{new}{root}")
        # It is written when something has changed, and not again and again.
        assert len(gate.said("mesh-env written")) <= 8


def test_what_an_admin_writes_stays_and_what_is_deleted_comes_back(hgate: Installed) -> None:
    hgate.kubernetes.config_map("mesh-env", {"MCON_ADDR": "198.51.100.1", "MORE": "theirs"}, namespace=SYSTEM)
    hgate.balanced(public="203.0.113.7", internal="10.1.2.3")
    with hgate.replica() as gate:
        holds(hgate, MCON_ADDR="198.51.100.1", MORE="theirs", IMCON_ADDR="10.1.2.3")
        assert gate.said("mesh-env is not all ours")
        merge = "application/merge-patch+json"
        hgate.kubernetes.admin.request("PATCH", PATH, {"data": {"IMCON_ADDR": "10.7.7.7"}}, kind=merge)
        hgate.kubernetes.admin.request("PATCH", PATH, {"data": {"MCON_ADDR": None}}, kind=merge)
        holds(hgate, MCON_ADDR="203.0.113.7", IMCON_ADDR="10.7.7.7")
        hgate.kubernetes.admin.delete(PATH)
        holds(hgate, MCON_ADDR="203.0.113.7", IMCON_ADDR="10.1.2.3")


def test_ranges_of_pods_and_services_are_joined(hgate: Installed) -> None:
    nodes = {"mesh-env-one": "10.4.0.0/24", "mesh-env-two": "10.4.1.0/24"}
    for name, pods in nodes.items():
        spec = {"podCIDR": pods, "podCIDRs": [pods]}
        hgate.kubernetes.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec})
    try:
        with hgate.replica():
            holds(hgate, OUTBOUND_IP_RANGES_INCLUDE="10.4.0.0/23,10.96.0.0/16")
    finally:
        for name in nodes:
            hgate.kubernetes.admin.delete(f"/api/v1/nodes/{name}")


def test_two_replicas_write_it_once_and_the_other_goes_on_when_one_ends(hgate: Installed) -> None:
    hgate.balanced(public="203.0.113.7", internal="10.1.2.3")
    with hgate.replica() as first, hgate.replica() as second:
        processes.wait_until(lambda: first.metric("hgate_is_leader") == {"": 1.0}, what="the first writes")
        holds(hgate, MCON_ADDR="203.0.113.7")
        assert second.metric("hgate_is_leader") == {"": 0.0}
        assert second.said("mesh-env written") == []
        # In the middle of something to write.
        hgate.balanced(public="203.0.113.9", internal="10.1.2.3")
        assert first.running.terminate() == 0
        lease = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/hgate"
        assert (
            hgate.kubernetes.admin.get(lease)["spec"]["holderIdentity"] != first.said("holds the lease")[0]["replica"]
        )
        hgate.balanced(public="203.0.113.8", internal="10.1.2.3")
        holds(hgate, MCON_ADDR="203.0.113.8")
        assert second.metric("hgate_is_leader") == {"": 1.0}


def test_krun_discover_finds_all_of_it(hgate: Installed, namespace: str, tmp_path: Path) -> None:
    root = Authority(name="mesh").root.decode()
    hgate.balanced(public="203.0.113.7", internal="10.1.2.3")
    hgate.kubernetes.config_map("istio-ca-root-cert", {"root-cert.pem": root}, namespace=SYSTEM)
    with hgate.replica():
        holds(hgate, MCON_ADDR="203.0.113.7", IMCON_ADDR="10.1.2.3", CAROOT_ISTIOD=root)
        env = processes.environment(KUBECONFIG=str(hgate.kubernetes.kubeconfig), WORKLOAD_NAMESPACE=namespace)
        done = processes.run(["krun-discover"], env=env)
    found = json.loads(done.stdout)
    assert found["MCON_ADDR"] == "203.0.113.7"
    assert found["CAROOT_ISTIOD"].strip() == root.strip()
    assert found["XDS_ADDR"] in ("203.0.113.7:15012", "10.1.2.3:15012")
