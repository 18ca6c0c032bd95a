"""All declarations of a cluster together: what is followed, what is refused, and whose a Cloud Run service is."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgate.cloud_run import read as read_services
from hgate.registration import Registry, Result
from hgate.routes import Identity

OWN = "123456789"
GATE = "10.1.2.3"


def url(name: str = "web", *, project: str = OWN, region: str = "us-central1") -> str:
    return f"https://{name}-{project}.{region}.run.app"


def service(
    name: str, declared: str | None, *, namespace: str = "demo", created: int = 1, **annotations: str
) -> dict[str, Any]:
    said = {f"hgate.krun/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{namespace}-{name}",
            "creationTimestamp": f"2026-01-01T00:{created // 60:02}:{created % 60:02}Z",
            "annotations": said if declared is None else {**said, "hgate.krun/url": declared},
        },
        "spec": {"ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "selector": {"app": name}},
    }


def config_map(data: dict[str, str], *, namespace: str = "demo", created: int = 1) -> dict[str, Any]:
    made = service("hgate", None, namespace=namespace, created=created)
    return {**made, "kind": "ConfigMap", "data": data}


def registry(*items: dict[str, Any], policy: str | None = None) -> Registry:
    made = Registry(policy, GATE, OWN)
    for item in items:
        made.put(item["kind"], item)
    return made


def led(result: Result) -> dict[str, str]:
    return {f"{route.service}.{route.namespace}": route.url for route in result.routes}


def why(result: Result) -> dict[str, str]:
    return {f"{each.ref.name}.{each.ref.namespace}": each.reason for each in result.refused}


def test_a_declared_service_has_a_route_objects_and_an_identity() -> None:
    result = registry(service("web", url())).result()
    assert led(result) == {"web.demo": url()}
    assert result.identities == {Identity(audience=url())}
    kinds = [item["kind"] for item in result.wanted]
    assert kinds == ["ConfigMap", "PeerAuthentication", "Sidecar", "DestinationRule", "WorkloadEntry"]
    assert (result.refused, result.is_settled) == ([], True)


def test_what_declares_nothing_is_nothing() -> None:
    result = registry(service("web", None), service("other", None, timeout="20")).result()
    assert (result.routes, result.wanted, result.refused) == ((), [], [])


def test_a_declaration_that_goes_is_forgotten_and_one_that_comes_back_is_there_again() -> None:
    made = registry(service("web", url()))
    made.put("Service", service("web", None))
    assert made.result().routes == ()
    made.put("Service", service("web", url()))
    made.drop("Service", "demo", "web")
    assert made.result().routes == ()
    made.put("Service", service("web", url()))
    assert led(made.result()) == {"web.demo": url()}


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ("", "is empty"),
        ("https://user:pass@web-1.run.app", "credentials"),
        (f"{url()} {url()}", "stands there twice"),
        (f"{url()} {url().upper().replace('HTTPS', 'https')}", "stands there twice"),
        (f"{url()}=25 {url('b')}", "some URLs have weights"),
        (f"{url()}=many {url('b')}=1", "is no number"),
        (f"{url()}=-1", "is no number"),
        (f"{url()}=1e3", "is no number"),
        (f"{url()}=٣", "is no number"),  # a digit, but none of ours
        (f"{url()}=99999", "is no number"),
        (f"{url()}=0 {url('b')}=0", "no URL has a weight above 0"),
        (" ".join(url(f"web{number}") for number in range(17)), "17 URLs"),
        (" ".join(url(f"web{number}") for number in range(10_000)), "characters of URLs"),
        ("a" * 1024 * 1024, "characters of URLs"),
    ],
)
def test_a_text_that_is_no_declaration_is_refused_and_others_are_unaffected(declared: str, reason: str) -> None:
    result = registry(service("web", declared), service("good", url("good"))).result()
    assert reason in why(result)["web.demo"]
    assert led(result) == {"good.demo": url("good")}
    assert all(len(each.reason) + len(each.hint) < 500 for each in result.refused)


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ({"timeout": "0"}, "no number of seconds"),
        ({"timeout": "3601"}, "no number of seconds"),
        ({"timeout": "5m"}, "no number of seconds"),
        ({"workload": "../x"}, "no name"),
        ({"service_account": "A B"}, "no name"),
        ({"audience": "two words"}, "no audience"),
        ({"audience": "https://victim-123456789.us-central1.run.app"}, "not that of the URL"),
    ],
)
def test_an_annotation_that_is_not_of_its_form_refuses_the_whole(annotations: dict[str, str], reason: str) -> None:
    result = registry(service("web", url(), **annotations)).result()
    assert reason in why(result)["web.demo"]
    assert (result.routes, result.identities) == ((), frozenset())


def test_services_that_cannot_lead_outside_are_refused() -> None:
    external, headless, datagrams, several = (service(name, url(name)) for name in ("a", "b", "c", "d"))
    external["spec"] = {"type": "ExternalName", "externalName": "x.example"}
    headless["spec"]["clusterIP"] = "None"
    datagrams["spec"]["ports"][0]["protocol"] = "UDP"
    several["spec"]["ports"] = [{"port": 1, "name": "a", "targetPort": 1}, {"port": 2, "name": "b", "targetPort": 2}]
    result = registry(external, headless, datagrams, several).result()
    assert sorted(why(result)) == ["a.demo", "b.demo", "c.demo", "d.demo"]
    assert result.routes == ()


def test_of_two_that_declare_one_name_the_older_stays() -> None:
    result = registry(service("web", url("a"), created=1), config_map({"web": url("b")}, created=2)).result()
    assert led(result) == {"web.demo": url("a")}
    assert "another declaration" in why(result)["hgate.demo"]


def test_two_that_say_the_same_are_no_conflict() -> None:
    result = registry(service("web", url()), config_map({"web": url()}, created=2)).result()
    assert (led(result), result.refused) == ({"web.demo": url()}, [])


def test_a_service_of_somebody_else_is_not_taken_for_a_share() -> None:
    shares = f"{url()} {url(region='europe-west1')}"
    result = registry(service("shop", shares), service("shop-web-us-central1", None)).result()
    assert "is there, and says nothing of the gate" in why(result)["shop.demo"]
    assert result.routes == ()


def test_a_cloud_run_service_is_of_who_declared_it_first_whatever_is_older() -> None:
    made = registry(service("web", url(), created=50))
    assert led(made.result()) == {"web.demo": url()}
    # An old Service that gets our annotation now.
    made.put("Service", service("mine", url(), namespace="evil", created=1))
    result = made.result()
    assert led(result) == {"web.demo": url()}
    assert "declared by another namespace first" in why(result)["mine.evil"]
    # And after a restart: the claims are read back.
    claims = next(item for item in result.wanted if item["metadata"]["name"] == "hgate-claims")
    again = registry(claims, service("mine", url(), namespace="evil", created=1), service("web", url(), created=50))
    assert led(again.result()) == {"web.demo": url()}
    # Until its owner lets it go.
    again.drop("Service", "demo", "web")
    assert led(again.result()) == {"mine.evil": url()}


def test_case_and_tags_make_no_other_service_of_it() -> None:
    for trick in (url().upper().replace("HTTPS", "https"), f"https://v1---web-{OWN}.us-central1.run.app", f"{url()}/"):
        result = registry(
            service("web", url(), created=1), service("mine", trick, namespace="evil", created=2)
        ).result()
        assert led(result) == {"web.demo": url()}
        assert result.identities == {Identity(audience=url())}


def test_two_services_of_one_namespace_may_lead_to_one_of_cloud_run() -> None:
    result = registry(service("web", url()), service("same", url(), created=2)).result()
    assert led(result) == {"web.demo": url(), "same.demo": url()}
    sidecars = [item for item in result.wanted if item["kind"] == "Sidecar"]
    assert [len(item["metadata"]["ownerReferences"]) for item in sidecars] == [2]


def test_what_admins_give_by_name_is_of_that_namespace_alone() -> None:
    policy = 'namespaces: {"*": {projects: [own]}, bank: {projects: [own], services: ["pay*"]}}'
    thief, owner = (
        service("mine", url("pay"), namespace="evil"),
        service("pay", url("pay"), namespace="bank", created=9),
    )
    result = registry(thief, owner, policy=policy).result()
    assert led(result) == {"pay.bank": url("pay")}
    assert "given to another namespace" in why(result)["mine.evil"]
    # Also while its owner declares nothing.
    assert registry(thief, policy=policy).result().routes == ()


def row(name: str = "web", *, label: str = "", account: str = "", hash_: str = "icq63pqnqq") -> dict[str, Any]:
    return {
        "name": f"projects/demo-project/locations/us-central1/services/{name}",
        "uri": f"https://{name}-{hash_}-uc.a.run.app",
        "urls": [url(name), f"https://{name}-{hash_}-uc.a.run.app"],
        "labels": {"krun-namespace": label} if label else {},
        "template": {"serviceAccount": account, "timeout": "60s"},
    }


LISTING = 'namespaces: {"*": {projects: [own]}}\ncloudRun: [{project: demo-project, regions: [us-central1]}]'


@pytest.mark.parametrize("said", [{"label": "demo"}, {"account": "k8s-demo@demo-project.iam.gserviceaccount.com"}])
def test_what_the_api_says_of_a_service_decides_whose_it_is(said: dict[str, str]) -> None:
    made = registry(service("mine", url(), namespace="evil"), policy=LISTING)
    made.cloud_run(read_services([row(**said)]))
    result = made.result()
    assert led(result) == {"web.demo": url()}
    assert "says that it is of another namespace" in why(result)["mine.evil"]


def test_both_forms_of_a_url_are_one_service_where_the_api_says_so() -> None:
    hashed = "https://web-icq63pqnqq-uc.a.run.app"
    made = registry(
        service("web", url(), created=1), service("mine", hashed, namespace="evil", created=2), policy=LISTING
    )
    made.cloud_run(read_services([row()]))
    result = made.result()
    assert led(result) == {"web.demo": url()}
    assert "declared by another namespace first" in why(result)["mine.evil"]


def test_both_forms_may_be_one_service_where_nobody_says_so() -> None:
    policy = 'namespaces: {"*": {projects: [own], hashes: [icq63pqnqq]}}'
    hashed = "https://web-icq63pqnqq-uc.a.run.app"
    for first, second in ((url(), hashed), (hashed, url())):
        made = registry(
            service("web", first, created=1), service("mine", second, namespace="evil", created=2), policy=policy
        )
        result = made.result()
        assert led(result) == {"web.demo": first}
        assert "it may be this one" in why(result)["mine.evil"]
    # To one namespace that is no matter.
    assert len(registry(service("a", url()), service("b", hashed), policy=policy).result().routes) == 2


def test_a_service_that_its_namespace_declares_itself_is_not_declared_twice_by_the_api() -> None:
    made = registry(service("shop", url()), policy=LISTING)
    made.cloud_run(read_services([row(label="demo")]))
    assert led(made.result()) == {"shop.demo": url()}


def test_others_cannot_keep_the_api_from_declaring_by_naming_its_service() -> None:
    made = registry(service("mine", url(), namespace="evil"), policy=LISTING)
    made.cloud_run(read_services([row(label="demo")]))
    assert led(made.result()) == {"web.demo": url()}


def test_the_api_does_not_take_a_name_that_somebodys_service_has() -> None:
    made = registry(service("web", None), policy=LISTING)
    made.cloud_run(read_services([row(label="demo")]))
    result = made.result()
    assert result.routes == ()
    assert "says nothing of the gate" in result.refused[0].reason


def test_services_of_a_project_that_the_policy_does_not_list_are_not_taken() -> None:
    made = registry(policy='namespaces: {"*": {projects: [own]}}')
    made.cloud_run(read_services([row(label="demo")]))
    assert made.result().routes == ()


@pytest.mark.parametrize("good", [None, 'namespaces: {"*": {projects: [own]}}'])
def test_a_policy_that_cannot_be_read_leaves_the_last_good_one_in_force(good: str | None) -> None:
    made = registry(service("web", url()))
    made.policy(good)
    made.policy("namespaces: [")
    result = made.result()
    assert led(result) == {"web.demo": url()}
    assert "not YAML" in result.policy_error
    assert result.is_settled


def test_a_first_policy_that_cannot_be_read_allows_nothing_and_deletes_nothing() -> None:
    made = registry(service("web", url()), policy="namespaces: [")
    result = made.result()
    assert (result.routes, result.wanted, result.is_settled) == ((), [], False)


def test_whether_there_is_a_policy_may_be_unknown_and_then_the_default_is_none() -> None:
    made = registry(service("web", url()))
    made.policy_unknown("RBAC does not let us look")
    result = made.result()
    assert (result.routes, result.wanted, result.refused, result.is_settled) == ((), [], [], False)
    assert "RBAC" in result.policy_error
    made = registry(service("web", url()))
    made.policy("namespaces: [")
    assert (made.result().routes, made.result().is_settled) == ((), False)
    # One that was read stays in force, and so does that there is none.
    made.policy('namespaces: {"*": {projects: [own]}}')
    made.policy_unknown("RBAC does not let us look any more")
    assert led(made.result()) == {"web.demo": url()}


def test_an_own_project_that_is_not_known_deletes_nothing_and_says_so() -> None:
    made = Registry(None, GATE, "")
    made.put("Service", service("web", url()))
    result = made.result()
    assert (result.routes, result.is_settled) == ((), False)
    assert "does not know which" in why(result)["web.demo"]
    made.project(OWN)
    assert led(made.result()) == {"web.demo": url()}
    assert made.result().is_settled
    # Where nothing depends on it, it need not be known.
    assert Registry(f"namespaces: {{demo: {{projects: ['{OWN}']}}}}", GATE, "").result().is_settled


def test_what_is_being_deleted_declares_nothing_more() -> None:
    leaving = service("web", url())
    leaving["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    result = registry(leaving).result()
    assert (result.routes, result.wanted) == ((), [])
    assert "uid-demo-web" in result.known


def test_only_what_matters_makes_a_new_result() -> None:
    made = registry(service("web", url()), service("other", None))
    before = made.result()
    for item in before.wanted:
        made.put(item["kind"], item)  # as the server tells it back
    changed = service("other", None)
    changed["metadata"]["resourceVersion"] = "7"
    changed["status"] = {"loadBalancer": {}}
    made.put("Service", changed)
    made.put("WorkloadEntry", {**service("x", None), "spec": {"address": "10.0.0.1", "ports": {"http": 80}}})
    made.gate(GATE)
    made.project(OWN)
    assert made.result() is before
    for change in (
        lambda: made.put("Service", service("blue", url("blue"))),
        lambda: made.put("Service", service("web", url(), timeout="20")),
        lambda: made.put("Service", service("plain", None)),
        lambda: made.drop("Service", "demo", "plain"),
        lambda: made.put("Sidecar", {**service("mine", None), "kind": "Sidecar", "spec": {"egress": []}}),
        lambda: made.policy("namespaces: {}"),
        lambda: made.gate("10.3.3.3"),
    ):
        before = made.result()
        change()
        assert made.result() is not before


def test_the_first_of_many_is_whole_before_the_second_begins() -> None:
    result = registry(*(service(f"web-{number}", url(f"web-{number}"), created=number) for number in range(9))).result()
    names = [item["metadata"]["name"] for item in result.wanted[1:]]
    assert names == [f"web-{number}" for number in range(9) for _ in range(4)]


def foreign(host: str, policy: Any, *, namespace: str = "demo", **spec: Any) -> dict[str, Any]:
    made = service("mine", None, namespace=namespace)
    return {**made, "kind": "DestinationRule", "spec": {"host": host, "trafficPolicy": policy, **spec}}


OFF = {"tls": {"mode": "DISABLE"}}
WEB = "web.demo.svc.cluster.local"


@pytest.mark.parametrize(
    ("rule", "is_told"),
    [
        (foreign("web", OFF), True),
        (foreign(WEB, OFF), True),
        (foreign(WEB, {"tls": {}}), True),  # which is DISABLE to Istio
        (foreign(WEB, {"portLevelSettings": [{"port": {"number": 8080}, "tls": {"mode": "SIMPLE"}}]}), True),
        (foreign(WEB, None, subsets=[{"name": "v1", "trafficPolicy": OFF}]), True),
        (foreign(WEB, OFF, namespace="other"), True),
        (foreign("*.demo.svc.cluster.local", OFF, namespace="other"), True),
        # Istio finds ours first, or it is another's host, or it says nothing against mutual TLS.
        (foreign("*.demo.svc.cluster.local", OFF), False),
        (foreign("*", OFF, namespace="istio-system"), False),
        (foreign(WEB, OFF, namespace="istio-system"), False),
        (foreign("web", OFF, namespace="other"), False),
        (foreign("web.demo", OFF), False),
        (foreign("shop", OFF), False),
        (foreign(WEB, {"tls": {"mode": "ISTIO_MUTUAL"}}), False),
        (foreign(WEB, {"connectionPool": {}}), False),
        (foreign(WEB, None), False),
    ],
)
def test_a_rule_that_takes_mutual_tls_from_our_calls_is_told_and_no_other(rule: dict[str, Any], is_told: bool) -> None:
    made = registry(service("web", url()), rule)
    result = made.result()
    assert [each.ref.name for each in result.hindered] == ["mine"] * is_told
    assert result.refused == []
    assert led(result) == {"web.demo": url()}
    made.drop("DestinationRule", rule["metadata"]["namespace"], "mine")
    assert made.result().hindered == []


def test_of_more_services_than_a_namespace_may_have_the_oldest_are_followed() -> None:
    policy = 'namespaces: {"*": {projects: [own]}, demo: {projects: [own], limit: 3}}'
    items = [service(f"web-{number}", url(f"web-{number}"), created=9 - number) for number in range(4)]
    both = service("pair", f"{url('a')}=1 {url('b')}=1", created=1)  # three in the mesh: itself, and one for each
    elsewhere = [service(f"far-{number}", url(f"far-{number}"), namespace="far") for number in range(4)]
    result = registry(*items, *elsewhere, policy=policy).result()
    assert {name for name in led(result) if name.endswith(".demo")} == {"web-3.demo", "web-2.demo", "web-1.demo"}
    assert why(result) == {"web-0.demo": "the namespace may have 3 services outside"}
    assert len([name for name in led(result) if name.endswith(".far")]) == 4
    result = registry(*items, both, policy=policy).result()
    assert {name.partition("-")[0] for name in led(result)} == {"pair", "pair.demo"}
    assert set(why(result)) == {f"web-{number}.demo" for number in range(4)}


def test_a_policy_that_takes_a_right_away_takes_routes_and_objects() -> None:
    made = registry(service("web", url()))
    made.policy("namespaces: {}")
    result = made.result()
    assert (result.routes, result.wanted) == ((), [])
    assert "may not name services of project" in why(result)["web.demo"]
    assert result.is_settled


def test_without_the_gates_address_there_are_routes_and_no_objects() -> None:
    made = Registry(None, "", OWN)
    made.put("Service", service("web", url()))
    result = made.result()
    assert (led(result), result.wanted, result.is_settled) == ({"web.demo": url()}, [], False)
    made.gate(GATE)
    assert made.result().is_settled


NAMES = st.sampled_from(["web", "pay", "shop"])
SPACES = st.sampled_from(["a", "b", "c"])
URLS = st.sampled_from([url("web"), url("pay"), url("pay", region="europe-west1"), "https://evil.example", "http://x"])


@given(st.lists(st.tuples(SPACES, NAMES, URLS, st.integers(0, 99)), max_size=12), st.randoms(use_true_random=False))
def test_no_order_of_arrival_changes_what_follows(rows: list[tuple[str, str, str, int]], chance: random.Random) -> None:
    found = {}
    for space, name, target, created in rows:
        found[space, name] = service(name, target, namespace=space, created=created)
    items = list(found.values())
    one = registry(*items).result()
    chance.shuffle(items)
    other = registry(*items).result()
    assert led(one) == led(other)
    assert why(one) == why(other)


@given(st.lists(st.tuples(SPACES, NAMES, URLS, st.booleans()), max_size=25))
def test_no_cloud_run_service_is_ever_of_two_namespaces_nor_changes_hands_while_it_is_declared(
    steps: list[tuple[str, str, str, bool]],
) -> None:
    made = registry()
    owner: dict[str, str] = {}
    declared: dict[tuple[str, str], str] = {}
    for number, (space, name, target, is_there) in enumerate(steps):
        if is_there:
            declared[space, name] = target
            made.put("Service", service(name, target, namespace=space, created=99 - number))
        else:
            declared.pop((space, name), None)
            made.drop("Service", space, name)
        now: dict[str, set[str]] = {}
        for route in made.result().routes:
            now.setdefault(route.url, set()).add(route.namespace)
        assert all(len(spaces) == 1 for spaces in now.values())
        for place, space_before in owner.items():
            if any(each == place for (space_, _), each in declared.items() if space_ == space_before):
                assert now[place] == {space_before}
        owner = {place: next(iter(spaces)) for place, spaces in now.items()}
