"""The address ranges of the cluster's Services and Pods, as far as it says them: for ``mesh-env``. Blocks."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hgate import errors
from hgate.kube import Kube
from hgate.kube_answer import Answer

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def ranges(kube: Kube, *, failed: Callable[[Answer | errors.Unreachable], None]) -> tuple[str, ...] | None:
    """Those of each ServiceCIDR (Kubernetes 1.33 and later), and of each node, joined where they lie side by side.

    Empty when one of the two is not known here: half of them would be worse than what workloads find out by themselves.
    ``None`` when it could not be asked for.
    """
    try:
        services = list(_all(kube.list("/apis/networking.k8s.io/v1/servicecidrs"), "cidrs"))
        pods = list(_all(kube.list("/api/v1/nodes"), "podCIDRs"))
    except Answer as answer:
        if answer.status == 404:
            return ()  # older than ServiceCIDRs
        failed(answer)
        return None
    except errors.Unreachable as error:
        failed(error)
        return None
    return _joined([*services, *pods]) if services and pods else ()


def _all(items: Iterable[dict[str, Any]], key: str) -> Iterator[Network]:
    for item in items:
        for text in (item.get("spec") or {}).get(key) or ():
            try:
                yield ipaddress.ip_network(text if isinstance(text, str) else "")
            except ValueError:
                continue


def _joined(networks: list[Network]) -> tuple[str, ...]:
    old = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv4Network))
    new = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv6Network))
    return tuple(str(one) for one in [*old, *new])
