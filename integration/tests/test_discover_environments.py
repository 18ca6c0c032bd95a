"""Where krun-discover runs, and what it then prints: each row of the table in docs/discovery.md, exactly."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from krun_testbed import components, discover_world, processes, tables
from krun_testbed.discover_world import EMAIL, MESH, MESH_ENV, World
from krun_testbed.google_api import PROJECT, GoogleApi
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.metadata import Facts

pytestmark = pytest.mark.kubernetes

NAMESPACE = "team"
DEFAULTS = {
    "PORT_http": "8080",
    "TRUST_DOMAIN": "cluster.local",
    "WORKLOAD_NAME": "default",
    "WORKLOAD_NAMESPACE": "default",
    "WORKLOAD_SERVICE_ACCOUNT": "default",
}
GOOGLE = {
    **DEFAULTS,
    "CLUSTER_LOCATION": "us-central1",
    "CLUSTER_NAME": "demo",
    "PROJECT_ID": PROJECT.id,
    "PROJECT_NUMBER": PROJECT.number,
    "TRUST_DOMAIN": "demo-project.svc.id.goog",
}
# What comes along with a cluster that GKE's API has described, and with its mesh-env.
RANGES = {"OUTBOUND_IP_RANGES_INCLUDE": "10.4.0.0/14,10.96.0.0/16"}
MAP = {**MESH_ENV, "KRUN_GATEWAY": "203.0.113.20:15443"}
OUTER = {**MAP, "XDS_ADDR": "203.0.113.20:15012"}
INNER = {**MAP, "XDS_ADDR": "10.128.0.20:15012"}
TEAM = {"WORKLOAD_NAMESPACE": NAMESPACE, "WORKLOAD_NAME": NAMESPACE}
Place = contextlib.AbstractContextManager[tuple[dict[str, str], dict[str, str]]]
ROWS: dict[str, Callable[[World], Place]] = {}


def row(name: str) -> Callable[[Callable[[World], Iterator[tuple[dict[str, str], dict[str, str]]]]], None]:
    """Note a place under its name: it gives the variables that are set there, and those that are printed."""

    def note(place: Callable[[World], Iterator[tuple[dict[str, str], dict[str, str]]]]) -> None:
        ROWS[name] = contextlib.contextmanager(place)

    return note


Row = Iterator[tuple[dict[str, str], dict[str, str]]]


@pytest.fixture
def world(kubernetes: Kubernetes, google: GoogleApi, address: str, tmp_path: Path) -> Iterator[World]:
    with discover_world.world(kubernetes=kubernetes, google=google, address=address, folder=tmp_path) as made:
        yield made


def meshed(world: World, *, user: str = EMAIL, namespace: str = "default") -> None:
    """A mesh in the real API server, of which a user may see what a workload may."""
    with contextlib.suppress(Exception):
        world.kubernetes.namespace(namespace)
    world.grant(user, namespace=namespace)
    world.mesh_env(MESH_ENV)


def inside(env: dict[str, str]) -> list[str]:
    """What the command is run by: a pod's files are in a mount namespace."""
    return ["unshare", "-Urm", "sh", "-c", POD, "sh"] if "POD_FOLDER" in env else []


def discovered(world: World, **env: str) -> dict[str, str]:
    done = processes.run([*inside(env), components.command("krun-discover")], env=world.environment(**env))
    assert (done.returncode, done.stderr) == (0, "")
    values: dict[str, str] = json.loads(done.stdout)
    return values


@row("CI, nothing there")
def _(world: World) -> Row:
    yield {}, DEFAULTS


@row("CI, a project by name and no credentials")
def _(world: World) -> Row:
    yield (
        {"PROJECT_ID": "mesh-demo-7"},
        {
            **DEFAULTS,
            "PROJECT_ID": "mesh-demo-7",
            "TRUST_DOMAIN": "mesh-demo-7.svc.id.goog",
            "WORKLOAD_NAME": "demo",
            "WORKLOAD_NAMESPACE": "demo",
        },
    )


