"""The objects themselves, as the API server takes them: Kubernetes' and Istio's. Each function makes one kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hgate import declaration as words
from hgate.contract import PORTS
from hgate.declaration import Declaration, Port
from hgate.routes import DOMAIN

NETWORKING = "networking.istio.io/v1"
SECURITY = "security.istio.io/v1"
# A connection of Envoy's ends this long before Cloud Run would end it: requests that are under way go to their end.
MARGIN = 60  # seconds, and half of the timeout at most
INBOUND = PORTS["ENVOY_MTLS"]
GATE = PORTS["SNI_GATE"]
LOOPBACK = "127.0.0.1"
# What Istio takes for HTTP of some kind, in its own words; a name that is none of these and none of TCP is HTTP's, too.
HTTP = {"http2": "HTTP2", "kubernetes.io/h2c": "HTTP2", "grpc": "GRPC", "grpc-web": "GRPC-WEB"}
TCP = frozenset({"tcp", "tls", "https", "mongo", "mysql", "redis", "postgres", "postgresql"})

Manifest = dict[str, Any]


def identity_labels(workload: str) -> dict[str, str]:
    """Labels by which an endpoint is called by mutual TLS, under its workload's name."""
    return {"security.istio.io/tlsMode": "istio", "service.istio.io/canonical-name": workload}


def port_keys(ports: Sequence[Port]) -> tuple[str, ...]:
    """By which name a WorkloadEntry says where each port is (istio.io, serviceInstanceFromWorkloadInstance)."""
    return tuple(port.target if isinstance(port.target, str) else port.name for port in ports)


def own_port_names(ports: Sequence[Port]) -> tuple[str, ...]:
    """Names of the ports of a Service of ours, all of which have one."""
    return tuple(port.name or f"port-{number}" for number, port in enumerate(ports))


def protocol(port: Port) -> str:
    """In the words of Istio's Sidecar."""
    said = (port.app_protocol or port.name.partition("-")[0]).lower()
    return "TCP" if said in TCP else HTTP.get(said, "HTTP")


