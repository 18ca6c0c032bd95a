"""Names of contexts and clusters that tell where a cluster is: as gcloud writes them. Pure."""

from __future__ import annotations

import re

from krun_discover.record import Record

_PROJECT = r"(?P<project>[a-z0-9][a-z0-9.:-]*)"
_LOCATION = r"(?P<location>[a-z][a-z0-9-]*)"
_CLUSTER = r"(?P<cluster>[a-z0-9][a-z0-9-]*)"
FORMS = (
    re.compile(rf"gke_{_PROJECT}_{_LOCATION}_{_CLUSTER}"),
    re.compile(rf"connectgateway_{_PROJECT}(?:_{_LOCATION})?_{_CLUSTER}"),
)
GLOBAL = "global"  # of a membership in the fleet: says nothing of the cluster's own location


class Place(Record):
    """Each is empty where the name does not tell it; ``project`` may be a number."""

    project: str = ""
    location: str = ""
    cluster: str = ""


def parse(*names: str) -> Place:
    """What the first name that has such a form tells: the context's, which users rename, then its cluster's."""
    for name in names:
        for form in FORMS:
            if found := form.fullmatch(name):
                parts = found.groupdict(default="")
                return Place(**parts | ({"location": ""} if parts["location"] == GLOBAL else {}))
    return Place()
