"""hgate's control process beside a real API server: what it says, serves and writes, by the manifests' rights."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from krun_testbed import hgate_control, hgate_deployment, hgate_roles, processes
from krun_testbed.google_api import GoogleApi
from krun_testbed.google_api_metadata import metadata_server
from krun_testbed.hgate_control import SYSTEM, Installed
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_client import ApiError
from krun_testbed.kubernetes_door import Door, Fault

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(180)]

URL = "https://web-123456789.us-central1.run.app"
SHOP = "https://shop-123456789.us-central1.run.app"


@pytest.fixture
def hgate(kubernetes: Kubernetes, tmp_path: Path) -> Iterator[Installed]:
    """The manifests applied, and all that follows from them taken away again."""
    installed = hgate_control.install(kubernetes, folder=tmp_path)
    installed.sweep()
    yield installed
    installed.sweep()


def kinds(hgate: Installed, namespace: str) -> set[str]:
    return {name.partition("/")[0] for name in hgate.written(namespace)}


def test_an_annotated_service_is_registered_with_the_rights_of_the_manifests(hgate: Installed, namespace: str) -> None:
    hgate.balanced(public="203.0.113.7", internal="10.1.2.3")
    with hgate.replica() as gate:
        hgate.declare("web", namespace=namespace, url=URL)
        processes.wait_until(
            lambda: kinds(hgate, namespace) >= {"DestinationRule", "EndpointSlice", "Sidecar", "PeerAuthentication"},
            what="it is registered",
        )
        processes.wait_until(lambda: gate.metric("hgate_routes") == {"": 1.0}, what="there is a route")
        assert gate.metric("hgate_registrations") == {"": 1.0}
        hgate.kubernetes.admin.delete(f"/api/v1/namespaces/{namespace}/services/web")
        processes.wait_until(lambda: not hgate.written(namespace), what="it is taken back")
        processes.wait_until(lambda: gate.metric("hgate_routes") == {"": 0.0}, what="the route is gone")
        assert gate.said("not permitted") == []


def test_it_is_ready_when_the_declarations_are_known_and_no_more_when_it_drains(hgate: Installed, address: str) -> None:
    door = Door(kubernetes=hgate.kubernetes, address=address)
    door.faults.append(Fault(pattern="GET /api/v1/services", status=503, reason="ServiceUnavailable"))
    with door, hgate.starting(door=door) as gate:
        gate.running.wait_for("Kubernetes API out of reach")
        processes.wait_until(lambda: "not known yet" in gate.get("/healthz/ready")[1], what="it says what is missing")
        assert gate.get("/healthz/ready")[0] == 503
        assert gate.get("/healthz/live") == (200, "live\n")
        door.faults.clear()
        gate.running.wait_for('"message": "ready"')
        assert gate.get("/healthz/ready") == (200, "ready\n")
        with socket.create_connection((gate.address, gate.port)):
            # A connection that says nothing is under way: it is waited for.
            gate.running.signal(15)
            processes.wait_until(lambda: gate.get("/healthz/ready")[0] == 503, what="it says that it drains")
        assert gate.running.wait() == 0
        assert gate.said("drained")


def test_a_missing_verb_is_named_and_the_rest_goes_on(kubernetes: Kubernetes, tmp_path: Path, namespace: str) -> None:
    (lacking,) = [
        right
        for item in hgate_deployment.manifests()
        if item["kind"] == "ClusterRole" and item["metadata"]["name"] == "hgate"
        for right in hgate_roles.rights(item)
        if (right.resource, right.verb) == ("sidecars", "create")
    ]
    installed = hgate_control.install(kubernetes, folder=tmp_path, without=lacking)
    try:
        installed.balanced(internal="10.1.2.3")
        with installed.replica() as gate:
            installed.declare("web", namespace=namespace, url=URL)
            gate.running.wait_for('"not permitted"')
            (line,) = gate.said("not permitted")
            assert (line["verb"], line["resource"]) == ("create", f"{namespace}/sidecars.networking.istio.io")
            assert "manifests" in line["hint"]
            rest = {"DestinationRule", "PeerAuthentication"}
            processes.wait_until(lambda: kinds(installed, namespace) >= rest, what="the rest is there")
            assert "Sidecar" not in kinds(installed, namespace)
            # And with the right, it is done without a new start.
            hgate_control.install(kubernetes, folder=tmp_path)
            processes.wait_until(lambda: "Sidecar" in kinds(installed, namespace), what="it is whole", timeout=60)
    finally:
        hgate_control.install(kubernetes, folder=tmp_path).sweep()


def test_it_can_change_nothing_that_is_not_its_own(hgate: Installed, namespace: str) -> None:
    kubernetes = hgate.kubernetes
    metadata = {"name": "theirs", "namespace": namespace}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}
    (made,) = kubernetes.apply(service)
    caller = kubernetes.caller(kubernetes.token("hgate", namespace=SYSTEM))
    path = f"/api/v1/namespaces/{namespace}/services"
    with pytest.raises(ApiError, match="managed-by=hgate"):
        caller.delete(f"{path}/theirs")
    with pytest.raises(ApiError, match="managed-by=hgate"):
        caller.request("PUT", f"{path}/theirs", made)
    # A label that it puts on somebody's does not make it its own.
    made["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "hgate"}
    with pytest.raises(ApiError, match="managed-by=hgate"):
        caller.request("PUT", f"{path}/theirs", made)
    config_map = {"metadata": {"name": "stray"}, "data": {"a": "b"}}
    with pytest.raises(ApiError, match="managed-by=hgate"):
        caller.create(f"/api/v1/namespaces/{SYSTEM}/configmaps", config_map)
    for forbidden in ("/api/v1/secrets", f"/api/v1/namespaces/{SYSTEM}/configmaps", "/api/v1/pods"):
        with pytest.raises(ApiError, match="forbidden"):
            caller.get(forbidden)


def test_tokens_of_accepted_routes_come_from_the_metadata_server_and_of_another_account_by_iam(
    hgate: Installed, namespace: str, google: GoogleApi, address: str
) -> None:
    other = "demo-caller@demo-project.iam.gserviceaccount.com"
    hgate.balanced(internal="10.1.2.3")
    policy = f"namespaces: {{'*': {{projects: [own]}}, {namespace}: {{projects: [own], account: {other}}}}}"
    hgate.kubernetes.config_map("hgate-policy", {"policy.yaml": policy}, namespace=SYSTEM)
    with metadata_server(google.accounts, address=address, platform="gke") as metadata, contextlib.ExitStack() as stack:
        email = metadata.facts.email
        google.accounts.actors[other] = {email}
        plain = hgate.kubernetes.namespace()
        variables: dict[str, Any] = {**google.environment, "GCE_METADATA_HOST": metadata.address, "NO_GCE_CHECK": ""}
        gate = stack.enter_context(hgate.replica("--connect-to", f"{address}:1", **variables))
        hgate.declare("web", namespace=namespace, url=URL)
        hgate.declare("shop", namespace=plain, url=SHOP)
        hgate.declare("evil", namespace=plain, url="https://evil-999999999.us-central1.run.app")
        processes.wait_until(lambda: gate.metric("hgate_routes") == {"": 2.0}, what="there are routes")
        asked = len(google.servers["iamcredentials"].requests)
        assert asked == 0
        for name in (f"web.{namespace}", f"shop.{plain}", f"evil.{plain}"):
            say_hello(gate.address, gate.port, f"outbound_.8080_._.{name}.svc.cluster.local")
        processes.wait_until(lambda: gate.metric("hgate_tokens_total")['{result="success"}'] == 2, what="two tokens")
        ages = gate.metric("hgate_token_expiry_timestamp_seconds")
        assert set(ages) == {
            f'{{audience="{URL}",account="{other}"}}',
            f'{{audience="{SHOP}",account=""}}',
        }
        # Whose declaration was refused has no route: nobody was asked for a token of it.
        (request,) = google.servers["iamcredentials"].requests
        assert json.loads(request.body) == {"audience": URL, "includeEmail": True}
        assert not any("evil" in path for path in metadata.requests)
        assert "eyJ" not in gate.running.said()


def test_without_a_metadata_server_tokens_are_made_with_the_key_of_an_account(
    hgate: Installed, namespace: str, google: GoogleApi, address: str, tmp_path: Path
) -> None:
    gate_account, other = (f"{name}@demo-project.iam.gserviceaccount.com" for name in ("hgate-key", "demo-caller"))
    google.accounts.actors[other] = {gate_account}
    uri = google.environment["CLOUDSDK_AUTH_TOKEN_HOST"]
    key = google.oauth2.service_account(gate_account, project="demo-project", token_uri=uri)
    path = tmp_path / "key.json"
    path.write_text(json.dumps(key), encoding="utf-8")
    hgate.balanced(internal="10.1.2.3")
    policy = f"namespaces: {{'*': {{projects: [own]}}, {namespace}: {{projects: [own], account: {other}}}}}"
    hgate.kubernetes.config_map("hgate-policy", {"policy.yaml": policy}, namespace=SYSTEM)
    plain = hgate.kubernetes.namespace()
    before = len(google.requests)
    variables: dict[str, Any] = {**google.environment, "GOOGLE_APPLICATION_CREDENTIALS": str(path)}
    with hgate.replica("--connect-to", f"{address}:1", **variables) as gate:
        hgate.declare("web", namespace=namespace, url=URL)
        hgate.declare("shop", namespace=plain, url=SHOP)
        processes.wait_until(lambda: gate.metric("hgate_routes") == {"": 2.0}, what="there are routes")
        for name in (f"web.{namespace}", f"shop.{plain}"):
            say_hello(gate.address, gate.port, f"outbound_.8080_._.{name}.svc.cluster.local")
        processes.wait_until(lambda: gate.metric("hgate_tokens_total")['{result="success"}'] == 2, what="two tokens")
        assert set(gate.metric("hgate_token_expiry_timestamp_seconds")) == {
            f'{{audience="{URL}",account="{other}"}}',
            f'{{audience="{SHOP}",account=""}}',
        }
        assert {request.api for request in google.requests[before:]} == {"oauth2", "iamcredentials"}
        assert "eyJ" not in gate.running.said()
        assert "PRIVATE KEY" not in gate.running.said()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        ("no json", "is no JSON"),
        ('{"type": "authorized_user", "refresh_token": "canary"}', "holds no key of a service account"),
        ('{"type": "service_account", "private_key": "canary"}', "is missing"),
    ],
)
def test_a_file_that_is_no_key_is_said_at_the_start(
    hgate: Installed, tmp_path: Path, content: str | None, why: str
) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with hgate.starting(GOOGLE_APPLICATION_CREDENTIALS=str(path)) as gate:
        assert gate.running.wait() == 78
        assert why in gate.running.stderr
        assert "hint: GOOGLE_APPLICATION_CREDENTIALS" in gate.running.stderr
        assert "canary" not in gate.running.stderr


def say_hello(address: str, port: int, name: str) -> None:
    """The hello of a TLS client, and the end of the connection waited for."""
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=20) as plain:
        context.wrap_socket(plain, server_hostname=name).close()


MANY = 150
EACH = 0.02  # seconds of CPU; 0.004 measured, and 0.15 when each failure had all declarations judged anew


def test_an_outage_costs_little_however_much_is_declared(hgate: Installed, namespace: str, address: str) -> None:
    services = [service(f"web-{number}", namespace=namespace, url=URL) for number in range(MANY)]
    hgate.kubernetes.apply(*services)
    with Door(kubernetes=hgate.kubernetes, address=address) as door, hgate.replica(door=door) as gate:
        processes.wait_until(lambda: gate.metric("hgate_routes") == {"": float(MANY)}, what="all are routed")
        door.faults.append(Fault(pattern="", status=503, reason="ServiceUnavailable"))
        door.cut()
        gate.running.wait_for("Kubernetes API out of reach")
        begun, used = len(door.asked), cpu(gate.running.pid)
        processes.wait_until(lambda: len(door.asked) >= begun + 100, what="it has tried a hundred times", timeout=120)
        assert (cpu(gate.running.pid) - used) / (len(door.asked) - begun) < EACH
        assert gate.metric("hgate_routes") == {"": float(MANY)}
        door.faults.clear()
        gate.running.wait_for("Kubernetes API answers again", timeout=60)
    assert len(gate.said("Kubernetes API out of reach")) == 1


def test_what_it_has_written_is_not_written_again_when_its_watch_tells_of_it(
    hgate: Installed, namespace: str, address: str
) -> None:
    hgate.balanced(internal="10.1.2.3")
    with Door(kubernetes=hgate.kubernetes, address=address) as door, hgate.replica(door=door) as gate:
        processes.wait_until(lambda: gate.metric("hgate_is_leader") == {"": 1.0}, what="it writes")
        hgate.declare("web", namespace=namespace, url=URL)
        processes.wait_until(lambda: len(kinds(hgate, namespace)) >= 4, what="it is registered")
        created = '{operation="create"}'
        # Claims, mesh-env, and four objects: each once, though their watch tells of them, too.
        processes.wait_until(lambda: gate.metric("hgate_writes_total")[created] == 6, what="all is written")
        hgate.declare("shop", namespace=namespace, url="https://shop-123456789.us-central1.run.app")
        processes.wait_until(lambda: gate.metric("hgate_writes_total")[created] == 10, what="all of both is written")
        written = [asked.partition("?")[0] for asked in door.asked if not asked.startswith("GET")]
        # What other tests have left in namespaces of theirs is taken away meanwhile.
        others = [asked for asked in written if f"/namespaces/{namespace}/" in asked]
        assert len(others) == 8, others
        assert {asked.partition(" ")[0] for asked in others} == {"POST"}


def service(name: str, *, namespace: str, url: str) -> dict[str, object]:
    """An annotated one, as an object."""
    metadata = {"name": name, "namespace": namespace, "annotations": {"hgate.krun/url": url}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 8080}]}}


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used, without its workers."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
