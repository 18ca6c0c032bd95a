"""A workload that cannot join its mesh ends with one line of cause, a hint and the right status, and never hangs."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from krun_testbed import istiod, mesh_sockets, mesh_workload, processes
from krun_testbed.certificates import Authority
from krun_testbed.mesh_cluster import OUTSIDE_RESOLVER, Cluster
from krun_testbed.mesh_network import Place

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(240)]

PATIENCE = "4"  # seconds until the proxy must be ready
LONGEST = 45.0  # seconds from the start to the end
UNREACHABLE, DEADLINE, DENIED, MISCONFIGURED = 69, 75, 77, 78


@dataclass(frozen=True, kw_only=True)
class Refused:
    """How it ended."""

    status: int
    cause: str
    hint: str
    said: str


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> str:
    return cluster.namespace()


@pytest.fixture
def place(cluster: Cluster) -> Iterator[Place]:
    with cluster.network.place(name="a") as made:
        made.resolver(OUTSIDE_RESOLVER)
        yield made


def refused(
    cluster: Cluster,
    place: Place,
    *,
    namespace: str,
    env: Mapping[str, str] | None = None,
    command: str = "krun",
    meanwhile: Callable[[processes.Running], None] = lambda running: None,
) -> Refused:
    """Start a workload that cannot be, and read its last lines; ``meanwhile`` happens to it before its end."""
    settings = mesh_workload.environment(cluster, place, name="a", namespace=namespace)
    settings |= {"KRUN_READY_TIMEOUT": PATIENCE, "KRUN_LOG_FORMAT": "text", **(env or {})}
    with mesh_workload.started(
        place, ["--", *mesh_workload.application("a")], env=settings, command=command
    ) as running:
        meanwhile(running)
        status = running.wait(timeout=LONGEST)
        assert "app listens" not in running.said()
        *_, cause, hint = running.stderr.splitlines()
        said = re.fullmatch(r"krun-launch: error: (.+)", cause)
        hinted = re.fullmatch(r"hint: (.+)", hint)
        assert said, running.said()
        assert hinted, running.said()
        return Refused(status=status, cause=said[1], hint=hinted[1], said=running.said())


@pytest.mark.parametrize("mode", ["captured", "whitebox"])
def test_root_of_another_mesh(cluster: Cluster, place: Place, namespace: str, authority: Authority, mode: str) -> None:
    env = {"CAROOT_ISTIOD": authority.root.decode(), "KRUN_MODE": mode}
    end = refused(cluster, place, namespace=namespace, env=env)
    assert end.status == MISCONFIGURED
    assert "is not that of CAROOT_ISTIOD" in end.cause
    assert "istio-ca-root-cert" in end.hint


def test_no_root(cluster: Cluster, place: Place, namespace: str) -> None:
    end = refused(cluster, place, namespace=namespace, env={"CAROOT_ISTIOD": ""}, command="krun-launch")
    assert end.status == MISCONFIGURED
    assert end.cause.startswith("CAROOT_ISTIOD is not set")


@pytest.mark.parametrize("variable", ["KRUN_TOKEN_AUDIENCE", "ISTIO_META_CLUSTER_ID"])
def test_token_that_is_not_for_this_control_plane(
    cluster: Cluster, place: Place, namespace: str, variable: str
) -> None:
    end = refused(cluster, place, namespace=namespace, env={variable: "other"})
    assert end.status == DENIED
    assert f"does not take our token (account default in {namespace}" in end.cause
    assert variable in end.hint


def test_control_plane_of_another_name(cluster: Cluster, place: Place, namespace: str) -> None:
    end = refused(cluster, place, namespace=namespace, env={"ISTIOD_SAN": "istiod.other.svc"})
    assert end.status == MISCONFIGURED
    assert "is not istiod.other.svc: its certificate is for " in end.cause
    assert istiod.SAN in end.cause


def test_namespace_that_the_workload_may_not_have_a_token_of(cluster: Cluster, place: Place, namespace: str) -> None:
    other = cluster.namespace()
    end = refused(cluster, place, namespace=namespace, env={"WORKLOAD_NAMESPACE": other})
    assert end.status == DENIED
    assert f"may not create serviceaccounts/token default in namespace {other}" in end.cause
    assert "kubectl create role" in end.hint


def test_namespace_that_is_not_there(cluster: Cluster, place: Place, namespace: str) -> None:
    end = refused(cluster, place, namespace=namespace, env={"WORKLOAD_NAMESPACE": "nowhere"})
    assert end.status == DENIED
    assert "in namespace nowhere" in end.cause


def test_control_plane_that_is_down(cluster: Cluster, place: Place, namespace: str) -> None:
    end = refused(cluster, place, namespace=namespace, env={"XDS_ADDR": f"{istiod.INSIDE}:15999"})
    assert end.status == UNREACHABLE
    assert f"{istiod.INSIDE}:15999 cannot be reached: connection refused" in end.cause


def test_control_plane_that_says_nothing(cluster: Cluster, place: Place, namespace: str) -> None:
    address = cluster.network.free()
    cluster.network.own(address)
    with mesh_sockets.serving(cluster.network.hub.listener(address, 15099), silent):
        end = refused(cluster, place, namespace=namespace, env={"XDS_ADDR": f"{address}:15099"})
    assert end.status == DEADLINE
    assert end.cause == f"the control plane {address}:15099 has said nothing to pilot-agent within 4 s"
    assert "KRUN_READY_TIMEOUT" in end.hint


@pytest.mark.parametrize(("age", "life", "word"), [(-1, 2, "before"), (2, -1, "after")], ids=["early", "late"])
def test_control_plane_whose_certificate_is_not_valid_by_our_clock(
    cluster: Cluster, place: Place, namespace: str, authority: Authority, age: int, life: int, word: str
) -> None:
    """As it is on a machine whose clock is days behind, or ahead."""
    pair = authority.server(hosts=(istiod.SAN,), age=datetime.timedelta(days=age), life=datetime.timedelta(days=life))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (place.folder / "server.pem").write_bytes(pair.chain + pair.key)
    context.load_cert_chain(place.folder / "server.pem")
    context.set_alpn_protocols(["h2"])

    def shake_hands(connected: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(connected, server_side=True) as stream:
            silent(stream)

    address = cluster.network.free()
    cluster.network.own(address)
    with mesh_sockets.serving(cluster.network.hub.listener(address, 15099), shake_hands):
        env = {"XDS_ADDR": f"{address}:15099", "CAROOT_ISTIOD": authority.root.decode()}
        end = refused(cluster, place, namespace=namespace, env=env)
    assert end.status == MISCONFIGURED
    assert f"the control plane {address}:15099 is not valid by our clock: current time " in end.cause
    assert f" is {word} " in end.cause
    assert "clock" in end.hint


def kill_agent(running: processes.Running) -> None:
    """End the agent, which is there and waits for its control plane."""
    running.wait_for("step done step=agent ")
    (agent,) = [pid for pid in processes.children(running.pid) if "/pilot-agent" in processes.program(pid)]
    os.kill(agent, signal.SIGKILL)


@pytest.mark.parametrize("mode", ["captured", "whitebox"])
def test_an_agent_that_dies_before_it_is_ready(cluster: Cluster, place: Place, namespace: str, mode: str) -> None:
    address = cluster.network.free()
    cluster.network.own(address)
    with mesh_sockets.serving(cluster.network.hub.listener(address, 15099), silent):
        env = {"XDS_ADDR": f"{address}:15099", "KRUN_MODE": mode, "KRUN_READY_TIMEOUT": "30"}
        end = refused(cluster, place, namespace=namespace, env=env, meanwhile=kill_agent)
    assert end.status == UNREACHABLE
    # Its own last complaint, if it had any, is behind it.
    assert end.cause.startswith("pilot-agent ended with status 137 (SIGKILL) before step 'agent ready' was done")
    assert end.hint == "see what pilot-agent says above"


def test_a_template_that_is_none(cluster: Cluster, place: Place, namespace: str) -> None:
    template = mesh_workload.file(place, "template.json", "{{ no template }}")
    end = refused(cluster, place, namespace=namespace, env={"ISTIO_BOOTSTRAP": str(template)})
    assert end.status == MISCONFIGURED
    assert end.cause.startswith("pilot-agent cannot write Envoy's bootstrap: template: ")
    assert "ISTIO_BOOTSTRAP" in end.hint


def silent(connected: socket.socket) -> None:
    """Answer nothing until the other side has gone."""
    with contextlib.suppress(ConnectionError):
        while connected.recv(65536):
            pass


def test_control_plane_whose_name_nobody_knows(cluster: Cluster, place: Place, namespace: str) -> None:
    end = refused(cluster, place, namespace=namespace, env={"XDS_ADDR": "istiod.nowhere.invalid:15012"})
    assert end.status == UNREACHABLE
    assert "no address for istiod.nowhere.invalid" in end.cause


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{", "PROXY_CONFIG: neither JSON nor YAML (line 1)"),
        ("words", "PROXY_CONFIG: not a mapping of names to values"),
        ("proxyMetadata: {ISTIO_META_X: 1}", "PROXY_CONFIG: proxyMetadata: not a mapping of texts"),
        ("statusPort: 15099", "PROXY_CONFIG: statusPort: must be 15020"),
        ("concurrency: none", "PROXY_CONFIG: pilot-agent cannot read it: "),
    ],
)
def test_configuration_of_the_agent_that_is_none(
    cluster: Cluster, place: Place, namespace: str, text: str, cause: str
) -> None:
    end = refused(cluster, place, namespace=namespace, env={"PROXY_CONFIG": text}, command="krun-launch")
    assert end.status == MISCONFIGURED
    assert end.cause.startswith(cause)


@pytest.mark.parametrize(
    ("env", "cause"),
    [
        ({"PORT_http": "15006"}, "port 15006: wanted by Envoy's incoming connections and the application (PORT_http)"),
        ({"PORT_http": "15020"}, "port 15020: wanted by pilot-agent's status and the application (PORT_http)"),
        ({"PORT_grpc": "15001"}, "port 15001: wanted by Envoy's captured connections and the application's gRPC"),
        ({"KRUN_TCP": "8080=cache:6379", "KRUN_MODE": "whitebox"}, "KRUN_TCP: port 8080 is where the application"),
        ({"KRUN_LOOPBACK": "127.0.0.2"}, "KRUN_LOOPBACK=127.0.0.2: ports of pilot-agent are fixed"),
        ({"XDS_ADDR": "istiod"}, "XDS_ADDR='istiod': not HOST:PORT"),
        ({"KRUN_PILOT_AGENT": "/nowhere"}, "a mesh with a control plane "),
        ({"WORKLOAD_SERVICE_ACCOUNT": "No One"}, "WORKLOAD_SERVICE_ACCOUNT: 'No One' is not a Kubernetes name"),
    ],
)
def test_settings_that_cannot_be(
    cluster: Cluster, place: Place, namespace: str, env: dict[str, str], cause: str
) -> None:
    end = refused(cluster, place, namespace=namespace, env=env, command="krun-launch")
    assert end.status == MISCONFIGURED
    assert end.cause.startswith(cause)


def test_port_of_envoy_that_somebody_has(cluster: Cluster, place: Place, namespace: str) -> None:
    with place.listener("127.0.0.1", 15000):
        end = refused(cluster, place, namespace=namespace, command="krun-launch")
    assert end.status == MISCONFIGURED
    assert end.cause.startswith("port 15000 on 127.0.0.1, for Envoy's admin: Address already in use")


def test_port_of_an_application_that_envoy_takes_in_the_end(cluster: Cluster, place: Place, namespace: str) -> None:
    """The application's Sidecar says that Envoy listens where the application does."""
    taken = {"number": 8080, "protocol": "HTTP", "name": "http"}
    ingress = {"port": taken, "bind": "127.0.0.1", "defaultEndpoint": "127.0.0.1:8081", "captureMode": "NONE"}
    spec = {"workloadSelector": {"labels": {"app": "a"}}, "ingress": [ingress]}
    metadata = {"name": "a"}
    kind = {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar"}
    own = cluster.namespace()
    cluster.apply({**kind, "metadata": metadata, "spec": spec}, namespace=own)
    settings = mesh_workload.environment(cluster, place, name="a", namespace=own)
    settings |= {"KRUN_READY_TIMEOUT": PATIENCE, "KRUN_LOG_FORMAT": "text"}
    with mesh_workload.started(place, ["--", *mesh_workload.application("a")], env=settings) as running:
        assert running.wait(timeout=LONGEST) != 0
        assert "8080" in running.stderr
        assert "in use" in running.stderr
