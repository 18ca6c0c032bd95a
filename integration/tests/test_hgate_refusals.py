"""What one namespace declares of another's, by a real API server: an event on the object, no route, token, object."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hgate.kube import open_kube
from hgate.routes import Identity
from krun_testbed import hgate_rounds
from krun_testbed.hgate_rounds import OWN, URL, Rounds
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_client import ApiError

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(180)]

FOREIGN = "https://web-987654321.us-central1.run.app"
HASHED = "https://web-icq63pqnqq-uc.a.run.app"
BLUE = f"https://blue-{OWN}.us-central1.run.app"
PUNYCODE = "https://xn--wb-123456789-9xj.us-central1.run.app"
# What the attacker writes, and a word of what is said of it.
ATTACKS: dict[str, tuple[dict[str, str], str]] = {
    "another": ({"url": URL}, "declared by another namespace first"),
    "another-share": ({"url": f"{BLUE}=99 {URL}=1"}, "declared by another namespace first"),
    "another-case": ({"url": URL.upper()}, "declared by another namespace first"),
    "another-slash": ({"url": f"{URL}/"}, "declared by another namespace first"),
    "another-tag": ({"url": URL.replace("web", "v1---web")}, "declared by another namespace first"),
    "another-form": ({"url": HASHED}, "may not name services of the project with hash icq63pqnqq"),
    "another-dot": ({"url": f"{URL}."}, "ends in a dot"),
    "another-port": ({"url": f"{URL}:443"}, "has a port"),
    "another-space": ({"url": f"{URL}\u00a0"}, "declared by another namespace first"),
    "another-idn": ({"url": URL.replace("web", "w\u0435b")}, "not ASCII"),
    "another-punycode": ({"url": PUNYCODE}, "not of the form of a Cloud Run service"),
    "wide-dots": ({"url": URL.replace(".", "\uff0e")}, "not ASCII"),
    "project": ({"url": FOREIGN}, "may not name services of project 987654321"),
    "audience": ({"url": BLUE, "audience": URL}, "is not that of the URL"),
    "host": ({"url": "https://evil.example"}, "none of Cloud Run's"),
    "host-audience": ({"url": "https://evil.example", "audience": URL}, "none of Cloud Run's"),
    "host-of-another": ({"url": "https://api.example.com"}, "none of Cloud Run's"),
    "look-alike": ({"url": f"{URL}.evil.example"}, "none of Cloud Run's"),
    "look-alike-end": ({"url": "https://evilrun.app"}, "none of Cloud Run's"),
    "look-alike-sub": ({"url": "https://web-123456789.us-central1.evil.run.app"}, "not of the form"),
    "credentials": ({"url": "https://ann:secret@evil.example"}, "credentials"),
    "host-as-credentials": ({"url": f"{URL}@evil.example"}, "credentials"),
    "backslash": ({"url": f"{URL}\\@evil.example"}, "credentials"),
    "path": ({"url": f"{BLUE}/_hbone/22"}, "has a path"),
    "query": ({"url": f"{BLUE}?x"}, "has a path, a query"),
    "fragment": ({"url": f"{BLUE}#x"}, "has a path, a query"),
    "plain": ({"url": BLUE.replace("https", "http")}, "not https"),
    "raw": ({"url": "tcp://10.0.0.1:22"}, "not https"),
    "private": ({"url": "https://10.0.0.1"}, "an address"),
    "metadata": ({"url": "https://169.254.169.254"}, "an address"),
    "metadata-name": ({"url": "https://metadata"}, "no full host name"),
    "number": ({"url": "https://2852039166"}, "an address"),
    "six": ({"url": "https://[::ffff:169.254.169.254]"}, "an address"),
    "weight": ({"url": f"{BLUE}=a"}, "is no number"),
    "weight-low": ({"url": f"{BLUE}=-1"}, "is no number"),
    "weight-float": ({"url": f"{BLUE}=1.5"}, "is no number"),
    "weight-all": ({"url": f"{BLUE}=0"}, "no URL has a weight above 0"),
    "timeout": ({"url": BLUE, "timeout": "1e9"}, "no number of seconds"),
    "account": ({"url": BLUE, "service-account": "../admin"}, "no name"),
    "workload": ({"url": BLUE, "workload": 'x"} evil {'}, "no name"),
    "nothing": ({"url": ""}, "is empty"),
    "many": ({"url": " ".join(f"https://w{number}.example" for number in range(10_000))}, "characters of URLs"),
    "big": ({"url": "a" * 250_000}, "characters of URLs"),
}


@pytest.fixture
def rounds(kubernetes: Kubernetes, namespace: str) -> Rounds:
    """The victim is the first namespace, and has registered its service; the attacker is the second."""
    hgate_rounds.definitions(kubernetes)
    evil = kubernetes.namespace()
    policy = {
        "namespaces": {"*": {"projects": ["own"]}, namespace: {"projects": ["own"], "hosts": {"api.example.com": {}}}}
    }
    made = Rounds(
        kube=open_kube(kubeconfig=str(kubernetes.kubeconfig)), namespaces=(namespace, evil), policy=json.dumps(policy)
    )
    kubernetes.apply(service("web", {"url": URL}), namespace=namespace)
    assert made.run().failed == []
    return made


def service(name: str, said: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": {f"hgate.krun/{key}": value for key, value in said.items()}},
        "spec": {"ports": [{"name": "http", "port": 8080}], "selector": {"app": name}},
    }


def test_each_attack_is_refused_by_an_event_and_has_no_other_effect(kubernetes: Kubernetes, rounds: Rounds) -> None:
    victim, evil = rounds.namespaces
    before = {key: item["metadata"]["resourceVersion"] for key, item in rounds.seen().items() if key[1] == victim}
    assert len(before) == 4
    for name, (said, _) in ATTACKS.items():
        kubernetes.apply(service(name, said), namespace=evil)
    while rounds.run().failed or len(rounds.events(evil)) < len(ATTACKS):
        assert len(rounds.events(evil)) % 25 == 0  # each round tells a few of one namespace
    told = {item["involvedObject"]["name"]: item for item in rounds.events(evil)}
    for name, (_, word) in ATTACKS.items():
        event = told[name]
        assert (event["type"], event["reason"]) == ("Warning", "Refused")
        assert word in event["message"], name
        assert "; " in event["message"]  # and what to do
        assert "secret" not in event["message"]
    result = rounds.result()
    assert [(route.namespace, route.url) for route in result.routes] == [(victim, URL)]
    assert result.identities == {Identity(audience=URL)}
    after = {key: item["metadata"]["resourceVersion"] for key, item in rounds.seen().items() if key[1] == victim}
    assert after == before
    assert [key for key in rounds.seen() if key[1] == evil] == []
    assert rounds.events(victim) == []


def test_an_event_is_told_once_by_all_replicas_together(kubernetes: Kubernetes, rounds: Rounds) -> None:
    evil = rounds.namespaces[1]
    kubernetes.apply(service("web", {"url": FOREIGN}), namespace=evil)
    rounds.run()
    rounds.run()
    other = Rounds(kube=rounds.kube, namespaces=rounds.namespaces, policy=rounds.policy)
    assert other.run().failed == []
    assert len(rounds.events(evil)) == 1


def test_a_declaration_that_becomes_a_refused_one_loses_what_it_had(kubernetes: Kubernetes, rounds: Rounds) -> None:
    evil = rounds.namespaces[1]
    kubernetes.apply(service("blue", {"url": BLUE}), namespace=evil)
    rounds.run()
    assert len([key for key in rounds.seen() if key[1] == evil]) == 4
    kubernetes.apply(service("blue", {"url": URL}), namespace=evil)
    rounds.run()
    assert [key for key in rounds.seen() if key[1] == evil] == []
    assert {route.namespace for route in rounds.result().routes} == {rounds.namespaces[0]}


def test_an_older_object_that_names_a_running_service_later_does_not_get_it(
    kubernetes: Kubernetes, rounds: Rounds
) -> None:
    victim, evil = rounds.namespaces
    kubernetes.apply(service("old", {}), namespace=evil)
    kubernetes.admin.delete(f"/api/v1/namespaces/{victim}/services/web")
    kubernetes.apply(service("web", {"url": URL}), namespace=victim)
    rounds.run()
    kubernetes.apply(service("old", {"url": URL}), namespace=evil)
    # By a replica that has just been started, too.
    for each in (rounds, Rounds(kube=rounds.kube, namespaces=rounds.namespaces, policy=rounds.policy)):
        each.run()
        assert {route.namespace for route in each.result().routes} == {victim}


def test_objects_that_look_like_ours_give_nobody_anything(kubernetes: Kubernetes, rounds: Rounds) -> None:
    victim, evil = rounds.namespaces
    ours = {key: item for key, item in rounds.seen().items() if key[1] == victim}
    for (kind, _, name), item in ours.items():
        copied = {**item, "kind": kind, "metadata": {**item["metadata"], "namespace": evil, "name": name}}
        copied["apiVersion"] = item.get("apiVersion", "v1")
        for word in ("uid", "resourceVersion", "creationTimestamp", "managedFields", "ownerReferences", "generation"):
            copied["metadata"].pop(word, None)
        kubernetes.admin.create(kubernetes.admin.path_of(copied).rpartition("/")[0], copied)
    done = rounds.run()
    # Copies are no longer what was written: they are whoever's has made them.
    assert {key[1] for key in done.kept} == {evil}
    assert done.deleted == 0
    assert {route.namespace for route in rounds.result().routes} == {victim}


def test_a_config_map_full_of_services_is_refused_by_one_event(kubernetes: Kubernetes, rounds: Rounds) -> None:
    evil = rounds.namespaces[1]
    kubernetes.config_map("hgate", {f"web-{number}": URL for number in range(5000)}, namespace=evil)
    rounds.run()
    (event,) = rounds.events(evil)
    assert "5000 services in one config map" in event["message"]
    kubernetes.config_map("hgate", {f"web-{number}": "x" for number in range(900)}, namespace=evil)
    rounds.run()
    assert len(rounds.events(evil)) <= 26


def test_what_is_larger_than_an_annotation_may_be_does_not_even_get_there(
    kubernetes: Kubernetes, rounds: Rounds
) -> None:
    with pytest.raises(ApiError):
        kubernetes.apply(service("bomb", {"url": "a" * 1024 * 1024}), namespace=rounds.namespaces[1])


def rule(name: str, host: str, mode: str) -> dict[str, Any]:
    """Somebody's own DestinationRule."""
    spec = {"host": host, "trafficPolicy": {"tls": {"mode": mode}}}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": name},
        "spec": spec,
    }


