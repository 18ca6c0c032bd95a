"""Objects of ours, and whether they still are as we wrote them: a hash of what we say, kept in an annotation.

What a person has changed is the person's: its hash no longer fits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from hgate.declaration import MANAGED_BY, MANAGER, SERVICE, WRITTEN, Ref

# What says something, beside labels; the rest is Kubernetes' own.
PARTS = ("spec", "data", "addressType", "endpoints", "ports")
LABELS = (MANAGED_BY, SERVICE, "kubernetes.io/service-name", "endpointslice.kubernetes.io/managed-by")
# The server chooses these for a Service.
CHOSEN = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")

Object = Mapping[str, Any]
Key = tuple[str, str, str]


def key_of(item: Object) -> Key:
    """Kind, namespace and name."""
    metadata = item["metadata"]
    return (item["kind"], metadata["namespace"], metadata["name"])


def sealed(item: dict[str, Any], *, owners: Iterable[Ref] = ()) -> dict[str, Any]:
    """The object as it is to be written: with its hash, and the objects whose end is its own."""
    metadata = dict(item["metadata"])
    metadata["annotations"] = {**metadata.get("annotations", {}), WRITTEN: hash_of(item)}
    if listed := references(owners):
        metadata["ownerReferences"] = listed
    return {**item, "metadata": metadata}


def references(owners: Iterable[Ref]) -> list[dict[str, Any]]:
    """As Kubernetes has them, in one order."""
    found = {owner.uid: owner for owner in owners if owner.uid}
    return [
        {"apiVersion": owner.version, "kind": owner.kind, "name": owner.name, "uid": uid}
        for uid, owner in sorted(found.items())
    ]


def hash_of(item: Object) -> str:
    """Of what it says, whoever reads it back."""
    labels = item["metadata"].get("labels") or {}
    # With its name, so that a copy of it under another one is whoever's has made it.
    said: dict[str, Any] = {"of": key_of(item), "labels": {key: labels[key] for key in LABELS if key in labels}}
    for part in PARTS:
        if item.get(part):  # an empty one is not kept by the server
            said[part] = item[part]
    if item.get("kind") == "Service" and "spec" in said:
        said["spec"] = {key: value for key, value in said["spec"].items() if key not in CHOSEN}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def is_ours(item: Object) -> bool:
    """Tell whether it says that we made it."""
    return (item["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER


def seal_of(item: Object) -> str:
    """The hash that stands on it."""
    return str((item["metadata"].get("annotations") or {}).get(WRITTEN, ""))


def is_untouched(item: Object) -> bool:
    """Tell whether it is ours, and as we wrote it."""
    return is_ours(item) and seal_of(item) == hash_of(item)