@row("everything set")
def _(world: World) -> Row:
    set_ = {**INNER, **GOOGLE, **RANGES, "CAROOT_ISTIOD": "PEM", "MESH_NETWORK": "default", "MESH_TENANT": "-"}
    yield {**set_, "K_SERVICE": "web", "GCE_METADATA_HOST": "127.0.0.1:1", "KUBECONFIG": "/nonexistent"}, set_
    assert world.google.requests == []


@row("static mesh")
def _(world: World) -> Row:
    env = {"MESH": "static:gw.example", "WORKLOAD_NAMESPACE": NAMESPACE}
    yield env, {**DEFAULTS, **env, "WORKLOAD_NAME": NAMESPACE, "KRUN_GATEWAY": "gw.example:15443"}


@row("a file of variables")
def _(world: World) -> Row:
    values = {"XDS_ADDR": "istiod.example:15010", "WORKLOAD_NAMESPACE": NAMESPACE, "PORT_grpc": "9090"}
    mesh = f"file:{world.file('mesh.json', values)}"
    yield {"MESH": mesh}, {**DEFAULTS, **values, "MESH": mesh, "WORKLOAD_NAME": NAMESPACE}


@row("PROXY_CONFIG")
def _(world: World) -> Row:
    env = {"PROXY_CONFIG": "discoveryAddress: istiod.example:15010\n", "TRUST_DOMAIN": "td"}
    yield env, {**DEFAULTS, "TRUST_DOMAIN": "td", "XDS_ADDR": "istiod.example:15010"}


@row("Traffic Director")
def _(world: World) -> Row:
    mesh = "td:projects=77&scopes=gke-mesh"
    xds = "trafficdirector.googleapis.com:443"
    yield {"MESH": mesh}, {**DEFAULTS, "MESH": mesh, "PROJECT_NUMBER": "77", "XDS_ADDR": xds}


@row("metadata server alone")
def _(world: World) -> Row:
    with world.metadata() as server:
        found = {key: value for key, value in GOOGLE.items() if key != "CLUSTER_NAME"}
        yield {"GCE_METADATA_HOST": server.address, "NO_GCE_CHECK": ""}, found


def on_google(world: World, *, facts: Facts | None = None, platform: str = "cloud-run", **env: str) -> Place:
    @contextlib.contextmanager
    def place() -> Row:
        with world.metadata(platform=platform, facts=facts) as server:
            yield {"GCE_METADATA_HOST": server.address, "NO_GCE_CHECK": "", **env}, {}

    return place()


@row("Cloud Run service")
def _(world: World) -> Row:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    meshed(world)
    with on_google(world, K_SERVICE="v2--web") as (env, _none):
        yield env, {**GOOGLE, **RANGES, **INNER, "MESH_NETWORK": "default", "WORKLOAD_NAME": "web"}


@row("Cloud Run job")
def _(world: World) -> Row:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    meshed(world)
    with on_google(world, CLOUD_RUN_JOB="batch") as (env, _none):
        yield env, {**GOOGLE, **RANGES, **INNER, "MESH_NETWORK": "default", "WORKLOAD_NAME": "batch"}


@row("Cloud Run worker pool")
def _(world: World) -> Row:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    meshed(world)
    with on_google(world, CLOUD_RUN_WORKER_POOL="pool") as (env, _none):
        yield env, {**GOOGLE, **RANGES, **INNER, "MESH_NETWORK": "default", "WORKLOAD_NAME": "pool"}


@row("VM in the mesh's network")
def _(world: World) -> Row:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    meshed(world)
    facts = Facts(region="", zone="us-central1-a", network="default")
    with on_google(world, platform="vm", facts=facts) as (env, _none):
        yield env, {**GOOGLE, **RANGES, **INNER, "MESH_NETWORK": "default"}


@row("VM in another network")
def _(world: World) -> Row:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    meshed(world)
    facts = Facts(region="", zone="us-central1-a", network="other")
    with on_google(world, platform="vm", facts=facts) as (env, _none):
        yield env, {**GOOGLE, **RANGES, **OUTER, "MESH_NETWORK": "other"}


