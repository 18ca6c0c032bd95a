"""krun-discover doctor: each finding, the command that mends it, and the worst as the exit status."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import components, discover_world, processes
from krun_testbed.certificates import Authority
from krun_testbed.discover_world import EMAIL, MESH, MESH_ENV, World
from krun_testbed.google_api import GoogleApi
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.web_peers import answer, server_tls, web_peer

pytestmark = pytest.mark.kubernetes

Checks = dict[str, dict[str, str]]
RUN = "CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN"


@pytest.fixture
def world(kubernetes: Kubernetes, google: GoogleApi, address: str, tmp_path: Path) -> Iterator[World]:
    with discover_world.world(kubernetes=kubernetes, google=google, address=address, folder=tmp_path) as made:
        yield made


@pytest.fixture
def istiod(address: str, authority: Authority, tmp_path: Path) -> Iterator[str]:
    """Something that proves to be istiod, and speaks HTTP/2; its address."""
    tls = server_tls(authority.server(hosts=("istiod.istio-system.svc",)), str(tmp_path))
    tls.set_alpn_protocols(["h2"])
    with socket.create_server((address, 15012)) as listener:

        def serve() -> None:
            while True:
                try:
                    connected, _ = listener.accept()
                except OSError:
                    return
                with connected:
                    try:
                        tls.wrap_socket(connected, server_side=True).close()
                    except (ssl.SSLError, OSError):
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"{address}:15012"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def doctor(world: World, *arguments: str, **env: str) -> tuple[int, Checks]:
    argv = [components.command("krun-discover"), "doctor", "--format", "json", *arguments]
    done = processes.run(argv, env=world.environment(**env))
    assert "Traceback" not in done.stderr
    checks = json.loads(done.stdout)
    return done.returncode, {check["name"]: check for check in checks}


def outcomes(checks: Checks, outcome: str) -> set[str]:
    return {name for name, check in checks.items() if check["outcome"] == outcome}


def test_where_nothing_is_needed_nothing_fails(world: World) -> None:
    status, checks = doctor(world, MESH="static:gw.example", WORKLOAD_NAMESPACE="demo", TRUST_DOMAIN="td")
    assert (status, outcomes(checks, "fail")) == (0, set())
    assert {"cluster", "mesh-env", "permission for tokens", "control plane", "h2c"} <= outcomes(checks, "n/a")
    assert "spiffe://td/ns/demo/sa/default" in checks["identity"]["text"]


def template(**more: object) -> bytes:
    container = {"ports": [{"name": "h2c", "containerPort": 15009}]}
    whole = {"template": {"containers": [container], "timeout": "3600s", "maxInstanceRequestConcurrency": 80, **more}}
    return answer(200, json.dumps(whole).encode())


def test_healthy_service_passes_every_check(world: World, istiod: str, authority: Authority) -> None:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    world.grant(EMAIL, namespace="default")
    world.mesh_env({**MESH_ENV, "XDS_ADDR": istiod, "CAROOT_ISTIOD": discover_world.roots(authority)})
    tls = server_tls(authority.server(hosts=("127.0.0.1",)), str(world.folder))
    with world.metadata() as server, web_peer("127.0.0.1", template(), tls=tls) as run:
        status, checks = doctor(
            world,
            GCE_METADATA_HOST=server.address,
            NO_GCE_CHECK="",
            K_SERVICE="web",
            NO_PROXY="127.0.0.1",
            **{RUN: f"https://127.0.0.1:{run.port}/"},
        )
    assert outcomes(checks, "fail") == set(), checks
    assert status == 0
    assert outcomes(checks, "n/a") <= {"interception"}
    assert b"GET /v2/projects/demo-project/locations/us-central1/services/web " in run.requests[0]
    assert "https://203.0.113.10 answers" in checks["cluster"]["text"] or "gke.goog" in checks["cluster"]["text"]
    assert "verified by" in checks["cluster"]["text"]
    assert "istiod.istio-system.svc until" in checks["control plane"]["text"]
    assert "metadata server" in checks["google credentials"]["text"]


def test_each_failure_has_a_command_and_the_worst_is_the_status(world: World, istiod: str) -> None:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    name = world.kubernetes.namespace()
    roots = discover_world.roots(Authority(name="wrong"))
    poor = {"containers": [{"ports": [{"name": "http1"}]}], "timeout": "300s", "maxInstanceRequestConcurrency": 1}
    authority = Authority(name="run")
    tls = server_tls(authority.server(hosts=("127.0.0.1",)), str(world.folder))
    both = world.folder / "both.pem"
    both.write_bytes(world.google.roots.read_bytes() + authority.root)
    with world.metadata() as server, web_peer("127.0.0.1", template(**poor), tls=tls) as run:
        status, checks = doctor(
            world,
            GCE_METADATA_HOST=server.address,
            NO_GCE_CHECK="",
            K_SERVICE="web",
            NO_PROXY="127.0.0.1",
            SSL_CERT_FILE=str(both),
            XDS_ADDR=istiod,
            CAROOT_ISTIOD=roots,
            WORKLOAD_NAMESPACE=name,
            **{RUN: f"https://127.0.0.1:{run.port}/"},
        )
    failed = outcomes(checks, "fail")
    assert failed >= {"mesh-env", "permission for tokens", "control plane", "h2c", "request timeout", "concurrency"}
    assert status == 78
    assert all(checks[one]["fix"] for one in failed), checks
    assert "kubectl create role" in checks["permission for tokens"]["fix"]
    assert "not trusted as istiod.istio-system.svc" in checks["control plane"]["text"]
    names = "web --project=demo-project --region=us-central1"
    assert checks["h2c"]["fix"] == f"gcloud run services update {names} --use-http2"
    assert checks["request timeout"]["fix"] == f"gcloud run services update {names} --timeout=3600"
    assert checks["concurrency"]["fix"] == f"gcloud run services update {names} --concurrency=80"


def test_cluster_that_does_not_answer_is_one_failure_and_not_many(world: World) -> None:
    config = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "x", "user": {"token": "canary"}}],
    }
    status, checks = doctor(world, KUBECONFIG=str(world.file("config", config)), NO_PROXY="127.0.0.1")
    assert (status, outcomes(checks, "fail")) == (69, {"cluster"})
    assert "connection refused" in checks["cluster"]["text"]
    assert "canary" not in json.dumps(checks)


def test_captured_mode_without_permission_fails_with_77(world: World) -> None:
    """As a user without any capability, in the way that a container runs without NET_ADMIN."""
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    argv = [*without, components.command("krun-discover"), "doctor"]
    env = world.environment(KRUN_MODE="captured", MESH="static:gw.example")
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "fail interception: no NET_ADMIN" in done.stdout, done.stderr
    assert "fix: docker run --cap-add=NET_ADMIN" in done.stdout
    assert done.returncode == 77


def test_broken_kubeconfig_is_a_finding_and_the_other_checks_go_on(world: World) -> None:
    path = world.folder / "broken"
    path.write_text("{", encoding="utf-8")
    status, checks = doctor(world, KUBECONFIG=str(path))
    assert status == 65
    assert str(path) in checks["cluster"]["text"]
    assert checks["interception"]["outcome"] in ("pass", "n/a")
