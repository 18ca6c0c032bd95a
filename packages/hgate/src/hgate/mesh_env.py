"""The config map ``mesh-env``: what workloads outside must know of the mesh. Decides what it holds, writes nothing.

Values that a person wrote stay: a key is ours when it is empty, or holds what we wrote ourselves.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hgate import resources

WRITTEN = "hgate.krun/written"  # annotation: by key, the hash of what we wrote
ROOTS_SEEN = "hgate.krun/roots"  # annotation: by hash, when a root was among the mesh's last
ROOT = "CAROOT_ISTIOD"
# A root that istiod has left stays believed as long as certificates that it signed may live: a day, and one more.
ROOT_KEPT = 48 * 3600.0
ROOT_STEP = 3600.0  # seconds; the times of roots are not written more often
MAX_ROOTS = 8
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_HOST = re.compile(r"[A-Za-z0-9:]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9:])?")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known; empty is not known, and changes nothing."""

    public: str = ""  # address of the gate from everywhere
    internal: str = ""  # and inside of its network
    roots: str = ""  # PEM, as the mesh has them now
    tenant: str = ""
    network: str = ""
    ranges: tuple[str, ...] = ()  # of Pods and Services
    trust_domain: str = ""
    project_id: str = ""
    project_number: str = ""
    cluster: str = ""
    location: str = ""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is to be written: the whole data and annotations of ours, and what was left alone for being a person's."""

    data: Mapping[str, str]
    annotations: Mapping[str, str]
    foreign: tuple[str, ...]


def change(found: Mapping[str, Any] | None, facts: Facts, *, now: float) -> Change:
    """The config map as it should be, from the one that there is."""
    data = {str(key): str(value) for key, value in ((found or {}).get("data") or {}).items()}
    annotations = ((found or {}).get("metadata") or {}).get("annotations") or {}
    written = _read(annotations.get(WRITTEN))
    wanted = _values(facts)
    seen: dict[str, float] = {}
    if facts.roots:
        is_ours = _is_ours(data.get(ROOT, ""), written.get(ROOT))
        wanted[ROOT], seen = roots(
            facts.roots, before=data.get(ROOT, "") if is_ours else "", seen=_times(annotations.get(ROOTS_SEEN)), now=now
        )
    foreign = []
    for key, value in wanted.items():
        if value == data.get(key):
            # The same by whomever: it stays ours if it was, and a person's if not.
            continue
        if _is_ours(data.get(key, ""), written.get(key)):
            data[key] = value
            written[key] = _hash(value)
        else:
            foreign.append(key)
    ours = {key: hashed for key, hashed in sorted(written.items()) if _is_ours(data.get(key, ""), hashed)}
    notes = {WRITTEN: json.dumps({key: str(hashed) for key, hashed in ours.items()})}
    if seen:
        notes[ROOTS_SEEN] = json.dumps(seen)
    return Change(data=data, annotations=notes, foreign=tuple(foreign))


def is_needed(found: Mapping[str, Any] | None, change: Change) -> bool:
    """Whether anything would be other than it is."""
    annotations = ((found or {}).get("metadata") or {}).get("annotations") or {}
    if found is None or dict(change.data) != (found.get("data") or {}):
        return bool(change.data) or found is not None
    return any(annotations.get(key) != value for key, value in change.annotations.items())


def merged(found: Mapping[str, Any] | None, change: Change, *, namespace: str) -> dict[str, Any]:
    """The whole object for writing; with the version that was read, so that nobody's change is lost."""
    metadata = dict((found or {}).get("metadata") or {"name": resources.MESH_ENV, "namespace": namespace})
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **change.annotations}
    return {**(found or {}), "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(change.data)}


def roots(current: str, *, before: str, seen: Mapping[str, float], now: float) -> tuple[str, dict[str, float]]:
    """The bundle of roots after a look at the mesh's, and when each of it was the mesh's last, in steps.

    The newest come first. One that the mesh has left stays for a while: certificates that it signed are still in use,
    and istiod itself may show one.
    """
    step = now // ROOT_STEP * ROOT_STEP
    new = dict.fromkeys(_certificates(current))
    times = {_hash(each): step for each in new}
    kept = list(new)
    for old in _certificates(before):
        key = _hash(old)
        if key not in times and now - seen.get(key, now) < ROOT_KEPT and len(kept) < MAX_ROOTS:
            kept.append(old)
            times[key] = seen.get(key, step)
    return "".join(f"{each}\n" for each in kept), times


def address(service: Mapping[str, Any] | None) -> str:
    """Where a Service of type LoadBalancer is to be reached; empty as long as it has no address."""
    status = ((service or {}).get("status") or {}).get("loadBalancer") or {}
    for entry in status.get("ingress") or ():
        found = entry.get("ip") or entry.get("hostname") or ""
        if isinstance(found, str) and _HOST.fullmatch(found):
            return found
    return ""


def tenant(config_map: Mapping[str, Any] | None) -> str:
    """The tenant of a managed control plane, as ``env-asm-managed`` names it."""
    return str(((config_map or {}).get("data") or {}).get("CLOUDRUN_ADDR") or "").strip()


def mesh_roots(config_map: Mapping[str, Any] | None) -> str:
    """The root certificates that istiod publishes."""
    return str(((config_map or {}).get("data") or {}).get("root-cert.pem") or "")


def trust_domain(config_map: Mapping[str, Any] | None) -> str:
    """The trust domain of the mesh config, when it names one."""
    text = ((config_map or {}).get("data") or {}).get("mesh")
    if not isinstance(text, str):
        return ""
    import yaml  # late: where there is a cluster

    try:
        mesh = yaml.safe_load(text)
    except yaml.YAMLError:
        return ""
    found = mesh.get("trustDomain") if isinstance(mesh, dict) else ""
    return found if isinstance(found, str) else ""


def _values(facts: Facts) -> dict[str, str]:
    values = {
        "MCON_ADDR": facts.public,
        "IMCON_ADDR": facts.internal,
        "MESH_TENANT": facts.tenant,
        "MESH_NETWORK": facts.network,
        "OUTBOUND_IP_RANGES_INCLUDE": ",".join(facts.ranges),
        "TRUST_DOMAIN": facts.trust_domain,
        "PROJECT_ID": facts.project_id,
        "PROJECT_NUMBER": facts.project_number,
        "CLUSTER_NAME": facts.cluster,
        "CLUSTER_LOCATION": facts.location,
    }
    return {key: value for key, value in values.items() if value}


def _is_ours(value: str, hashed: object) -> bool:
    return not value.strip() or _hash(value) == hashed


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _certificates(bundle: str) -> list[str]:
    return ["\n".join(line.strip() for line in found.splitlines()) for found in _PEM.findall(bundle)]


def _read(text: object) -> dict[str, object]:
    try:
        found = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _times(text: object) -> dict[str, float]:
    return {key: float(value) for key, value in _read(text).items() if isinstance(value, int | float)}
