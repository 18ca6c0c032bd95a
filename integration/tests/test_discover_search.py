"""The search for the mesh's cluster when things go wrong: the next one, in time, and the story told."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import components, discover_world, processes
from krun_testbed import google_api_faults as faults
from krun_testbed.certificates import Authority
from krun_testbed.discover_world import EMAIL, MESH, MESH_ENV, World
from krun_testbed.google_api import PROJECT, GoogleApi
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.metadata import MetadataServer
from krun_testbed.web_peers import server_tls, web_peer

pytestmark = pytest.mark.kubernetes


@pytest.fixture
def world(kubernetes: Kubernetes, google: GoogleApi, address: str, tmp_path: Path) -> Iterator[World]:
    with discover_world.world(kubernetes=kubernetes, google=google, address=address, folder=tmp_path) as made:
        made.grant(EMAIL, namespace="default")
        made.mesh_env(MESH_ENV)
        yield made


@pytest.fixture
def server(world: World) -> Iterator[MetadataServer]:
    with world.metadata() as running:
        yield running


def run(world: World, server: MetadataServer, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    place = {"GCE_METADATA_HOST": server.address, "NO_GCE_CHECK": "", "K_SERVICE": "web", **env}
    return processes.run([components.command("krun-discover"), *arguments], env=world.environment(**place))


def fails(done: subprocess.CompletedProcess[str], status: int) -> str:
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


# A first choice that is of no use, each in its own way: the name says what its API server does.
FIRST = ("hung", "refusing", "with a wrong authority", "without mesh-env")


@contextlib.contextmanager
def first_choice(world: World, kind: str) -> Iterator[None]:
    """A cluster named istio-a, which comes before demo; both are in our region."""
    made = world.google.add(world.kubernetes, "istio-a", resourceLabels=MESH)
    del made["controlPlaneEndpointsConfig"], made["privateClusterConfig"]
    with contextlib.ExitStack() as stack:
        match kind:
            case "hung":
                silent = stack.enter_context(socket.create_server((world.address, 0)))
                host, port = silent.getsockname()[:2]
            case "refusing":
                host, port = "127.0.0.1", 1
            case "with a wrong authority":
                pair = Authority(name="another").server(hosts=("127.0.0.1",))
                peer = stack.enter_context(web_peer("127.0.0.1", b"", tls=server_tls(pair, str(world.folder))))
                host, port = "127.0.0.1", peer.port
            case _:
                answer = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                status = json.dumps(
                    {
                        "kind": "Status",
                        "code": 404,
                        "reason": "NotFound",
                        "details": {"name": "x", "kind": "configmaps"},
                    }
                ).encode()
                pair = stack.enter_context(contextlib.nullcontext(Authority(name="bare")))
                tls = server_tls(pair.server(hosts=("127.0.0.1",)), str(world.folder))
                peer = stack.enter_context(web_peer("127.0.0.1", answer % (len(status), status), tls=tls))
                host, port = "127.0.0.1", peer.port
                import base64

                made["masterAuth"] = {"clusterCaCertificate": base64.b64encode(pair.root).decode()}
        made["endpoint"] = f"{host}:{port}"
        yield


@pytest.mark.parametrize("kind", FIRST)
def test_cluster_of_no_use_is_followed_by_the_next_and_the_story_is_told(
    kind: str, world: World, server: MetadataServer
) -> None:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    with first_choice(world, kind):
        began = time.monotonic()
        done = run(world, server, "--timeout", "20", NO_PROXY=f"127.0.0.1,{world.address}")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["CLUSTER_NAME"] == "demo"
        assert time.monotonic() - began < 20
        story = run(world, server, "--explain", NO_PROXY=f"127.0.0.1,{world.address}").stdout
    told = story.partition("Clusters, as they were tried:\n")[2].partition("\n\n")[0]
    first, second = told.index("istio-a ("), told.index("demo (")
    assert first < second
    reason = {
        "hung": "no answer",
        "refusing": "refused",
        "with a wrong authority": "not trusted",
        "without mesh-env": "no mesh-env in default or istio-system",
    }[kind]
    assert reason in told[first:second]
    assert "mesh-env in istio-system" in told[second:]


def test_clusters_that_are_all_silent_end_it_with_69_and_the_reason(world: World, server: MetadataServer) -> None:
    with first_choice(world, "refusing"):
        text = fails(run(world, server, NO_PROXY="127.0.0.1"), 69)
    assert "gke demo-project/us-central1/istio-a" in text
    assert "connection refused" in text


def test_the_deadline_ends_it_with_75_or_69_whatever_hangs(world: World, server: MetadataServer) -> None:
    world.google.servers["container"].faults.append(faults.hang())
    began = time.monotonic()
    done = run(world, server, "--timeout", "2")
    assert done.returncode in (69, 75), done.stderr
    assert time.monotonic() - began < 10
    assert "hint: " in done.stderr


@pytest.mark.parametrize(
    "fault",
    [faults.status(503, times=1), faults.status(429, times=1, headers={"Retry-After": "1"}), faults.cut(times=1)],
    ids=["503", "429", "cut"],
)
def test_passing_faults_of_the_api_are_tried_again(world: World, server: MetadataServer, fault: faults.Fault) -> None:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    world.google.servers["container"].faults.append(fault)
    done = run(world, server)
    assert json.loads(done.stdout)["XDS_ADDR"] == "10.128.0.20:15012"
    assert len(world.google.servers["container"].requests) >= 2


@pytest.mark.parametrize(
    ("fault", "status", "word"),
    [
        (
            faults.status(403, "Permission denied on resource project."),
            77,
            "binding demo-project --role=roles/container",
        ),
        (faults.status(500), 69, "HTTP 500"),
        (faults.malformed(), 69, "not JSON"),
        (faults.redirect("https://evil.example/steal"), 69, "HTTP 302"),
        (faults.disabled("container.googleapis.com", project=PROJECT.id), 77, "has not been used"),
    ],
    ids=["403", "500", "malformed", "redirect", "disabled"],
)
def test_lasting_faults_of_the_api_end_it_and_say_what(
    fault: faults.Fault, status: int, word: str, world: World, server: MetadataServer
) -> None:
    world.google.servers["container"].faults.append(fault)
    text = fails(run(world, server), status)
    assert word in text
    assert "GKE API" in text


def test_a_project_without_a_mesh_gives_what_is_known_without_an_error(world: World, server: MetadataServer) -> None:
    world.google.add(world.kubernetes, "plain")
    done = run(world, server)
    assert (done.returncode, done.stderr) == (0, "")
    assert "XDS_ADDR" not in json.loads(done.stdout)
    assert "none of a mesh" in run(world, server, "--explain").stdout


def test_without_the_role_it_ends_with_77_the_permission_and_the_command(world: World, server: MetadataServer) -> None:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    for namespace in ("default", "istio-system"):
        with contextlib.suppress(Exception):
            for binding in world.kubernetes.admin.get(
                f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"
            )["items"]:
                name = binding["metadata"]["name"]
                if name.startswith("krun-discover:"):
                    world.kubernetes.admin.delete(
                        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings/{name}"
                    )
    text = fails(run(world, server), 77)
    assert "get configmaps mesh-env in namespace" in text
    assert "kubectl create role" in text
    assert EMAIL in text


HOSTILE = {
    "LD_PRELOAD": "/canary",
    "PATH": "/canary",
    "PYTHONPATH": "/canary",
    "K8S_UID": "0",
    "SSH_AUTH": "canary",
    "PORT_x": "15000",
    "TRUST_DOMAIN": "a\nPATH=/canary",
    "XDS_ADDR": "canary canary",
    "CLUSTER_NAME": "c" * 900_000,
}


def test_a_hostile_mesh_env_sets_nothing_and_each_entry_is_told(world: World, server: MetadataServer) -> None:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    world.mesh_env({**MESH_ENV, **HOSTILE})
    for style in ("json", "shell", "dotenv"):
        done = run(world, server, "--format", style)
        assert done.returncode == 0
        assert "canary" not in done.stdout + done.stderr
        assert "15000" not in done.stdout
        assert "K8S_UID" not in done.stdout
    told = run(world, server, "--explain").stdout
    dropped = told.partition("Dropped of mesh-env:\n")[2].partition("\n\n")[0]
    assert all(f"  {name}: " in dropped for name in HOSTILE)
    assert "canary" not in told


def test_no_secret_is_in_any_output(world: World, server: MetadataServer) -> None:
    """Whatever went over the wire as a token, and what stands beside it in files, is searched for."""
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    outputs = []
    for arguments in ([], ["--explain"], ["doctor"], ["--log-level", "debug"], ["--format", "shell"]):
        done = run(world, server, *arguments)
        outputs.append(done.stdout + done.stderr)
    world.google.servers["container"].faults.append(faults.status(403))
    outputs += [done.stdout + done.stderr for done in (run(world, server), run(world, server, "--explain"))]
    tokens = {asked.bearer for asked in world.google.requests} | set(world.google.accounts.grants)
    assert len(tokens) > 3
    for text in outputs:
        assert not [token for token in tokens if token and token in text]
        assert "Bearer" not in text


def test_a_foreign_project_pays_with_its_own_quota(world: World, server: MetadataServer) -> None:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    run(world, server)
    run(world, server, MESH="gke://other-project")
    quotas = [asked.headers.get("x-goog-user-project") for asked in world.google.servers["container"].requests]
    assert quotas == [None, "other-project"]


def test_ranges_come_out_of_the_cluster_where_they_may_be_listed(world: World) -> None:
    """Its ServiceCIDRs, and its nodes' pods; for what is not known of both, what krun-iptables takes anyhow."""
    user = "ranger@example.com"
    namespace = world.kubernetes.namespace()
    world.grant(user, namespace=namespace)
    config = world.kubeconfig("kind", certificate=world.kubernetes.certificate(user), namespace=namespace)
    env = world.environment(KUBECONFIG=str(config), HTTPS_PROXY="")

    def ranges() -> str:
        done = processes.run([components.command("krun-discover")], env=env)
        assert (done.returncode, done.stderr) == (0, "")
        return str(json.loads(done.stdout).get("OUTBOUND_IP_RANGES_INCLUDE", ""))

    assert ranges() == ""
    rule = {"apiGroups": ["networking.k8s.io"], "resources": ["servicecidrs"], "verbs": ["list"]}
    allow(world, user, rule)
    services = world.kubernetes.admin.get("/apis/networking.k8s.io/v1/servicecidrs")["items"][0]["spec"]["cidrs"][0]
    assert ranges() == f"10.0.0.0/8,{services}"
    allow(world, user, rule, {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]})
    for number in (0, 1):
        spec = {"podCIDR": f"10.244.{number}.0/24", "podCIDRs": [f"10.244.{number}.0/24"]}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{number}"}, "spec": spec}
        world.kubernetes.apply(node)
    try:
        assert ranges() == f"10.244.0.0/23,{services}"
        world.mesh_env({**MESH_ENV, "OUTBOUND_IP_RANGES_INCLUDE": "10.9.0.0/16"})
        assert ranges() == "10.9.0.0/16"
    finally:
        for number in (0, 1):
            world.kubernetes.admin.delete(f"/api/v1/nodes/node-{number}")


