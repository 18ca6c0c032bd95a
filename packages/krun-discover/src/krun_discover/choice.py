"""Which cluster of many is the mesh's: the order in which they are tried, and the reason for each place. Pure.

The rule is what users were told: a cluster that is named, then one that is marked, then our region, then ``istio…``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from krun_discover.gke import Cluster
from krun_discover.record import Record

MESH_LABEL = "mesh_id"  # of a cluster that is in a mesh: ``proj-NUMBER``
CONFIG_LABEL = "mesh-config"  # of a cluster that is to be asked first: ``true``
PROJECT_LABEL = "mesh-cluster"  # of a project: the name of that cluster
LOCATION_LABEL = "mesh-cluster-location"  # of a project: its location, where there are two of that name
PREFIX = "istio"


class Wanted(Record):
    """What is known of the cluster; everything may be empty."""

    name: str = ""
    location: str = ""  # of the cluster
    region: str = ""  # our own
    labels: Mapping[str, str] | None = None  # of the project
    is_any: bool = False  # clusters without MESH_LABEL count, too


class Choice(Record):
    """A cluster at its place."""

    cluster: Cluster
    reason: str


def order(clusters: Iterable[Cluster], *, wanted: Wanted) -> list[Choice]:
    """All clusters that may be it, best first; those that are named by the user have no successors of other names."""
    found = [one for one in clusters if one.is_alive and one.name and one.location]
    if wanted.name:
        named = [one for one in found if one.name == wanted.name and _is_at(one, wanted.location)]
        return [
            Choice(cluster=one, reason="CLUSTER_NAME" + (", in our region" if _is_near(one, wanted.region) else ""))
            for one in sorted(named, key=lambda one: (not _is_near(one, wanted.region), one.location))
        ]
    labels = wanted.labels or {}
    found = [one for one in found if wanted.is_any or MESH_LABEL in one.labels or _is_marked(one, labels)]
    return [
        Choice(cluster=one, reason=_reason(one, wanted)) for one in sorted(found, key=lambda one: _rank(one, wanted))
    ]


def _rank(one: Cluster, wanted: Wanted) -> tuple[object, ...]:
    labels = wanted.labels or {}
    return (
        not _is_named_by(one, labels),
        one.labels.get(CONFIG_LABEL) != "true",
        not _is_near(one, wanted.location or wanted.region),
        not one.name.startswith(PREFIX),
        one.name,
        one.location,
    )


def _reason(one: Cluster, wanted: Wanted) -> str:
    region = wanted.location or wanted.region
    reasons = [
        f"the project's label {PROJECT_LABEL}" if _is_named_by(one, wanted.labels or {}) else "",
        f"its label {CONFIG_LABEL}=true" if one.labels.get(CONFIG_LABEL) == "true" else "",
        f"in {region}" if _is_near(one, region) else "",
        f"its name begins with {PREFIX}" if one.name.startswith(PREFIX) else "",
    ]
    return ", ".join(filter(None, reasons)) or "one of the others"


def _is_marked(one: Cluster, labels: Mapping[str, str]) -> bool:
    return one.labels.get(CONFIG_LABEL) == "true" or _is_named_by(one, labels)


def _is_named_by(one: Cluster, labels: Mapping[str, str]) -> bool:
    return one.name == labels.get(PROJECT_LABEL) and _is_at(one, labels.get(LOCATION_LABEL, ""))


def _is_at(one: Cluster, location: str) -> bool:
    return not location or one.location == location


def _is_near(one: Cluster, place: str) -> bool:
    """A region is near its zones: us-central1 and us-central1-a."""
    return bool(place) and (one.location == place or one.location.rpartition("-")[0] == place)