def test_who_turns_mutual_tls_off_is_told_at_the_rule_that_does_it(kubernetes: Kubernetes, rounds: Rounds) -> None:
    victim, evil = rounds.namespaces
    host = f"web.{victim}.svc.cluster.local"
    mine = [rule("plain", "web", "DISABLE"), rule("same", host, "ISTIO_MUTUAL"), rule("other", "blue", "DISABLE")]
    before = {item["metadata"]["name"]: item for item in kubernetes.apply(*mine, namespace=victim)}
    kubernetes.apply(rule("theirs", host, "SIMPLE"), namespace=evil)
    for _ in range(2):
        assert rounds.run().failed == []
    told = [event for namespace in (victim, evil) for event in rounds.events(namespace)]
    assert {event["involvedObject"]["name"] for event in told} == {"plain", "theirs"}
    assert {(event["type"], event["reason"]) for event in told} == {("Warning", "NotMutualTLS")}
    for event in told:
        assert f"calls of web.{victim} are not the mesh's mutual TLS" in event["message"]
        assert "ISTIO_MUTUAL" in event["message"]
    # They are people's: nothing is done to them.
    for item in before.values():
        assert kubernetes.admin.get(kubernetes.admin.path_of(item))["metadata"]["uid"] == item["metadata"]["uid"]


def test_a_namespace_has_as_many_services_as_the_admins_allow(kubernetes: Kubernetes, rounds: Rounds) -> None:
    victim, evil = rounds.namespaces
    given = json.loads(rounds.policy or "")
    rounds.policy = json.dumps({"namespaces": {**given["namespaces"], evil: {"projects": ["own"], "limit": 2}}})
    for number in range(4):
        name = f"more-{number}"
        kubernetes.apply(service(name, {"url": BLUE.replace("blue", name)}), namespace=evil)
    rounds.run()
    followed = {route.service for route in rounds.result().routes if route.namespace == evil}
    refused = {event["involvedObject"]["name"]: event["message"] for event in rounds.events(evil)}
    assert (len(followed), len(refused)) == (2, 2)
    assert followed | set(refused) == {f"more-{number}" for number in range(4)}
    assert all("may have 2 services outside" in message for message in refused.values())
    assert [route.service for route in rounds.result().routes if route.namespace == victim] == ["web"]
