"""Who a workload is in a mesh with a control plane, and where that is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_launch.errors import Misconfigured
from krun_launch.istio_settings import POD, IstioSettings, settings

ENV = {"XDS_ADDR": "192.0.2.7:15012", "WORKLOAD_NAMESPACE": "demo", "WORKLOAD_NAME": "a"}


def read(**env: str) -> IstioSettings:
    return settings({**ENV, **env}, run_dir=Path("/run/agent"), instance="0a1b", is_captured=True)


def test_defaults_are_those_of_an_istio_that_was_installed_without_a_word() -> None:
    found = read()
    assert found.discovery_san == "istiod.istio-system.svc"
    assert (found.cluster_id, found.mesh_id, found.network) == ("Kubernetes", "cluster.local", "")
    assert (found.trust_domain, found.service_account, found.audience) == ("cluster.local", "default", "istio-ca")
    assert found.pod_name == "a-0a1b"


@pytest.mark.parametrize(
    ("env", "san"),
    [
        ({"XDS_ADDR": "istiod-canary.istio-system.svc:15012"}, "istiod-canary.istio-system.svc"),
        ({"XDS_ADDR": "mesh.example:15012"}, "istiod.istio-system.svc"),
        ({"XDS_ADDR": "mesh.example:15012", "ISTIOD_SAN": "mesh.example"}, "mesh.example"),
        ({"XDS_ADDR": "[2001:db8::7]:15012"}, "istiod.istio-system.svc"),
    ],
)
def test_certificate_of_the_control_plane_names(env: dict[str, str], san: str) -> None:
    assert read(**env).discovery_san == san


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"K_REVISION": "a-00007-abc"}, "a-00007-abc-0a1b"),
        ({"WORKLOAD_NAME": "My.Name_x"}, "my.name-x-0a1b"),
        ({"WORKLOAD_NAME": "X"}, "x-0a1b"),
        ({"POD_NAME": "mine"}, "mine"),
    ],
)
def test_each_instance_has_a_name_of_its_own(env: dict[str, str], name: str) -> None:
    assert read(**env).pod_name == name


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", fullmatch=True))
def test_every_name_of_a_workload_makes_a_pods_name_and_a_label(name: str) -> None:
    found = read(WORKLOAD_NAME=name)
    assert POD.fullmatch(found.pod_name)
    assert 0 < len(found.labels["app"]) <= 63


def test_a_version_before_the_services_name_is_a_label() -> None:
    labels = read(K_SERVICE="v2--a").labels
    assert (labels["version"], labels["service.istio.io/canonical-revision"]) == ("v2", "v2")
    assert "version" not in read(K_SERVICE="a").labels


def test_googles_meshes_are_called_by_their_projects_number() -> None:
    assert read(PROJECT_ID="p", PROJECT_NUMBER="42").mesh_id == "proj-42"
    assert read(TRUST_DOMAIN="x.example", PROJECT_NUMBER="42").mesh_id == "x.example"


@pytest.mark.parametrize(
    ("env", "variable"),
    [
        ({"KRUN_LOOPBACK": "127.0.0.2"}, "KRUN_LOOPBACK"),
        ({"WORKLOAD_SERVICE_ACCOUNT": "a b"}, "WORKLOAD_SERVICE_ACCOUNT"),
        ({"POD_NAME": "A~b"}, "POD_NAME"),
        ({"ISTIO_META_CLUSTER_ID": 'x"y'}, "ISTIO_META_CLUSTER_ID"),
        ({"ISTIOD_SAN": "a b"}, "ISTIOD_SAN"),
        ({"XDS_ADDR": "a:b:c"}, "XDS_ADDR"),
        ({"TRUST_DOMAIN": "spiffe://x"}, "TRUST_DOMAIN"),
    ],
)
def test_what_cannot_be_is_refused_by_name(env: dict[str, str], variable: str) -> None:
    with pytest.raises(Misconfigured, match=variable):
        read(**env)