def allow(world: World, user: str, *rules: dict[str, list[str]]) -> None:
    """Let a user do it in the whole cluster."""
    kind = "rbac.authorization.k8s.io"
    world.kubernetes.apply(
        {"apiVersion": f"{kind}/v1", "kind": "ClusterRole", "metadata": {"name": "ranger"}, "rules": list(rules)},
        {
            "apiVersion": f"{kind}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "ranger"},
            "roleRef": {"apiGroup": kind, "kind": "ClusterRole", "name": "ranger"},
            "subjects": [{"apiGroup": kind, "kind": "User", "name": user}],
        },
    )


def test_on_the_way_to_a_cluster_nothing_heavy_is_imported(world: World) -> None:
    """kubeconfig, mesh-env and a token: http.client, ssl and yaml, and nothing of the big clients."""
    user = "lean@example.com"
    namespace = world.kubernetes.namespace()
    world.grant(user, namespace=namespace)
    config = world.kubeconfig("kind", certificate=world.kubernetes.certificate(user), namespace=namespace)
    env = world.environment(KUBECONFIG=str(config), HTTPS_PROXY="")
    for command, *arguments in (["krun-discover"], ["krun-token", "kubernetes", "--audience", "istio-ca"]):
        argv = [sys.executable, "-X", "importtime", components.command(command), *arguments]
        done = processes.run(argv, env=env)
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
        imported = {line.rpartition("|")[2].strip() for line in lines}
        assert {"http.client", "ssl", "yaml"} <= imported
        heavy = {"google.auth", "kubernetes", "requests", "urllib3", "asyncio", "cryptography", "subprocess"}
        heavy |= {"click", "logging", "dataclasses", "inspect", "pathlib", "tempfile"}
        assert imported & heavy == set(), command


