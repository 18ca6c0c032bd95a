"""The address ranges of a cluster's services and pods, as far as it lets us know them: for interception."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from krun_discover.errors import Denied
from krun_discover.kube import Cluster
from krun_discover.kube_access import Access
from krun_discover.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PAGE = 250  # nodes of one answer
PAGES = 40

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Ranges(Record):
    """Ranges as ``10.0.0.0/8``, joined where they lie side by side; ``remarks``: why some are missing."""

    services: tuple[str, ...]
    pods: tuple[str, ...]
    remarks: tuple[str, ...]


def ranges(cluster: Cluster) -> Ranges:
    """Ask for both. What is not permitted, or not known to this version, is no failure. Raises what Cluster does."""
    remarks: list[str] = []
    services = _all(_services(cluster, remarks))
    pods = _all(_pods(cluster, remarks))
    return Ranges(services=services, pods=pods, remarks=tuple(remarks))


def _services(cluster: Cluster, remarks: list[str]) -> Iterator[object]:
    """Of each ServiceCIDR (Kubernetes 1.33 and later)."""
    access = Access(verb="list", resource="servicecidrs", group="networking.k8s.io")
    try:
        found = cluster.get("/apis/networking.k8s.io/v1/servicecidrs", access=access, may_be_unknown=True)
    except Denied:
        remarks.append(f"may not {access}")
        return
    if found is None:
        remarks.append("servicecidrs are not known to this API server: it is older than 1.33")
        return
    for spec in _specs(found):
        yield from _list(spec.get("cidrs"))


def _pods(cluster: Cluster, remarks: list[str]) -> Iterator[object]:
    """Of each node; some networks keep theirs elsewhere, and then there are none."""
    access = Access(verb="list", resource="nodes")
    query = f"limit={PAGE}"
    for _ in range(PAGES):
        try:
            found = cluster.get(f"/api/v1/nodes?{query}", access=access)
        except Denied:
            remarks.append(f"may not {access}")
            return
        for spec in _specs(found or {}):
            yield from _list(spec.get("podCIDRs"))
        metadata = (found or {}).get("metadata")
        following = metadata.get("continue") if isinstance(metadata, dict) else None
        if not isinstance(following, str) or not following:
            return
        from urllib.parse import quote

        query = f"limit={PAGE}&continue={quote(following, safe='')}"
    remarks.append(f"more than {PAGE * PAGES} nodes: not all were asked")


def _specs(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in _list(found.get("items")):
        spec = item.get("spec") if isinstance(item, dict) else None
        if isinstance(spec, dict):
            yield spec


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


def _all(found: Iterator[object]) -> tuple[str, ...]:
    """Ranges that are some, each once; of both families, IPv4 first."""
    networks: list[Network] = []
    for text in found:
        try:
            networks.append(ipaddress.ip_network(text if isinstance(text, str) else ""))
        except ValueError:
            continue
    old = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv4Network))
    new = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv6Network))
    return tuple(str(one) for one in [*old, *new])
