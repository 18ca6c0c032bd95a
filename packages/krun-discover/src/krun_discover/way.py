"""One way to the mesh's cluster: what it is called, why it is tried, its addresses, what is known of it."""

from __future__ import annotations

from collections.abc import Mapping

from krun_discover.kube_target import Target
from krun_discover.record import NONE, Record


class Way(Record):
    """One cluster. ``values``: what is known of it, as variables; ``network``: its VPC's name."""

    title: str
    reason: str
    targets: tuple[Target, ...]
    values: Mapping[str, str] = NONE
    network: str = ""
