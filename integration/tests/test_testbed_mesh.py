"""The testbed's mesh is a real one: istiod's certificates, its refusals, the ways between pods and to the outside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import istio_build, istiod, mesh_agent, mesh_app, mesh_call, mesh_gate, mesh_objects, mesh_pod
from krun_testbed.components import Missing
from krun_testbed.mesh_agent import Identity
from krun_testbed.mesh_cluster import BACK, Cluster
from krun_testbed.mesh_network import Place

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]


def named(cluster: Cluster, name: str, *, namespace: str, audience: str = istiod.AUDIENCE) -> Identity:
    return Identity(
        name=name,
        namespace=namespace,
        account="default",
        labels={"app": name},
        token=cluster.kubernetes.token("default", namespace=namespace, audiences=(audience,)),
        root=cluster.istiod.root(namespace=namespace),
    )


@contextlib.contextmanager
def outside(cluster: Cluster) -> Iterator[Place]:
    """A place for a pilot-agent that is started by hand; nothing is captured."""
    with cluster.network.place() as place:
        place.resolver(mesh_pod.RESOLVER, search=["svc.cluster.local", "cluster.local"])
        yield place


def spiffe(namespace: str, account: str = "default") -> str:
    return f"spiffe://cluster.local/ns/{namespace}/sa/{account}"


def test_pods_call_each_other_by_mutual_tls(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.kubernetes.service_account("caller", namespace=namespace)
    with (
        cluster.pod("web", namespace=namespace) as web,
        cluster.pod("other", namespace=namespace, account="caller", service=False) as other,
    ):
        mesh_pod.wait_until_served(other.place, web.place.address)
        address = cluster.names.names[f"web.{namespace}.svc.cluster.local"]
        answer = other.call(f"http://web.{namespace}:8080/", to=address)
        assert (answer.status, answer.by) == (200, "web")
        assert answer.identities == (spiffe(namespace, "caller"), spiffe(namespace))
        assert web.identity == spiffe(namespace)


def test_a_strict_pod_refuses_who_comes_plain(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    with (
        cluster.pod("web", namespace=namespace) as web,
        cluster.pod("bare", namespace=namespace, sidecar=False) as bare,
    ):
        assert bare.call(f"http://{web.place.address}:8080/").by == "web"
        cluster.apply(mesh_objects.strict(), namespace=namespace)
        web.wait_for_config("require_client_certificate")
        cluster.settle(web.place, namespace=namespace)
        with pytest.raises(ConnectionError):
            bare.call(f"http://{web.place.address}:8080/")
        # And it calls who has no sidecar, plain.
        mesh_pod.wait_until_served(web.place, bare.place.address)
        address = cluster.names.names[f"bare.{namespace}.svc.cluster.local"]
        answer = web.call("http://bare:8080/", to=address)
        assert (answer.by, answer.identities) == ("bare", ("", ""))


def test_a_pod_comes_to_a_workload_outside_by_a_gate(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    with (
        cluster.gate() as gate,
        cluster.pod("web", namespace=namespace, service=False) as web,
        outside(cluster) as place,
        mesh_agent.agent(place, named(cluster, "crsvc", namespace=namespace), version=cluster.istiod.version),
        mesh_app.app(place, name="crsvc", address="127.0.0.1"),
    ):
        cluster.register("crsvc", gate, namespace=namespace)
        name = mesh_gate.server_name(f"crsvc.{namespace}.svc.cluster.local", 8080)
        gate.lead(place, name)
        cluster.settle(web.place, place, namespace=namespace)
        mesh_pod.wait_until_served(web.place, gate.address)
        mesh_agent.wait_for_config(place, "0.0.0.0_15003|127.0.0.1_15003")
        address = cluster.names.names[f"crsvc.{namespace}.svc.cluster.local"]
        answer = web.call("http://crsvc:8080/", to=address)
        assert answer.by == "crsvc"
        assert answer.identities == (spiffe(namespace), spiffe(namespace))
        assert gate.names == [name]


def test_istiod_certifies_by_tokens_of_its_audience_only(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    identity = named(cluster, "liar", namespace=namespace, audience="https://elsewhere.example")
    with (
        outside(cluster) as place,
        mesh_agent.started(place, identity, version=cluster.istiod.version) as running,
    ):
        running.wait_for("Unauthenticated.*authentication failure", timeout=60)
        assert not mesh_agent.is_ready(place)


def test_a_place_finds_names_and_the_api_server_inside_and_outside_of_captured_ranges(cluster: Cluster) -> None:
    with cluster.network.place(address="192.0.2.77") as place:
        place.resolver(mesh_pod.RESOLVER, search=["svc.cluster.local"])
        found = place.must("getent", "ahostsv4", "istiod.istio-system")
        assert found.split()[0] == istiod.INSIDE
        assert "A istiod.istio-system.svc.cluster.local" in cluster.names.questions
        for address in (istiod.API_INSIDE, istiod.API_OUTSIDE):
            assert place.listens(address, 443)
        for address in (istiod.INSIDE, istiod.OUTSIDE):
            assert place.listens(address, istiod.XDS)


def test_places_are_nobody_elses(cluster: Cluster) -> None:
    before = Path("/etc/resolv.conf").read_bytes(), Path("/proc/net/route").read_bytes()
    with cluster.network.place() as one, cluster.network.place() as two:
        one.resolver("192.0.2.1")
        one.must("sh", "-c", "echo x >/run/mine")
        assert "192.0.2.1" in one.must("cat", "/etc/resolv.conf")
        assert "192.0.2.1" not in two.must("cat", "/etc/resolv.conf")
        assert two.run("ls", "/run/mine").returncode != 0
        with one.listener("127.0.0.1", 8080):
            assert not two.listens("127.0.0.1", 8080)
            assert not two.listens(one.address, 8080)
    assert (Path("/etc/resolv.conf").read_bytes(), Path("/proc/net/route").read_bytes()) == before


def test_istiod_is_the_version_that_was_asked_for(cluster: Cluster) -> None:
    assert cluster.istiod.version in set(map(istio_build.version_of, istio_build.chosen()))
    assert cluster.istiod.process is not None
    assert f"-{cluster.istiod.version} discovery" in Path(f"/proc/{cluster.istiod.process.pid}/cmdline").read_text(
        encoding="utf-8"
    ).replace("\0", " ")


def test_a_version_is_asked_for_by_word_or_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(**environment: str) -> tuple[str, ...]:
        for name in ("ISTIO", "KRUN_SOAK"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return tuple(map(istio_build.version_of, istio_build.chosen()))

    assert chosen() == (istio_build.NEWEST,)
    assert chosen(ISTIO="older") == (istio_build.OLDER,)
    assert chosen(KRUN_SOAK="1") == istio_build.VERSIONS
    assert chosen(KRUN_SOAK="1", ISTIO="newest") == (istio_build.NEWEST,)
    assert chosen(ISTIO="v0.0.0-20260101000000-0123456789ab") == ("v0.0.0-20260101000000-0123456789ab",)
    with pytest.raises(Missing, match="ISTIO=latest: neither newest nor older nor a version of Go's"):
        chosen(ISTIO="latest")


def test_istiod_goes_and_comes_back_with_the_same_root(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    with (
        cluster.pod("web", namespace=namespace) as web,
        cluster.pod("other", namespace=namespace) as other,
        cluster.network.place() as stranger,
    ):
        mesh_pod.wait_until_served(other.place, web.place.address)
        address = cluster.names.names[f"web.{namespace}.svc.cluster.local"]
        root = cluster.istiod.root()
        cluster.istiod.stop()
        try:
            assert not stranger.listens(istiod.INSIDE, istiod.XDS)
            assert other.call("http://web:8080/", to=address).by == "web"
        finally:
            cluster.istiod.start()
        assert cluster.istiod.root() == root
        cluster.settle(other.place, namespace=namespace, timeout=BACK)
        assert mesh_call.admin(other.place, "/healthz/ready", port=15021).status == 200
