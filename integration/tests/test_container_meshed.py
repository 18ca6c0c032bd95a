"""A container outside of the cluster is a member of a real mesh, with the right to capture and without it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from krun_testbed import mesh_agent, mesh_container, mesh_gate, mesh_objects, mesh_pod
from krun_testbed.containers import Container
from krun_testbed.mesh_cluster import SUFFIX, Cluster

pytestmark = [pytest.mark.mesh, pytest.mark.containers, pytest.mark.timeout(600)]


def fetched(container: Container, url: str) -> dict[str, Any]:
    """What the pod's application saw of a request that the container's made."""
    answer = container.ask(f"/fetch?url={url}")
    assert answer["status"] == 200, answer
    seen: dict[str, Any] = json.loads(str(answer["body"]))
    return seen


@pytest.mark.parametrize(("way", "rights"), [("captured", ["NET_ADMIN"]), ("whitebox", [])])
def test_a_container_and_a_pod_call_each_other_by_mutual_tls(
    engine: None, cluster: Cluster, way: str, rights: list[str]
) -> None:
    namespace = cluster.namespace()
    cluster.kubernetes.service_account("outside", namespace=namespace)
    cluster.apply(mesh_objects.strict(), namespace=namespace)
    with (
        cluster.gate() as gate,
        cluster.pod("web", namespace=namespace) as web,
        mesh_container.contained(cluster, "a", namespace=namespace, account="outside", cap_add=rights) as a,
    ):
        assert [each["mode"] for each in a.container.messages() if each["message"] == "ready"] == [way]
        mesh_pod.wait_until_served(a.place, web.place.address)
        for form in ("web", f"web.{namespace}", f"web.{namespace}.svc", f"web.{namespace}.{SUFFIX}"):
            seen = fetched(a.container, f"http://{form}:8080/")
            assert seen["name"] == "web"
            assert f"URI={a.identity}" in seen["headers"]["x-forwarded-client-cert"]
            assert f"By={web.identity}" in seen["headers"]["x-forwarded-client-cert"]
        cluster.register("a", gate, namespace=namespace, account="outside")
        host = f"a.{namespace}.{SUFFIX}"
        gate.lead(a.place, mesh_gate.server_name(host, 8080))
        mesh_pod.wait_until_served(web.place, gate.address)
        mesh_agent.wait_for_config(a.place, "_15003")
        answer = web.call("http://a:8080/", to=cluster.names.names[host])
        assert (answer.status, answer.identities) == (200, (web.identity, a.identity))
