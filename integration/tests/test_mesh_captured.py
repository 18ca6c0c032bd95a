"""A workload outside, its traffic captured, is a full member of a real mesh: names, identities, policies."""

from __future__ import annotations

import contextlib
import os
import signal
import socket

import pytest

from krun_testbed import (
    components,
    istiod,
    mesh_agent,
    mesh_call,
    mesh_captured,
    mesh_gate,
    mesh_objects,
    mesh_pod,
    mesh_workload,
)
from krun_testbed.mesh_captured import GREETING, OTHER_HOST, World, until
from krun_testbed.mesh_cluster import Cluster

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]


def heard(connection: socket.socket) -> bytes:
    """What comes until the other side closes or breaks the connection."""
    with contextlib.suppress(ConnectionError):
        return connection.recv(100)
    return b""


@pytest.mark.parametrize("port", [":8080", ":80", ""])
@pytest.mark.parametrize("form", ["web", "web.{}", "web.{}.svc", "web.{}.svc.cluster.local"])
def test_every_form_of_a_name_reaches_the_pod_by_mutual_tls(world: World, form: str, port: str) -> None:
    answer = world.get(f"http://{form.format(world.namespace)}{port}/")
    assert answer.by == "web"
    assert answer.identities == (world.a.identity, world.web.identity)


def test_a_pod_reaches_the_workload_by_mutual_tls(world: World) -> None:
    answer = world.call(world.web, "a")
    assert answer.by == "a"
    assert answer.identities == (world.web.identity, world.a.identity)
    assert set(world.gate.names) == {mesh_gate.server_name(world.a.host, 8080)}


def test_what_comes_plain_to_the_workloads_own_port_is_refused(world: World) -> None:
    with world.applied(mesh_objects.strict(selector={"app": "a"})):
        with world.a.place.connect("127.0.0.1", 15003) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert heard(connection) == b""
        assert world.call(world.web, "a").identities == (world.web.identity, world.a.identity)


def test_strict_peers_refuse_who_comes_plain_and_take_the_workload(world: World) -> None:
    with world.applied(mesh_objects.strict()):
        with pytest.raises(ConnectionError):
            world.bare.call(f"http://{world.web.place.address}:8080/")
        assert world.get("http://web:8080/").identities == (world.a.identity, world.web.identity)
        # Beside them one without a sidecar answers, plain.
        answer = world.get("http://bare:8080/")
        assert (answer.by, answer.identities) == ("bare", ("", ""))


def test_a_policy_of_the_pod_allows_and_denies_by_the_workloads_identity(world: World) -> None:
    selector = {"app": "web"}
    with world.applied(mesh_objects.allow("web", principals=[world.principal("outside")], selector=selector)):
        until(403, lambda: world.call(world.other, "web"))
        assert world.get("http://web:8080/").status == 200
    with world.applied(mesh_objects.allow("web", principals=[world.principal("default")], selector=selector)):
        until(403, lambda: world.get("http://web:8080/"))
        until(200, lambda: world.call(world.other, "web"))
    until(200, lambda: world.get("http://web:8080/"))


def test_a_policy_of_the_workload_allows_and_denies_by_the_pods_identity(world: World) -> None:
    with world.applied(mesh_objects.allow("a", principals=[world.principal("web")], selector={"app": "a"})):
        until(403, lambda: world.call(world.other, "a"))
        assert world.call(world.web, "a").status == 200
    until(200, lambda: world.call(world.other, "a"))


def test_a_pod_without_a_sidecar_answers_plain_by_http_and_tcp(world: World) -> None:
    answer = world.get("http://bare:8080/")
    assert (answer.by, answer.identities) == ("bare", ("", ""))
    with world.a.place.connect(world.address("bare"), 9000) as connection:
        assert connection.recv(100) == GREETING
        connection.sendall(b"words")
        assert connection.recv(100) == b"WORDS"


def test_a_server_that_speaks_first_is_reached_by_mutual_tls(world: World) -> None:
    with world.applied(mesh_objects.strict()):
        with world.a.place.connect(world.address("web"), 9000) as connection:
            assert connection.recv(100) == GREETING
            connection.sendall(b"words")
            assert connection.recv(100) == b"WORDS"
        # The same, plain, is refused: not a word of it arrives.
        with world.bare.place.connect(world.web.place.address, 9000) as connection:
            connection.sendall(b"words")
            assert heard(connection) == b""


def test_services_outside_of_the_usual_range_are_reached_where_their_range_is_captured(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    address = "172.30.0.77"
    with (
        cluster.pod("web", namespace=namespace, service=False) as web,
        mesh_workload.workload(
            cluster, "a", namespace=namespace, env={"OUTBOUND_IP_RANGES_INCLUDE": "10.0.0.0/8,172.30.0.0/16"}
        ) as a,
    ):
        cluster.service("web", web, namespace=namespace, address=address)
        mesh_pod.wait_until_served(a.place, web.place.address)
        cluster.settle(a.place, namespace=namespace)
        answer = a.call("http://web:8080/", to=address)
        assert answer.identities == (a.identity, web.identity)
        assert mesh_call.Answer(status=200, headers={}, body=a.curl("http://web:8080/").encode()).by == "web"


def test_all_may_be_captured_api_server_and_istiod_too(cluster: Cluster, world: World) -> None:
    """What krun itself calls comes through: at first boot, and when Envoy is frozen."""
    with mesh_workload.workload(
        cluster, "all", namespace=world.namespace, env={"OUTBOUND_IP_RANGES_INCLUDE": "*"}
    ) as every:
        assert "around" in every.curl(f"http://{OTHER_HOST}/")
        token = [components.command("krun-token"), "kubernetes", "--audience", istiod.AUDIENCE]
        env = mesh_workload.environment(cluster, every.place, name="all", namespace=world.namespace)
        envoy = mesh_captured.running(every)["envoy"]
        os.kill(envoy, signal.SIGSTOP)
        try:
            done = every.place.run("setpriv", "--regid=1337", "--clear-groups", *token, env=env)
            assert (done.returncode, done.stdout.count(".")) == (0, 2), done.stderr
        finally:
            os.kill(envoy, signal.SIGCONT)
        assert mesh_agent.is_ready(every.place)


def test_variables_reach_whose_business_they_are(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    env = {
        "HTTP_PROXY": "http://127.0.0.1:1",
        "https_proxy": "http://127.0.0.1:2",
        "no_proxy": istiod.API_INSIDE,
        "ISTIO_META_HTTP_PROXY_PORT": "15007",
        "SECRET_OF_THE_APPLICATION": "canary",
    }
    with mesh_workload.workload(cluster, "a", namespace=namespace, env=env) as a:
        found = {name: mesh_captured.environment(pid) for name, pid in mesh_captured.running(a).items()}
    app, agent, envoy = found["mesh_app"], found["pilot-agent"], found["envoy"]
    assert env.items() - {("ISTIO_META_HTTP_PROXY_PORT", "15007")} <= app.items()
    for others in (agent, envoy):
        assert not set(env) & set(others)
        assert "canary" not in str(others)
    assert not [name for name in app if name.startswith("ISTIO_META_")]