@row("service account k8s-NS@")
def _(world: World) -> Row:
    email = "k8s-team@demo-project.iam.gserviceaccount.com"
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    meshed(world, user=email, namespace=NAMESPACE)
    with on_google(world, facts=Facts(email=email), K_SERVICE="web") as (env, _none):
        names = {"WORKLOAD_NAMESPACE": NAMESPACE, "WORKLOAD_NAME": "web"}
        yield env, {**GOOGLE, **RANGES, **INNER, **names, "MESH_NETWORK": "default"}


@row("mesh-env of the workload's namespace")
def _(world: World) -> Row:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    meshed(world, namespace=NAMESPACE)
    world.mesh_env({"XDS_ADDR": "own.example:15010", "PORT_admin": "9000"}, namespace=NAMESPACE)
    with on_google(world, K_SERVICE="web", WORKLOAD_NAMESPACE=NAMESPACE) as (env, _none):
        names = {"WORKLOAD_NAMESPACE": NAMESPACE, "WORKLOAD_NAME": "web"}
        own = {"XDS_ADDR": "own.example:15010", "PORT_admin": "9000", "MESH_NETWORK": "default"}
        yield env, {**GOOGLE, **RANGES, **names, **own}
    world.kubernetes.admin.delete(f"/api/v1/namespaces/{NAMESPACE}/configmaps/mesh-env")


@row("managed control plane")
def _(world: World) -> Row:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    meshed(world)
    world.mesh_env({**MESH_ENV, "MESH_TENANT": "tenant-1"})
    with on_google(world, K_SERVICE="web") as (env, _none):
        xds = {"XDS_ADDR": "meshconfig.googleapis.com:443", "MESH_TENANT": "tenant-1", "MESH_NETWORK": "default"}
        yield env, {**GOOGLE, **RANGES, **MAP, **xds, "WORKLOAD_NAME": "web"}


@row("DNS endpoint")
def _(world: World) -> Row:
    made = world.google.add(world.kubernetes, "demo", resourceLabels=MESH, public="")
    assert made["endpoint"].endswith(".gke.goog")
    meshed(world)
    with on_google(world, K_SERVICE="web") as (env, _none):
        yield env, {**GOOGLE, **RANGES, **INNER, "MESH_NETWORK": "default", "WORKLOAD_NAME": "web"}
    assert {asked.path for asked in world.google.servers["dns"].requests}


@row("Connect gateway, by the fleet")
def _(world: World) -> Row:
    made = world.google.add(world.kubernetes, "demo", public="", fleet="global")
    del made["controlPlaneEndpointsConfig"]
    made["endpoint"] = ""
    meshed(world)
    mesh = "//gkehub.googleapis.com/projects/demo-project/locations/global/memberships/demo"
    with on_google(world, K_SERVICE="web", MESH=mesh) as (env, _none):
        yield env, {**GOOGLE, **INNER, "MESH": mesh, "WORKLOAD_NAME": "web", "XDS_ADDR": "203.0.113.20:15012"}


@row("two clusters, one marked by a label")
def _(world: World) -> Row:
    world.google.add(world.kubernetes, "istio-here", resourceLabels=MESH, public="203.0.113.99")
    world.google.add(
        world.kubernetes, "marked", location="us-east1", resourceLabels={**MESH, "mesh-config": "true"}, public=""
    )
    serve_dns(world)
    meshed(world)
    with on_google(world, K_SERVICE="web") as (env, _none):
        names = {"CLUSTER_NAME": "marked", "CLUSTER_LOCATION": "us-east1", "WORKLOAD_NAME": "web"}
        yield env, {**GOOGLE, **RANGES, **INNER, **names, "MESH_NETWORK": "default"}


def serve_dns(world: World) -> None:
    """The stand-in's certificate is for one region: let the others' clusters be reached by their public address."""
    for made in world.google.container.clusters[PROJECT.id]:
        if made["location"] != "us-central1":
            control = made["controlPlaneEndpointsConfig"]
            del control["dnsEndpointConfig"]
            control["ipEndpointsConfig"] = {"enabled": True, "publicEndpoint": "203.0.113.10"}
            made["endpoint"] = "203.0.113.10"


