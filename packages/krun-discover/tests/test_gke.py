"""What GKE's API says of a cluster, read: the endpoints and whom to believe there."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_discover import gke

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def cluster(**more: Any) -> gke.Cluster:
    found = {"name": "c", "location": "r", "status": "RUNNING", "endpoint": "34.1.1.1", **more}
    return gke.read(found, project="p")


def test_cluster_is_read_with_its_labels_ranges_trust_domain_and_fleet() -> None:
    one = cluster(
        resourceLabels={"mesh_id": "proj-7"},
        masterAuth={"clusterCaCertificate": base64.b64encode(PEM.encode()).decode()},
        clusterIpv4Cidr="10.4.0.0/14",
        servicesIpv4Cidr="34.118.224.0/20",
        network="projects/p/global/networks/vpc",
        workloadIdentityConfig={"workloadPool": "p.svc.id.goog"},
        fleet={"membership": "//gkehub.googleapis.com/projects/7/locations/r/memberships/c"},
    )
    assert one == gke.Cluster(
        project="p",
        location="r",
        name="c",
        labels={"mesh_id": "proj-7"},
        roots=PEM,
        public="34.1.1.1",
        network="vpc",
        trust_domain="p.svc.id.goog",
        pods="10.4.0.0/14",
        services="34.118.224.0/20",
        membership="//gkehub.googleapis.com/projects/7/locations/r/memberships/c",
    )


@pytest.mark.parametrize(
    ("more", "hosts"),
    [
        ({}, ("", "34.1.1.1", "")),
        ({"privateClusterConfig": {"privateEndpoint": "10.0.0.2"}}, ("10.0.0.2", "34.1.1.1", "")),
        ({"privateClusterConfig": {"privateEndpoint": "10.0.0.2"}, "endpoint": "10.0.0.2"}, ("10.0.0.2", "", "")),
        (
            {
                "controlPlaneEndpointsConfig": {
                    "ipEndpointsConfig": {"privateEndpoint": "10.0.0.2", "publicEndpoint": "34.1.1.1"},
                    "dnsEndpointConfig": {"endpoint": "gke-1.r.gke.goog", "allowExternalTraffic": True},
                }
            },
            ("10.0.0.2", "34.1.1.1", "gke-1.r.gke.goog"),
        ),
        (
            {"controlPlaneEndpointsConfig": {"dnsEndpointConfig": {"endpoint": "gke-1.r.gke.goog"}}},
            ("", "34.1.1.1", ""),
        ),
        ({"endpoint": "gke-1.r.gke.goog"}, ("", "", "gke-1.r.gke.goog")),
    ],
)
def test_endpoints_are_private_public_or_a_name(more: dict[str, Any], hosts: tuple[str, str, str]) -> None:
    one = cluster(**more)
    assert (one.private, one.public, one.dns) == hosts


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
NAMES = "name location status endpoint resourceLabels masterAuth privateClusterConfig controlPlaneEndpointsConfig fleet"


@given(found=st.dictionaries(st.sampled_from([*NAMES.split(), "network", "workloadIdentityConfig"]), JSON))
def test_whatever_the_api_says_is_read_without_an_error(found: dict[str, Any]) -> None:
    assert isinstance(gke.read(found, project="p").title, str)
