"""Kubernetes and Istio objects of the testbed's meshes, as data: what controllers make of a cluster's pods too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NETWORKING = "networking.istio.io/v1"
SECURITY = "security.istio.io/v1"
MUTUAL = {"security.istio.io/tlsMode": "istio"}  # the label by which endpoints are called by mTLS


def service(
    name: str,
    *,
    ports: Mapping[str, tuple[int, int]],
    selector: Mapping[str, str] | None = None,
    address: str = "",
) -> dict[str, Any]:
    """A Service; ``ports``: name to port and target port. The address is of the API server's choice unless given."""
    listed = [{"name": key, "port": port, "targetPort": target} for key, (port, target) in ports.items()]
    spec: dict[str, Any] = {"ports": listed, "selector": dict(selector or {"app": name})}
    if address:
        spec["clusterIP"] = address
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def endpoints(name: str, *, namespace: str, ports: Mapping[str, int], addresses: Mapping[str, str]) -> dict[str, Any]:
    """The EndpointSlice of a service; ``addresses``: of each pod by its name."""
    pod = {"kind": "Pod", "namespace": namespace}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": key, "port": port, "protocol": "TCP"} for key, port in ports.items()],
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": True}, "targetRef": {**pod, "name": key}}
            for key, address in addresses.items()
        ],
    }


def pod(name: str, *, account: str, labels: Mapping[str, str], ports: Sequence[int] = ()) -> dict[str, Any]:
    """A Pod; nobody runs what it says."""
    listed = [{"containerPort": port} for port in ports]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {"serviceAccountName": account, "containers": [{"name": "app", "image": "app", "ports": listed}]},
    }


def running(address: str) -> dict[str, Any]:
    """The status of a Pod that is ready at an address."""
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }


def strict(name: str = "default", *, selector: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Only mTLS is taken: in the whole namespace, or by what the selector says."""
    spec: dict[str, Any] = {"mtls": {"mode": "STRICT"}}
    return _object(SECURITY, "PeerAuthentication", name, spec | _selected(selector))


def allow(name: str, *, principals: Sequence[str], selector: Mapping[str, str]) -> dict[str, Any]:
    """Only these principals may call, TRUST-DOMAIN/ns/NS/sa/SA."""
    rules = [{"from": [{"source": {"principals": list(principals)}}]}]
    return _object(SECURITY, "AuthorizationPolicy", name, {"action": "ALLOW", "rules": rules} | _selected(selector))


def mutual(host: str) -> dict[str, Any]:
    """A service is called by mTLS, whatever the labels of its endpoints say."""
    spec = {"host": host, "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}}
    return _object(NETWORKING, "DestinationRule", host.partition(".")[0], spec)


def workload_entry(
    name: str, *, address: str, ports: Mapping[str, int], account: str, labels: Mapping[str, str]
) -> dict[str, Any]:
    """An endpoint outside: an address, with the ports at which each of its service's ports is served."""
    spec = {"address": address, "ports": dict(ports), "serviceAccount": account, "labels": {**labels, **MUTUAL}}
    return _object(NETWORKING, "WorkloadEntry", name, spec)


def inward(name: str, *, labels: Mapping[str, str], port: int = 8080) -> dict[str, Any]:
    """The Sidecar of a workload to which everything comes by port 15003, and goes to its application."""
    ingress = {
        "port": {"number": 15003, "protocol": "HTTP", "name": "http"},
        "bind": "127.0.0.1",
        "defaultEndpoint": f"127.0.0.1:{port}",
        "captureMode": "NONE",
    }
    egress = {"hosts": ["*/*"]}
    spec = {"workloadSelector": {"labels": dict(labels)}, "ingress": [ingress], "egress": [egress]}
    return _object(NETWORKING, "Sidecar", name, spec)


def virtual_service(name: str, *, hosts: Sequence[str], http: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Routes of hosts."""
    return _object(NETWORKING, "VirtualService", name, {"hosts": list(hosts), "http": [dict(each) for each in http]})


def service_entry(
    name: str,
    *,
    hosts: Sequence[str],
    ports: Mapping[str, tuple[int, str]],
    addresses: Sequence[str] = (),
    resolution: str = "STATIC",
    location: str = "MESH_EXTERNAL",
) -> dict[str, Any]:
    """Hosts outside of the cluster; ``ports``: name to number and protocol."""
    listed = [{"name": key, "number": port, "protocol": protocol} for key, (port, protocol) in ports.items()]
    spec: dict[str, Any] = {"hosts": list(hosts), "ports": listed, "resolution": resolution, "location": location}
    if addresses:
        spec["endpoints"] = [{"address": address} for address in addresses]
    return _object(NETWORKING, "ServiceEntry", name, spec)


def _object(version: str, kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}


def _selected(selector: Mapping[str, str] | None) -> dict[str, Any]:
    return {"selector": {"matchLabels": dict(selector)}} if selector else {}
