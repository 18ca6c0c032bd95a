"""Names of contexts that tell where a cluster is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_discover import kubeconfig_name


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("gke_my-project_us-central1_istio-1", ("my-project", "us-central1", "istio-1")),
        ("gke_example.com:proj_us-central1-a_c", ("example.com:proj", "us-central1-a", "c")),
        ("connectgateway_my-project_c", ("my-project", "", "c")),
        ("connectgateway_my-project_global_c", ("my-project", "", "c")),
        ("connectgateway_12345_europe-west1_c", ("12345", "europe-west1", "c")),
        ("gke_p_c", ("", "", "")),
        ("gke_p_l_c_d", ("", "", "")),
        ("connectgateway_p", ("", "", "")),
        ("minikube", ("", "", "")),
        ("gke_P_l_c", ("", "", "")),
        ("gke_p_l_c\n", ("", "", "")),
    ],
)
def test_names_of_contexts_tell_the_place(name: str, place: tuple[str, str, str]) -> None:
    found = kubeconfig_name.parse(name)
    assert (found.project, found.location, found.cluster) == place


PROJECT = st.from_regex(r"[a-z0-9][a-z0-9.:-]{0,29}", fullmatch=True)
LOCATION = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True).filter(lambda name: name != "global")
CLUSTER = st.from_regex(r"[a-z0-9][a-z0-9-]{0,39}", fullmatch=True)


@given(project=PROJECT, location=LOCATION, cluster=CLUSTER)
def test_each_place_comes_back_out_of_its_names(project: str, location: str, cluster: str) -> None:
    whole = kubeconfig_name.Place(project=project, location=location, cluster=cluster)
    assert kubeconfig_name.parse(f"gke_{project}_{location}_{cluster}") == whole
    assert kubeconfig_name.parse(f"connectgateway_{project}_{location}_{cluster}") == whole
    bare = kubeconfig_name.Place(project=project, cluster=cluster)
    assert kubeconfig_name.parse(f"connectgateway_{project}_{cluster}") == bare


@given(name=st.text())
def test_any_other_name_tells_nothing_and_fails_nothing(name: str) -> None:
    kubeconfig_name.parse(name, "x")