def longest(timeout: int) -> int:
    """How old a connection to a service with this request timeout may become, in seconds."""
    return max(1, timeout - min(MARGIN, timeout // 2))


def destination_rule(service: str, *, declaration: Declaration, timeout: int, identity: str = "") -> Manifest:
    """Always by mutual TLS, and no connection as old as one that the platform ends.

    ``identity``: on which callers insist, where istiod cannot know it.
    """
    tls: dict[str, Any] = {"mode": "ISTIO_MUTUAL"}
    if identity:
        tls["subjectAltNames"] = [identity]
    policy: dict[str, Any] = {"tls": tls}
    if any(protocol(port) != "TCP" for port in declaration.ports):
        policy["connectionPool"] = {"tcp": {"maxConnectionDuration": f"{longest(timeout)}s"}}
    spec = {"host": _host(service, declaration.namespace), "trafficPolicy": policy}
    return _object(NETWORKING, "DestinationRule", service, declaration.namespace, service=service, spec=spec)


def service(name: str, *, declaration: Declaration) -> Manifest:
    """A Service of ours, with a selector for our endpoint."""
    ports = [
        _said({"name": key, "port": port.number, "targetPort": port.app_port, "protocol": "TCP"}, port)
        for key, port in zip(own_port_names(declaration.ports), declaration.ports, strict=True)
    ]
    # What the server would fill in is written, so that what is read back is what was written.
    usual = {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}
    spec = {"ports": ports, "selector": {words.SERVICE: name}, **usual}
    return _object("v1", "Service", name, declaration.namespace, service=name, spec=spec)


def workload_entry(
    service: str, *, declaration: Declaration, gate: str, keys: Sequence[str], labels: Mapping[str, str]
) -> Manifest:
    """The endpoint of a Service with a selector: the gate, where the server name says which service is meant."""
    ports = dict.fromkeys(keys, GATE)
    spec = {"address": gate, "ports": ports, "serviceAccount": declaration.account, "labels": dict(labels)}
    return _object(NETWORKING, "WorkloadEntry", service, declaration.namespace, service=service, spec=spec)


def endpoint_slice(service: str, *, declaration: Declaration, gate: str) -> Manifest:
    """The same for a Service without a selector."""
    # Kubernetes' own controllers leave slices of others alone.
    more = {"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": words.MANAGER}
    made = _object(
        "discovery.k8s.io/v1", "EndpointSlice", f"{service}-hgate", declaration.namespace, service=service, labels=more
    )
    made["addressType"] = "IPv6" if ":" in gate else "IPv4"
    made["endpoints"] = [{"addresses": [gate], "conditions": {"ready": True}}]
    made["ports"] = [_said({"name": port.name, "port": GATE, "protocol": "TCP"}, port) for port in declaration.ports]
    return made


def virtual_service(declaration: Declaration, *, shares: Mapping[str, int]) -> Manifest:
    """Calls of the declared name, shared over services by weight."""
    kinds: dict[str, list[Any]] = {"http": [], "tcp": []}
    for port in declaration.ports:
        routes = [
            {
                "destination": {"host": _host(name, declaration.namespace), "port": {"number": port.number}},
                "weight": weight,
            }
            for name, weight in shares.items()
        ]
        kind = "tcp" if protocol(port) == "TCP" else "http"
        kinds[kind].append({"match": [{"port": port.number}], "route": routes})
    name = declaration.service
    spec = {
        "hosts": [_host(name, declaration.namespace)],
        **{kind: listed for kind, listed in kinds.items() if listed},
    }
    return _object(NETWORKING, "VirtualService", name, declaration.namespace, service=name, spec=spec)


def sidecar(workload: str, *, namespace: str, port: Port, usual: Mapping[str, Any]) -> Manifest:
    """What hboned leads to port 15003 is mutual TLS that ends there, and goes to the application.

    ``usual``: the settings of the namespace for all its workloads, whose place a Sidecar for one of them takes.
    """
    ingress = {
        "port": {"number": INBOUND, "protocol": protocol(port), "name": "http"},
        "bind": LOOPBACK,
        "defaultEndpoint": f"{LOOPBACK}:{port.app_port}",
        "captureMode": "NONE",
    }
    spec = {
        "workloadSelector": {"labels": {"app": workload}},
        "ingress": [ingress],
        "egress": usual.get("egress") or [{"hosts": ["*/*"]}],
        **({"outboundTrafficPolicy": usual["outboundTrafficPolicy"]} if "outboundTrafficPolicy" in usual else {}),
    }
    return _object(NETWORKING, "Sidecar", workload, namespace, spec=spec)


def peer_authentication(workload: str, *, namespace: str) -> Manifest:
    """Nothing but mutual TLS reaches the workload through the gate."""
    spec = {"selector": {"matchLabels": {"app": workload}}, "mtls": {"mode": "STRICT"}}
    return _object(SECURITY, "PeerAuthentication", workload, namespace, spec=spec)


def config_map(name: str, *, namespace: str, data: Mapping[str, str]) -> Manifest:
    """Facts of ours that outlive us."""
    return _object("v1", "ConfigMap", name, namespace) | {"data": dict(data)}


def _host(service: str, namespace: str) -> str:
    return f"{service}.{namespace}.{DOMAIN}"


def _said(listed: Manifest, port: Port) -> Manifest:
    return listed | ({"appProtocol": port.app_protocol} if port.app_protocol else {})


def _object(
    version: str,
    kind: str,
    name: str,
    namespace: str,
    *,
    service: str = "",
    spec: Manifest | None = None,
    labels: Mapping[str, str] | None = None,
) -> Manifest:
    marks = {words.MANAGED_BY: words.MANAGER, **({words.SERVICE: service} if service else {}), **(labels or {})}
    metadata = {"name": name, "namespace": namespace, "labels": marks}
    made: Manifest = {"apiVersion": version, "kind": kind, "metadata": metadata}
    return made | ({"spec": spec} if spec is not None else {})