def test_discovery_mints_the_workloads_token_by_the_way(world: World) -> None:
    user, namespace = "swift@example.com", world.kubernetes.namespace()
    world.grant(user, namespace=namespace)
    config = world.kubeconfig("kind", certificate=world.kubernetes.certificate(user), namespace=namespace)
    env = world.environment(KUBECONFIG=str(config), HTTPS_PROXY="")
    files = {audience: world.folder / audience for audience in ("istio-ca", "vault")}
    flags = [flag for audience, path in files.items() for flag in ("--token", f"{audience}={path}")]
    done = processes.run(["krun-discover", *flags], env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["WORKLOAD_NAMESPACE"] == namespace
    for audience, path in files.items():
        assert path.stat().st_mode & 0o777 == 0o600
        status = world.kubernetes.review(path.read_text(), audiences=(audience,))
        assert status["authenticated"] is True
        assert status["user"]["username"] == f"system:serviceaccount:{namespace}:default"
        assert path.read_text() not in done.stdout


def test_token_that_may_not_be_minted_is_77_and_nothing_is_printed_or_written(world: World) -> None:
    user, namespace = "reader@example.com", world.kubernetes.namespace()
    world.grant(user, namespace=namespace, account="another")
    config = world.kubeconfig("kind", certificate=world.kubernetes.certificate(user), namespace=namespace)
    token = world.folder / "token"
    token.write_text("old")
    argv = ["krun-discover", "--token", f"istio-ca={token}"]
    text = fails(processes.run(argv, env=world.environment(KUBECONFIG=str(config), HTTPS_PROXY="")), 77)
    assert "may not create serviceaccounts/token default" in text
    assert "kubectl create role" in text
    assert token.read_text() == "old"


def test_token_without_a_cluster_is_78(world: World) -> None:
    text = fails(
        processes.run(
            ["krun-discover", "--token", f"istio-ca={world.folder}/token"],
            env=world.environment(XDS_ADDR="istiod:15010", WORKLOAD_NAMESPACE="a", TRUST_DOMAIN="td"),
        ),
        78,
    )
    assert "no cluster is known here" in text


@pytest.mark.parametrize("flags", [["--token", "istio-ca"], ["--token", "=x"], ["--token", "a=b", "--explain"]])
def test_token_that_is_no_audience_and_file_is_2(flags: list[str], world: World) -> None:
    assert "--token" in fails(processes.run(["krun-discover", *flags], env=world.environment()), 2)


def test_one_cluster_is_asked_for_by_the_path_that_the_api_has(world: World, server: MetadataServer) -> None:
    """The original asked …/cluster/NAME, which no API answers."""
    world.google.add(world.kubernetes, "demo")
    done = run(world, server, CLUSTER_NAME="demo", CLUSTER_LOCATION="us-central1")
    assert json.loads(done.stdout)["XDS_ADDR"] == "10.128.0.20:15012"
    (asked,) = world.google.servers["container"].requests
    assert asked.path == "/v1/projects/demo-project/locations/us-central1/clusters/demo"


def test_cluster_that_is_named_and_not_there_is_69_and_a_command(world: World, server: MetadataServer) -> None:
    text = fails(run(world, server, CLUSTER_NAME="nosuch", CLUSTER_LOCATION="us-central1"), 69)
    assert "there is no cluster demo-project/us-central1/nosuch" in text
    assert "gcloud container clusters list --project=demo-project" in text
