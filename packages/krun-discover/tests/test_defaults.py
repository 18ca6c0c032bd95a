"""The rules that derive a value from another."""

from __future__ import annotations

import pytest

from krun_discover.defaults import gateway_of, name_of_service, namespace_of_project
from krun_discover.errors import Misconfigured
from krun_discover.metadata import last_segment, namespace_of_account, region_of_zone


@pytest.mark.parametrize(
    ("project", "namespace"),
    [
        ("mesh-demo-7", "demo"),
        ("a-b-c-d", "c"),
        ("my-project", ""),
        ("project", ""),
        ("example.com:a-b-c", "b"),
        ("ex-am-ple.com:project", ""),
    ],
)
def test_a_project_of_three_dash_parts_names_the_namespace(project: str, namespace: str) -> None:
    assert namespace_of_project(project) == namespace


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("web", "web"),
        ("v2--web", "web"),
        ("v2--web--x", "web--x"),
        ("web-1", "web-1"),
        ("--web", "--web"),
        ("v--", "v--"),
    ],
)
def test_a_cloud_run_service_names_the_workload(service: str, name: str) -> None:
    assert name_of_service(service) == name


@pytest.mark.parametrize(
    ("email", "namespace"),
    [
        ("k8s-demo@p.iam.gserviceaccount.com", "demo"),
        ("k8s-a-b@p", "a-b"),
        ("demo@p", ""),
        ("k8s-demo", ""),
        ("k8s-@p", ""),
        ("xk8s-demo@p", ""),
        ("", ""),
    ],
)
def test_a_service_account_names_the_namespace(email: str, namespace: str) -> None:
    assert namespace_of_account(email) == namespace


def test_regions_are_cut_out_of_paths() -> None:
    assert last_segment("projects/1/regions/us-central1") == "us-central1"
    assert region_of_zone("projects/1/zones/us-central1-a") == "us-central1"
    assert region_of_zone("projects/1/zones/us-central1-1") == "us-central1"
    assert region_of_zone("") == ""


def test_the_gateway_is_at_the_connector() -> None:
    assert gateway_of("34.1.2.3") == "34.1.2.3:15443"
    assert gateway_of("gw.example:15012") == "gw.example:15443"
    assert gateway_of("[::1]") == "[::1]:15443"
    with pytest.raises(Misconfigured, match="MCON_ADDR=::1"):
        gateway_of("::1")
