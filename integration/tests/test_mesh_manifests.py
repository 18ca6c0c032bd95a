"""What manifests/ hold for a mesh is what a real istiod and a real API server take, and it works."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from string import Template

import pytest

from krun_testbed import mesh_agent, mesh_gate, mesh_pod, mesh_workload, tables
from krun_testbed.mesh_cluster import SUFFIX, Cluster

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]

TEMPLATE = tables.ROOT / "manifests" / "sni-service-template.yaml"
SERVICE = "cloudrun-6c3hzwsnla-uc"


def test_a_workload_that_the_template_registers_is_called_by_its_name(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.kubernetes.service_account("outside", namespace=namespace)
    with (
        cluster.gate() as gate,
        cluster.pod("web", namespace=namespace) as web,
        mesh_workload.workload(cluster, "cloudrun", namespace=namespace, account="outside") as outside,
    ):
        made = cluster.kubernetes.apply(
            Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
                K_SERVICE=SERVICE,
                WORKLOAD_NAME="cloudrun",
                WORKLOAD_NAMESPACE=namespace,
                WORKLOAD_SERVICE_ACCOUNT="outside",
                SNI_GATE_IP=gate.address,
            )
        )
        address = next(each["spec"]["clusterIP"] for each in made if each["kind"] == "Service")
        host = f"{SERVICE}.{namespace}.{SUFFIX}"
        gate.lead(outside.place, mesh_gate.server_name(host, 8080))
        cluster.settle(web.place, outside.place, namespace=namespace)
        mesh_pod.wait_until_served(web.place, gate.address)
        mesh_agent.wait_for_config(outside.place, "_15003")
        answer = web.call(f"http://{SERVICE}.{namespace}.svc:8080/", to=address)
        assert answer.by == "cloudrun"
        assert answer.identities == (web.identity, outside.identity)
        # And by mutual TLS only.
        assert answer_to_a_stranger(outside.place.connect("127.0.0.1", mesh_gate.INBOUND)) == b""
        assert answer_to_a_stranger(outside.place.connect("127.0.0.1", mesh_gate.INBOUND), tls=True) == b""


def answer_to_a_stranger(connected: socket.socket, *, tls: bool = False) -> bytes:
    """What is answered to who shows no certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        contextlib.suppress(ssl.SSLError, ConnectionError),
        connected,
        context.wrap_socket(connected) if tls else connected as way,
    ):
        way.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        return way.recv(100)
    return b""


def test_the_template_names_each_of_its_variables_in_the_comment_and_no_other() -> None:
    text = TEMPLATE.read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{(\w+)\}", text))
    explained = set(re.findall(r"^# ([A-Z_]+)  +", text, re.M))
    assert used == explained == set(re.findall(r"\$(\w+)", re.search(r"envsubst '(.*)'", text)[1]))  # type: ignore[index]
