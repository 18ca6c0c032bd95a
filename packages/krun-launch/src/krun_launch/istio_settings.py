"""What a workload of a mesh with Istio's control plane must know, out of the environment (docs/environment.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from krun_launch import workload
from krun_launch.contract import PORTS
from krun_launch.errors import Misconfigured
from krun_launch.record import NONE, Record
from krun_launch.settings import APP_PROTOCOLS, is_port, names_control_plane, one_of

# What is read here: contract.py declares it for the package.
READS = frozenset(
    {
        "ISTIOD_SAN",
        "ISTIO_META_CLUSTER_ID",
        "ISTIO_META_MESH_ID",
        "ISTIO_META_NETWORK",
        "KRUN_APP_PROTOCOL",
        "KRUN_LOOPBACK",
        "KRUN_TCP",
        "KRUN_TOKEN_AUDIENCE",
        "K_REVISION",
        "POD_NAME",
        "PORT_*",
        "PROJECT_ID",
        "PROJECT_NUMBER",
        "PROXY_CONFIG",
        "TRUST_DOMAIN",
        "WORKLOAD_NAME",
        "WORKLOAD_NAMESPACE",
        "WORKLOAD_SERVICE_ACCOUNT",
        "XDS_ADDR",
    }
)

ADMIN_PORT = PORTS["ENVOY_ADMIN"]
PROXY_PORT = PORTS["ENVOY_HTTP_PROXY"]
LOOPBACK = "127.0.0.1"  # the agent's ports are fixed, and so is where they are
ISTIOD = "istiod.istio-system.svc"
ISTIOD_PORT = PORTS["ISTIOD"]
# What istiod calls the cluster that it runs in, unless its installation says another name.
CLUSTER_ID = "Kubernetes"
AUDIENCE = "istio-ca"
DISCOVERY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?):([0-9]{1,5})")
# What is written into the agent's files and node as it is: nothing that JSON, YAML or an id splits at.
PLAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/:-]{0,251}[A-Za-z0-9])?")
# RFC 1123 §2.1: what a Pod may be called.
POD = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
# A value of a label, in Kubernetes.
VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


class TcpService(Record):
    """A port on loopback that leads to one TCP service of the mesh."""

    port: int
    host: str  # whole, as istiod knows it
    target_port: int


class IstioSettings(Record):
    """Settings, checked: every field can be written into a file of the agent or of Envoy as it is.

    ``run_dir`` is the agent's working directory: what it and Envoy call ``./``.
    """

    run_dir: Path
    loopback: str
    namespace: str
    name: str
    pod_name: str
    service_account: str
    cluster_id: str
    mesh_id: str
    trust_domain: str
    network: str
    discovery: str
    discovery_san: str
    audience: str
    app_port: int
    grpc_port: int
    app_protocol: str
    is_captured: bool
    labels: Mapping[str, str] = NONE
    annotations: Mapping[str, str] = NONE
    tcp_services: tuple[TcpService, ...] = ()
    admin_port: int = ADMIN_PORT
    proxy_port: int = PROXY_PORT


def control_plane(env: Mapping[str, str]) -> str:
    """Where the control plane is, HOST:PORT; empty when there is none.

    Raises:
        Misconfigured: it is no address.
    """
    if not names_control_plane(env):
        return ""
    variable, text = "XDS_ADDR", env.get("XDS_ADDR") or ""
    if not text:
        # Late: it is read as YAML, and most have none.
        from krun_launch import istio_proxy_config

        variable, text = "PROXY_CONFIG: discoveryAddress", istio_proxy_config.discovery_address(env)
    if not text:
        return ""
    found = DISCOVERY.fullmatch(text)
    if found is None or not is_port(found[3]):
        raise Misconfigured(f"{variable}={text[:80]!r}: not HOST:PORT", hint=f"such as {ISTIOD}:{ISTIOD_PORT}")
    return text


def settings(env: Mapping[str, str], *, run_dir: Path, instance: str, is_captured: bool) -> IstioSettings:
    """Read the settings; an empty variable counts as not set.

    Args:
        env: the merged environment.
        run_dir: the agent's working directory.
        instance: tells this instance from others of the same workload.
        is_captured: whether rules are in force.

    Raises:
        Misconfigured: one is missing or wrong, or two contradict each other.
    """
    # Late: most have none of them.
    from krun_launch import istio_tcp

    loopback = env.get("KRUN_LOOPBACK") or LOOPBACK
    if loopback != LOOPBACK:
        raise Misconfigured(
            f"KRUN_LOOPBACK={loopback}: ports of pilot-agent are fixed, at {LOOPBACK}",
            hint="give each workload a network namespace (or container) of its own",
        )
    namespace = workload.namespace(env)
    name = workload.name(env, default=namespace)
    discovery = control_plane(env)
    app_port = workload.port_of(env, "PORT_http", default=PORTS["APP"])
    domain = workload.trust_domain(env)
    return IstioSettings(
        run_dir=run_dir,
        loopback=loopback,
        namespace=namespace,
        name=name,
        pod_name=_pod_name(env, name=name, instance=instance),
        service_account=workload.label(env, "WORKLOAD_SERVICE_ACCOUNT", default="default"),
        cluster_id=_plain(env, "ISTIO_META_CLUSTER_ID", default=CLUSTER_ID),
        mesh_id=_plain(env, "ISTIO_META_MESH_ID", default=_mesh_id(env, trust_domain=domain)),
        trust_domain=domain,
        network=_plain(env, "ISTIO_META_NETWORK", default=""),
        discovery=discovery,
        discovery_san=_plain(env, "ISTIOD_SAN", default=_san(discovery)),
        audience=env.get("KRUN_TOKEN_AUDIENCE") or AUDIENCE,
        app_port=app_port,
        grpc_port=workload.port_of(env, "PORT_grpc", default=app_port),
        app_protocol=one_of(env, "KRUN_APP_PROTOCOL", *APP_PROTOCOLS),
        is_captured=is_captured,
        labels=_labels(env, name=name),
        tcp_services=istio_tcp.parse(env["KRUN_TCP"], namespace=namespace) if env.get("KRUN_TCP") else (),
    )


def _pod_name(env: Mapping[str, str], *, name: str, instance: str) -> str:
    """Of this instance alone: istiod tells instances by it."""
    plain = re.sub(r"[^a-z0-9.-]", "-", (env.get("K_REVISION") or name).lower()).strip("-.")[:200]
    text = env.get("POD_NAME") or f"{plain or 'workload'}-{instance}"
    if not POD.fullmatch(text):
        raise Misconfigured(f"POD_NAME={text[:80]!r}: not a name of a Pod", hint="leave it out")
    return text


def _mesh_id(env: Mapping[str, str], *, trust_domain: str) -> str:
    """As Google's meshes are called by their project's number; all others, as in Istio, by their trust domain."""
    number = env.get("PROJECT_NUMBER") or ""
    return f"proj-{number}" if number and trust_domain.endswith(".svc.id.goog") else trust_domain


def _san(discovery: str) -> str:
    """Whom istiod's certificate names: an address from outside the cluster is not among its names."""
    host = discovery.rpartition(":")[0]
    return host if host.endswith(".svc") else ISTIOD


def _labels(env: Mapping[str, str], *, name: str) -> dict[str, str]:
    """The labels that Istio's injection adds to a Pod, and those by which Services and Sidecars choose one."""
    # NAME without what Kubernetes does not take in a value: a longer name is still the workload's own.
    value = name[:63].rstrip("._-")
    version, dashes, _ = (env.get("K_SERVICE") or "").partition("--")
    revision = version if dashes and VALUE.fullmatch(version) else "latest"
    return {
        "app": value,
        "security.istio.io/tlsMode": "istio",
        "service.istio.io/canonical-name": value,
        "service.istio.io/canonical-revision": revision,
        **({"version": version} if revision != "latest" else {}),
    }


def _plain(env: Mapping[str, str], variable: str, *, default: str) -> str:
    text = env.get(variable) or default
    if text and not PLAIN.fullmatch(text):
        raise Misconfigured(f"{variable}={text[:80]!r}: not a name", hint="letters, digits, dots, dashes")
    return text
