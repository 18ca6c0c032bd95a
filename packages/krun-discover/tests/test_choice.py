"""Which cluster of many: the order that users were told, for any clusters."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_discover.choice import Wanted, order
from krun_discover.gke import Cluster

MESH = {"mesh_id": "proj-7"}


def cluster(place: str, **more: Any) -> Cluster:
    location, _, name = place.partition("/")
    return Cluster(project="p", location=location, name=name, **{"labels": MESH, **more})


def placed(clusters: list[Cluster], **wanted: Any) -> list[str]:
    return [f"{one.cluster.location}/{one.cluster.name}" for one in order(clusters, wanted=Wanted(**wanted))]


HERE = ["eu-west1/istio-b", "eu-west1-b/a", "us-east1/istio-a", "us-east1/z"]


def test_named_cluster_is_the_only_one_and_our_region_comes_first() -> None:
    clusters = [cluster("us-east1/c"), cluster("eu-west1-b/c"), cluster("eu-west1/istio-b")]
    assert placed(clusters, name="c", region="eu-west1") == ["eu-west1-b/c", "us-east1/c"]
    assert placed(clusters, name="c", region="eu-west1", location="us-east1") == ["us-east1/c"]
    assert placed(clusters, name="nosuch") == []


def test_our_region_comes_before_names_and_names_before_the_rest() -> None:
    clusters = [cluster(place) for place in reversed(HERE)]
    assert placed(clusters, region="eu-west1") == HERE
    assert placed(clusters, region="nowhere") == ["us-east1/istio-a", "eu-west1/istio-b", "eu-west1-b/a", "us-east1/z"]


def test_a_label_of_the_project_outranks_one_of_the_cluster_and_that_the_rules() -> None:
    clusters = [*map(cluster, HERE), cluster("asia/m", labels={"mesh-config": "true"}), cluster("us-east1/named")]
    labels = {"mesh-cluster": "named"}
    assert placed(clusters, region="eu-west1", labels=labels) == ["us-east1/named", "asia/m", *HERE]
    two = [*clusters, cluster("asia/named", labels={})]
    at = {**labels, "mesh-cluster-location": "asia"}
    assert placed(two, region="eu-west1", labels=at)[0] == "asia/named"


def test_clusters_without_a_mesh_count_only_when_the_user_names_their_project() -> None:
    clusters = [cluster("r/plain", labels={}), cluster("r/mesh")]
    assert placed(clusters) == ["r/mesh"]
    assert placed(clusters, is_any=True) == ["r/mesh", "r/plain"]


@pytest.mark.parametrize(
    ("status", "counts"),
    [("RUNNING", True), ("RECONCILING", True), ("DEGRADED", True), ("PROVISIONING", False), ("STOPPING", False)]
    + [("ERROR", False), ("", False)],
)
def test_clusters_that_cannot_answer_are_left_out(status: str, counts: bool) -> None:
    assert bool(placed([cluster("r/c", status=status)])) is counts
    assert bool(placed([cluster("r/c", status=status)], name="c")) is counts


CLUSTERS = st.lists(
    st.builds(
        Cluster,
        project=st.just("p"),
        location=st.sampled_from(["eu-west1", "eu-west1-b", "us-east1"]),
        name=st.sampled_from(["istio-a", "istio-b", "a", "b"]),
        labels=st.sampled_from([{}, MESH, {"mesh-config": "true"}]),
    ),
    max_size=8,
    unique_by=lambda one: (one.location, one.name),
)


@given(clusters=CLUSTERS, region=st.sampled_from(["", "eu-west1", "us-east1"]), any_=st.booleans())
def test_order_does_not_depend_on_the_order_of_the_list_and_loses_nothing(
    clusters: list[Cluster], region: str, any_: bool
) -> None:
    one = placed(clusters, region=region, is_any=any_)
    assert one == placed(clusters[::-1], region=region, is_any=any_)
    counted = [item for item in clusters if any_ or item.labels]
    assert sorted(one) == sorted(f"{item.location}/{item.name}" for item in counted)
    assert all(choice.reason for choice in order(clusters, wanted=Wanted(region=region)))
