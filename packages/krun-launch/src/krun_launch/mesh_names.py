"""Which host names are answered with the mesh's address: decides, for the DNS relay.

The rule of names.lua, with one difference: a name of one part is not asked for by itself, as the resolver completes it
with the search domain, and what asks for it literally (``redis.`` with its dot) means a host outside.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection

# One address stands for all names of the mesh: the name is in the request. Class E is nobody's, and Istio takes the
# same range for services without an address.
VIRTUAL = "240.240.0.1"
VIRTUAL_RANGE = "240.240.0.0/16"
# RFC 1123, section 2.1.
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
SERVICES = ("svc", "cluster", "local")


class Kind(enum.Enum):
    """What a name is."""

    MESH = "mesh"
    ABSENT = "absent"  # below the mesh's domain, and no name in it
    OUTSIDE = "outside"


def kind(host: str, *, namespaces: Collection[str]) -> Kind:
    """The kind of a whole name as DNS asks for it, without the dot at its end; letter case does not matter."""
    labels = host.lower().split(".")
    if tuple(labels[-3:]) == SERVICES:
        return _in_domain(labels[:-3])
    if labels[-1:] == ["svc"]:
        return _in_domain(labels[:-1])
    if len(labels) == 2 and labels[1] in namespaces and LABEL.fullmatch(labels[0]):
        return Kind.MESH
    return Kind.OUTSIDE


def _in_domain(labels: list[str]) -> Kind:
    """NAME.NAMESPACE, and nothing longer: resolvers put the search domain behind names of the outside world too."""
    return Kind.MESH if len(labels) == 2 and all(LABEL.fullmatch(label) for label in labels) else Kind.ABSENT