@row("MESH=gke://PROJECT")
def _(world: World) -> Row:
    world.google.add(world.kubernetes, "demo")  # without a label: the user has named the project
    meshed(world)
    with on_google(world, K_SERVICE="web", MESH="gke://demo-project") as (env, _none):
        mesh = {"MESH": "gke://demo-project", "MESH_NETWORK": "default", "WORKLOAD_NAME": "web"}
        yield env, {**GOOGLE, **RANGES, **INNER, **mesh}


@row("MESH=//container.googleapis.com/…")
def _(world: World) -> Row:
    world.google.add(world.kubernetes, "demo")
    meshed(world)
    mesh = "//container.googleapis.com/projects/demo-project/locations/us-central1/clusters/demo"
    with on_google(world, K_SERVICE="web", MESH=mesh) as (env, _none):
        yield env, {**GOOGLE, **RANGES, **INNER, "MESH": mesh, "MESH_NETWORK": "default", "WORKLOAD_NAME": "web"}


def by_kubeconfig(world: World, context: str, namespace: str = NAMESPACE) -> dict[str, str]:
    with contextlib.suppress(Exception):
        world.kubernetes.namespace(NAMESPACE)
    user = "developer@example.com"
    meshed(world, user=user, namespace=NAMESPACE)
    path = world.kubeconfig(context, certificate=world.kubernetes.certificate(user), namespace=namespace)
    return {"KUBECONFIG": str(path), "HTTPS_PROXY": ""}


