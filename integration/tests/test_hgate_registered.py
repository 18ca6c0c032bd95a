"""What hgate writes for a declaration, into a real API server: missing things only, its own only, and no more."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hgate import reconcile, written
from hgate.cloud_run import read as read_services
from hgate.kube import open_kube
from krun_testbed import hgate_rounds
from krun_testbed.hgate_rounds import GATE, OWN, URL, Rounds
from krun_testbed.kubernetes import Kubernetes

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]

EUROPE = f"https://web-{OWN}.europe-west1.run.app"
KINDS = ("PeerAuthentication", "Sidecar", "DestinationRule", "WorkloadEntry")


@pytest.fixture(scope="session")
def cluster_api(kubernetes: Kubernetes) -> Kubernetes:
    hgate_rounds.definitions(kubernetes)
    return kubernetes


@pytest.fixture
def rounds(cluster_api: Kubernetes, namespace: str) -> Rounds:
    return Rounds(kube=open_kube(kubeconfig=str(cluster_api.kubeconfig)), namespaces=(namespace,))


def service(name: str = "web", url: str | None = URL, **more: Any) -> dict[str, Any]:
    spec = {"ports": [{"name": "http", "port": 8080}], "selector": {"app": name}}
    annotations = {} if url is None else {"hgate.krun/url": url}
    annotations |= {f"hgate.krun/{key}": value for key, value in more.pop("annotations", {}).items()}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {**spec, **more},
    }


def names(rounds: Rounds) -> list[str]:
    return sorted(f"{kind} {name}" for kind, namespace, name in rounds.seen() if namespace != "istio-system")


def events(rounds: Rounds) -> list[tuple[str, str]]:
    return [(item["reason"], item["message"]) for item in rounds.events(rounds.namespaces[0])]


def test_an_annotated_service_gets_what_the_template_has(cluster_api: Kubernetes, rounds: Rounds) -> None:
    namespace = rounds.namespaces[0]
    (made,) = cluster_api.apply(service(), namespace=namespace)
    done = rounds.run()
    assert (done.failed, done.kept) == ([], [])
    assert names(rounds) == sorted(f"{kind} web" for kind in KINDS)
    entry = rounds.seen()["WorkloadEntry", namespace, "web"]
    assert entry["spec"]["address"] == GATE
    assert entry["spec"]["ports"] == {"http": 15442}
    assert entry["spec"]["labels"]["app"] == "web"
    for (_, where, _), item in rounds.seen().items():
        if where == namespace:
            assert [owner["uid"] for owner in item["metadata"]["ownerReferences"]] == [made["metadata"]["uid"]]


@pytest.mark.parametrize("selector", [True, False])
@pytest.mark.parametrize("url", [URL, f"{URL}=25 {EUROPE}=75"])
def test_what_is_read_back_is_what_was_written_so_a_second_round_does_nothing(
    cluster_api: Kubernetes, rounds: Rounds, selector: bool, url: str
) -> None:
    wanted = service(url=url)
    if not selector:
        del wanted["spec"]["selector"]
    cluster_api.apply(wanted, namespace=rounds.namespaces[0])
    assert rounds.run().is_changed
    for key, item in rounds.seen().items():
        assert written.is_untouched(reconcile.whole(key, item)), key
    done = rounds.run()
    assert not done.is_changed
    assert (done.failed, done.kept) == ([], [])


def test_several_urls_get_a_service_each_and_the_name_their_weights(cluster_api: Kubernetes, rounds: Rounds) -> None:
    namespace = rounds.namespaces[0]
    cluster_api.apply(service(url=f"{URL}=25 {EUROPE}=75"), namespace=namespace)
    rounds.run()
    split = rounds.seen()["VirtualService", namespace, "web"]["spec"]["http"][0]["route"]
    assert [(share["destination"]["host"].partition(".")[0], share["weight"]) for share in split] == [
        ("web-us-central1", 25),
        ("web-europe-west1", 75),
    ]
    routes = {route.service: route.url for route in rounds.result().routes}
    assert routes == {"web-us-central1": URL, "web-europe-west1": EUROPE, "web": EUROPE}


def test_a_changed_declaration_changes_what_follows_from_it(cluster_api: Kubernetes, rounds: Rounds) -> None:
    namespace = rounds.namespaces[0]
    cluster_api.apply(service(), namespace=namespace)
    rounds.run()
    cluster_api.apply(service(annotations={"timeout": "20"}), namespace=namespace)
    done = rounds.run()
    assert (done.created, done.replaced, done.deleted) == (0, 1, 0)
    rule = rounds.seen()["DestinationRule", namespace, "web"]
    assert rule["spec"]["trafficPolicy"]["connectionPool"]["tcp"]["maxConnectionDuration"] == "10s"
    cluster_api.apply(service(url=f"{URL} {EUROPE}"), namespace=namespace)
    rounds.run()
    assert "WorkloadEntry web" not in names(rounds)
    assert "WorkloadEntry web-europe-west1" in names(rounds)
    assert not rounds.run().is_changed


def test_a_declaration_that_goes_takes_what_followed_with_it(cluster_api: Kubernetes, rounds: Rounds) -> None:
    namespace = rounds.namespaces[0]
    cluster_api.apply(service(), service("other", url=EUROPE), namespace=namespace)
    rounds.run()
    cluster_api.apply(service("other", url=None), namespace=namespace)
    rounds.run()
    assert names(rounds) == sorted(f"{kind} web" for kind in KINDS)
    cluster_api.admin.delete(f"/api/v1/namespaces/{namespace}/services/web")
    rounds.run()
    assert names(rounds) == []
    assert rounds.result().routes == ()


def test_nothing_goes_while_its_owner_was_only_not_seen(cluster_api: Kubernetes, rounds: Rounds) -> None:
    namespace = rounds.namespaces[0]
    cluster_api.apply(service(), namespace=namespace)
    rounds.run()
    seen = rounds.seen()
    blind = reconcile.step(rounds.kube, wanted=[], seen=seen, may_delete=True, known=(), has_cloud_run=False)
    assert (blind.deleted, names(rounds)) == (0, sorted(f"{kind} web" for kind in KINDS))


def test_nothing_goes_when_the_gates_address_or_the_policy_is_not_known(
    cluster_api: Kubernetes, rounds: Rounds
) -> None:
    cluster_api.apply(service(), namespace=rounds.namespaces[0])
    rounds.run()
    rounds.gate = ""
    assert not rounds.run().is_changed
    rounds.gate, rounds.policy = GATE, "namespaces: {demo: {project: 1}}"
    assert not rounds.run().is_changed


def test_what_a_person_has_changed_is_never_touched_and_said(cluster_api: Kubernetes, rounds: Rounds) -> None:
    namespace = rounds.namespaces[0]
    cluster_api.apply(service(), namespace=namespace)
    rounds.run()
    rule = rounds.seen()["DestinationRule", namespace, "web"]
    path = f"/apis/networking.istio.io/v1/namespaces/{namespace}/destinationrules/web"
    mine = copy.deepcopy(rule)
    mine["spec"]["trafficPolicy"]["connectionPool"]["tcp"]["maxConnectionDuration"] = "7s"
    cluster_api.admin.request("PUT", path, mine)
    cluster_api.apply(service(annotations={"timeout": "20"}), namespace=namespace)
    done = rounds.run()
    assert done.kept == [("DestinationRule", namespace, "web")]
    assert [reason for reason, _ in events(rounds)] == ["Kept"]
    cluster_api.admin.delete(f"/api/v1/namespaces/{namespace}/services/web")
    rounds.run()
    assert cluster_api.admin.get(path)["spec"] == mine["spec"]
    assert names(rounds) == ["DestinationRule web"]


def test_what_a_person_changes_at_the_last_moment_does_not_go(cluster_api: Kubernetes, rounds: Rounds) -> None:
    namespace = rounds.namespaces[0]
    cluster_api.apply(service(), namespace=namespace)
    rounds.run()
    seen = rounds.seen()
    path = f"/apis/networking.istio.io/v1/namespaces/{namespace}/destinationrules/web"
    change = {"spec": {"host": "elsewhere.example"}}
    cluster_api.admin.request("PATCH", path, change, kind="application/merge-patch+json")
    cluster_api.admin.delete(f"/api/v1/namespaces/{namespace}/services/web")
    done = reconcile.step(rounds.kube, wanted=[], seen=seen, may_delete=True)
    assert (done.deleted, [answer.status for _, answer in done.failed]) == (3, [409])
    assert names(rounds) == ["DestinationRule web"]


def test_who_sees_less_than_there_is_doubles_nothing(cluster_api: Kubernetes, rounds: Rounds) -> None:
    namespace = rounds.namespaces[0]
    cluster_api.apply(service(), namespace=namespace)
    rounds.run()
    before = {key: item["metadata"]["resourceVersion"] for key, item in rounds.seen().items()}
    done = reconcile.step(rounds.kube, wanted=rounds.result().wanted, seen={})
    assert (done.created, done.replaced, done.failed) == (0, 0, [])
    assert {key: item["metadata"]["resourceVersion"] for key, item in rounds.seen().items()} == before


def test_words_that_a_person_adds_to_an_object_are_no_change(cluster_api: Kubernetes, rounds: Rounds) -> None:
    namespace = rounds.namespaces[0]
    cluster_api.apply(service(), namespace=namespace)
    rounds.run()
    path = f"/apis/networking.istio.io/v1/namespaces/{namespace}/destinationrules/web"
    words = {"metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}}}
    cluster_api.admin.request("PATCH", path, words, kind="application/merge-patch+json")
    cluster_api.apply(service(annotations={"timeout": "20"}), namespace=namespace)
    assert rounds.run().replaced == 1
    metadata = cluster_api.admin.get(path)["metadata"]
    assert (metadata["labels"]["team"], metadata["annotations"]["note"]) == ("a", "b")


def test_what_somebody_has_made_already_is_left(cluster_api: Kubernetes, rounds: Rounds) -> None:
    namespace = rounds.namespaces[0]
    rule = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "web"},
        "spec": {"host": "elsewhere.example"},
    }
    cluster_api.apply(rule, service(), namespace=namespace)
    assert rounds.run().failed == []
    assert names(rounds) == sorted(f"{kind} web" for kind in KINDS if kind != "DestinationRule")
    path = f"/apis/networking.istio.io/v1/namespaces/{namespace}/destinationrules/web"
    assert cluster_api.admin.get(path)["spec"] == rule["spec"]
    assert not rounds.run().is_changed


def test_a_sidecar_that_fits_the_workload_is_enough(cluster_api: Kubernetes, rounds: Rounds) -> None:
    namespace = rounds.namespaces[0]
    mine = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Sidecar",
        "metadata": {"name": "mine"},
        "spec": {"workloadSelector": {"labels": {"app": "web"}}, "egress": [{"hosts": ["./*"]}]},
    }
    cluster_api.apply(mine, service(), namespace=namespace)
    rounds.run()
    assert "Sidecar web" not in names(rounds)


def test_the_settings_of_a_namespaces_common_sidecar_hold_in_ours(cluster_api: Kubernetes, rounds: Rounds) -> None:
    namespace = rounds.namespaces[0]
    common = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Sidecar",
        "metadata": {"name": "default"},
        "spec": {"egress": [{"hosts": ["./*"]}], "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}},
    }
    cluster_api.apply(common, service(), namespace=namespace)
    rounds.run()
    spec = rounds.seen()["Sidecar", namespace, "web"]["spec"]
    assert (spec["egress"], spec["outboundTrafficPolicy"]) == ([{"hosts": ["./*"]}], {"mode": "REGISTRY_ONLY"})
    assert spec["ingress"][0]["port"]["number"] == 15003


def test_a_config_map_declares_by_name_and_gets_services_too(cluster_api: Kubernetes, rounds: Rounds) -> None:
    namespace = rounds.namespaces[0]
    cluster_api.apply(service("there", url=None), namespace=namespace)
    cluster_api.config_map("hgate", {"made": URL, "there": EUROPE}, namespace=namespace)
    rounds.run()
    assert {"Service made", "WorkloadEntry made", "WorkloadEntry there"} <= set(names(rounds))
    assert "Service there" not in names(rounds)
    assert rounds.seen()["WorkloadEntry", namespace, "there"]["spec"]["labels"]["app"] == "there"
    cluster_api.config_map("hgate", {"there": EUROPE}, namespace=namespace)
    rounds.run()
    assert "Service made" not in names(rounds)
    assert "WorkloadEntry there" in names(rounds)


def test_the_seeds_template_by_hand_is_a_route_and_no_object(cluster_api: Kubernetes, rounds: Rounds) -> None:
    namespace = rounds.namespaces[0]
    entry = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {"name": "cloudrun-6c3hzwsnla-uc"},
        "spec": {"address": GATE, "ports": {"http": 15442}},
    }
    cluster_api.apply(entry, namespace=namespace)
    assert rounds.result().routes == ()
    rounds.policy = f"namespaces: {{{namespace}: {{hashes: [6c3hzwsnla]}}}}"
    rounds.run()
    (route,) = rounds.result().routes
    assert (route.service, route.url) == ("cloudrun-6c3hzwsnla-uc", "https://cloudrun-6c3hzwsnla-uc.a.run.app")
    assert names(rounds) == []


def listed(namespace: str, *, label: bool = True) -> list[Any]:
    said = {"labels": {"krun-namespace": namespace}} if label else {}
    account = f"k8s-{namespace}@demo-project.iam.gserviceaccount.com"
    return read_services(
        [
            {
                "name": "projects/demo-project/locations/us-central1/services/web",
                "uri": "https://web-6c3hzwsnla-uc.a.run.app",
                "urls": [URL, "https://web-6c3hzwsnla-uc.a.run.app"],
                "template": {"serviceAccount": account, "timeout": "30s"},
                **said,
            }
        ]
    )


@pytest.mark.parametrize("label", [True, False])
def test_the_cloud_run_api_declares_without_any_object(cluster_api: Kubernetes, rounds: Rounds, label: bool) -> None:
    namespace = rounds.namespaces[0]
    rounds.policy = (
        f"namespaces: {{{namespace}: {{projects: [own]}}}}\n"
        "cloudRun: [{project: demo-project, regions: [us-central1]}]"
    )
    assert rounds.result().has_cloud_run is False
    rounds.services = listed(namespace, label=label)
    rounds.run()
    assert names(rounds) == sorted(f"{kind} web" for kind in (*KINDS, "Service"))
    rule = rounds.seen()["DestinationRule", namespace, "web"]
    assert rule["spec"]["trafficPolicy"]["connectionPool"]["tcp"]["maxConnectionDuration"] == "15s"
    # Not known is not gone.
    rounds.services = None
    assert not rounds.run().is_changed
    rounds.services = []
    rounds.run()
    assert names(rounds) == []
