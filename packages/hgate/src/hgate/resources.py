"""What hgate watches in the cluster: which kinds, narrowed as far as RBAC and memory ask for. Data, no requests."""

from __future__ import annotations

from typing import Any

from hgate import foreign_rule
from hgate.watch import Resource

SYSTEM = "istio-system"
MANAGED = "app.kubernetes.io/managed-by"
OURS = "hgate"
ANNOTATIONS = "hgate.krun/"
PUBLIC, INTERNAL = "hgate", "internal-hgate"  # the gate's own services, as the seed names them
GATE_PORT = 15442
POLICY, CLAIMS, MESH_ENV = "hgate-policy", "hgate-claims", "mesh-env"
ROOTS, MESH, TENANT = "istio-ca-root-cert", "istio", "env-asm-managed"
NETWORKING = "/apis/networking.istio.io/v1"


def is_ours(item: dict[str, Any]) -> bool:
    """Tell whether hgate has written an object."""
    return bool(((item.get("metadata") or {}).get("labels") or {}).get(MANAGED) == OURS)


def declarations(*, system: str) -> tuple[Resource, ...]:
    """From these follows what is routed: until they are known, or known to be out of reach, nothing is."""

    def slim(item: dict[str, Any]) -> dict[str, Any]:
        """Of a Service that says nothing to us, what must be known all the same: that its name is taken, its ports."""
        metadata = item["metadata"]
        if is_ours(item) or any(key.startswith(ANNOTATIONS) for key in metadata.get("annotations") or {}):
            return item
        if metadata["namespace"] == system and metadata["name"] in (PUBLIC, INTERNAL):
            return item
        spec = item.get("spec") or {}
        return {
            "metadata": {key: metadata[key] for key in ("namespace", "name", "uid", "resourceVersion")},
            "spec": {key: spec[key] for key in ("ports", "selector", "type", "clusterIP") if key in spec},
        }

    def is_entry_of_interest(item: dict[str, Any]) -> bool:
        ports = (item.get("spec") or {}).get("ports") or {}
        return is_ours(item) or GATE_PORT in ports.values()

    return (
        Resource(kind="Service", path="/api/v1/services", slim=slim),
        Resource(kind="ConfigMap", path="/api/v1/configmaps", name="hgate"),
        Resource(
            kind="WorkloadEntry", path=f"{NETWORKING}/workloadentries", keep=is_entry_of_interest, is_optional=True
        ),
        _config_map(POLICY, system=system),
        _config_map(CLAIMS, system=system),
    )


def written(*, system: str) -> tuple[Resource, ...]:
    """Beside those: what hgate writes, or must know before it does."""
    ours = f"{MANAGED}={OURS}"
    return (
        # All of them: a namespace that has one for a workload gets no other from us.
        Resource(kind="Sidecar", path=f"{NETWORKING}/sidecars", is_optional=True),
        # And people's that keep calls from us: who made one is told.
        Resource(
            kind="DestinationRule",
            path=f"{NETWORKING}/destinationrules",
            keep=lambda item: is_ours(item) or foreign_rule.is_of_interest(item),
            is_optional=True,
        ),
        Resource(kind="VirtualService", path=f"{NETWORKING}/virtualservices", labels=ours, is_optional=True),
        Resource(
            kind="PeerAuthentication",
            path="/apis/security.istio.io/v1/peerauthentications",
            labels=ours,
            is_optional=True,
        ),
        Resource(kind="EndpointSlice", path="/apis/discovery.k8s.io/v1/endpointslices", labels=ours),
    )


def settings(*, system: str) -> tuple[Resource, ...]:
    """What ``mesh-env`` is made of, and it itself."""
    return tuple(_config_map(name, system=system) for name in (MESH_ENV, ROOTS, MESH, TENANT))


def _config_map(name: str, *, system: str) -> Resource:
    return Resource(kind="ConfigMap", path=f"/api/v1/namespaces/{system}/configmaps", name=name)