# A pod has its account's folder in a file system of its own: here in a mount namespace.
POD = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/secrets/kubernetes.io
cp -r "$POD_FOLDER" /run/secrets/kubernetes.io/serviceaccount
exec "$@"
"""


@row("GKE pod")
def _(world: World) -> Row:
    with contextlib.suppress(Exception):
        world.kubernetes.namespace(NAMESPACE)
    meshed(world, user=f"system:serviceaccount:{NAMESPACE}:default", namespace=NAMESPACE)
    folder = world.folder / "serviceaccount"
    folder.mkdir()
    token = world.kubernetes.token("default", namespace=NAMESPACE)
    for name, text in (("token", token), ("namespace", NAMESPACE), ("ca.crt", world.kubernetes.root.decode())):
        (folder / name).write_text(text, encoding="utf-8")
    host, port = world.kubernetes.where()
    env = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port), "POD_FOLDER": str(folder)}
    own = {"cluster-name": "demo", "cluster-location": "us-central1"}
    facts = Facts(region="", zone="us-central1-a", network="default", instance_attributes=own)
    with on_google(world, platform="gke", facts=facts) as (set_, _none):
        yield {**set_, **env}, {**GOOGLE, **INNER, **TEAM, "MESH_NETWORK": "default"}


@row("laptop with a kubeconfig")
def _(world: World) -> Row:
    yield by_kubeconfig(world, "kind"), {**DEFAULTS, **OUTER, **TEAM}


@row("laptop with a kubeconfig of GKE")
def _(world: World) -> Row:
    parts = {"PROJECT_ID": "demo-project", "CLUSTER_LOCATION": "us-central1", "CLUSTER_NAME": "demo"}
    yield (
        by_kubeconfig(world, "gke_demo-project_us-central1_demo"),
        {**DEFAULTS, **OUTER, **TEAM, **parts, "TRUST_DOMAIN": "demo-project.svc.id.goog"},
    )


@row("laptop with a kubeconfig list")
def _(world: World) -> Row:
    env = by_kubeconfig(world, "kind")
    first = world.file("first", {"contexts": [], "current-context": "kind"})
    yield {**env, "KUBECONFIG": f"{first}:{env['KUBECONFIG']}"}, {**DEFAULTS, **OUTER, **TEAM}


@row("laptop with a service account file")
def _(world: World) -> Row:
    email = "dev@demo-project.iam.gserviceaccount.com"
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    meshed(world, user=email)
    uri = "https://oauth2.googleapis.com/token"
    key = world.google.oauth2.service_account(email, project=PROJECT.id, token_uri=uri)
    env = {"GOOGLE_APPLICATION_CREDENTIALS": str(world.file("key.json", key)), "PROJECT_ID": PROJECT.id}
    yield env, {**GOOGLE, **RANGES, **OUTER}


@row("laptop with gcloud's login")
def _(world: World) -> Row:
    email = "developer@example.com"
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    meshed(world, user=email)
    token = world.google.accounts.access_token(email)
    path = world.program("gcloud", f'test "$1 $2" = "auth print-access-token" && echo {token}')
    yield {"PATH": path, "PROJECT_ID": PROJECT.id}, {**GOOGLE, **RANGES, **OUTER}


@row("laptop with the Connect gateway's kubeconfig")
def _(world: World) -> Row:
    world.google.add(world.kubernetes, "demo", fleet="us-central1")
    meshed(world, user="developer@example.com")
    server = "https://us-central1-connectgateway.googleapis.com/v1/projects/123456789012/locations/us-central1"
    context = "connectgateway_demo-project_us-central1_demo"
    kubeconfig = {
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"{server}/gkeMemberships/demo"}}],
        "users": [{"name": "u", "user": {"exec": {"command": "gke-gcloud-auth-plugin", "apiVersion": "x"}}}],
    }
    token = world.google.accounts.access_token("developer@example.com")
    path = world.program("gcloud", f"echo {token}")
    env = {"KUBECONFIG": str(world.file("connect", kubeconfig)), "PATH": path}
    place = {"PROJECT_ID": "demo-project", "CLUSTER_LOCATION": "us-central1", "CLUSTER_NAME": "demo"}
    yield env, {**DEFAULTS, **OUTER, **place, "TRUST_DOMAIN": "demo-project.svc.id.goog"}


@pytest.mark.parametrize("name", ROWS)
def test_environment_gives_exactly_these_variables(name: str, world: World) -> None:
    with ROWS[name](world) as (env, wanted):
        assert discovered(world, **env) == wanted


@pytest.mark.parametrize("name", ROWS)
def test_no_secret_of_any_source_is_in_any_output(name: str, world: World) -> None:
    """All tokens that were issued, and what the files of the place hold, are searched for in all that is said."""
    with ROWS[name](world) as (env, _):
        outputs = [
            processes.run([*inside(env), components.command("krun-discover"), *arguments], env=world.environment(**env))
            for arguments in (["--explain"], ["doctor"], ["--log-level", "debug", "--format", "dotenv"])
        ]
        secrets = set(world.google.accounts.grants) | secrets_of(world.folder)
    for done in outputs:
        assert "Traceback" not in done.stderr
        for secret in secrets:
            assert secret not in done.stdout + done.stderr


SECRET = re.compile(r"(?:token|client-key-data|private_key|refresh_token)\"?: *\"?([^\"\s]{16,})")


def secrets_of(folder: Path) -> set[str]:
    """What stands in files under names of secrets, and whole files of tokens."""
    found: set[str] = set()
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".pem":
            text = path.read_text(encoding="utf-8")
            found |= {word.split("\\n")[1] if "\\n" in word else word for word in SECRET.findall(text)}
            found |= {text.strip()} if path.name == "token" else set()
    return found


def test_documented_variables_make_a_start_without_any_request(world: World) -> None:
    text = (tables.ROOT / "docs" / "discovery.md").read_text(encoding="utf-8")
    row_ = next(line for line in text.splitlines() if line.startswith("| with istiod |"))
    names = re.findall(r"`([A-Z_]+)`", row_)
    env = {name: GOOGLE.get(name, "x") for name in names} | {"XDS_ADDR": "istiod.example:15012"}
    with world.metadata() as server:
        for platform in ("K_SERVICE", "CLOUD_RUN_JOB", "KUBERNETES_SERVICE_HOST"):
            place = {"GCE_METADATA_HOST": server.address, "NO_GCE_CHECK": "", "KUBECONFIG": "/nonexistent"}
            found = discovered(world, **env, **place, **{platform: "web"})
            assert {name: found[name] for name in names} == env
        assert (server.requests, world.google.requests) == ([], [])


def test_the_document_has_each_of_these_environments() -> None:
    text = (tables.ROOT / "docs" / "discovery.md").read_text(encoding="utf-8")
    table = text.partition("## From where")[2].partition("\n## ")[0]
    assert re.findall(r"^\| ([^|]+?) \|", table, re.M)[1:] == list(ROWS)
