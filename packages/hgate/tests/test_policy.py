"""The admins' map: what is read of it, and what it allows which namespace."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgate import policy, policy_text
from hgate.policy import Accepted, Host, Listed, Policy, check
from hgate.policy_text import PolicyError
from hgate.refusal import Refused
from hgate.routes import Identity
from hgate.service_url import parse

OWN = "111111111"
NUMBERED = "https://web-111111111.us-central1.run.app"
OTHER = "https://web-222222222.us-central1.run.app"
HASHED = "https://web-icq63pqnqq-uc.a.run.app"
TEXT = """
namespaces:
  "*": {projects: [own]}
  demo:
    projects: [222222222]
    hashes: [icq63pqnqq]
    services: ["web*", shop]
    hosts:
      api.example.com: {audience: "https://aud.example"}
      plain.example.com: {audience: ""}
      usual.example.com:
      raw.example.com: {url: "tcp://192.0.2.1:443"}
      moved.example.com: {url: "https://inner.example.com/_hbone/15003"}
    audiences: ["https://extra.example"]
    account: caller@project.iam.gserviceaccount.com
  closed: {}
cloudRun:
  - {project: my-project, regions: [us-central1, europe-west1]}
"""
READ = policy_text.read(TEXT)
ACCOUNT = "caller@project.iam.gserviceaccount.com"


def allowed(url: str, *, namespace: str = "demo", audience: str = "", given: Policy = READ) -> Accepted:
    return check(given.of(namespace), parse(url), namespace=namespace, audience=audience, own=OWN)


def refusal(url: str, *, namespace: str = "demo", audience: str = "") -> str:
    with pytest.raises(Refused) as refused:
        allowed(url, namespace=namespace, audience=audience)
    assert "admin" in refused.value.hint
    return refused.value.reason


def test_the_whole_of_it_is_read() -> None:
    rule = READ.of("demo")
    assert rule.projects == {"222222222"}
    assert rule.services == ("web*", "shop")
    assert rule.hosts["usual.example.com"] == Host(audience="https://usual.example.com")
    assert READ.cloud_run == (Listed(project="my-project", regions=("us-central1", "europe-west1")),)


def test_without_a_map_each_namespace_may_name_the_gates_own_project() -> None:
    assert allowed(NUMBERED, given=policy.DEFAULT).identity == Identity(audience=NUMBERED)
    with pytest.raises(Refused):
        allowed(OTHER, given=policy.DEFAULT)


def test_an_own_project_that_is_not_known_is_nobodys() -> None:
    with pytest.raises(Refused):
        check(policy.DEFAULT.of("demo"), parse(HASHED), namespace="demo", own="")


def test_a_namespaces_own_rule_takes_the_place_of_the_common_one() -> None:
    assert refusal(NUMBERED) == "namespace demo may not name services of project 111111111"
    assert refusal(NUMBERED, namespace="closed")
    assert allowed(NUMBERED, namespace="elsewhere").identity == Identity(audience=NUMBERED)


def test_projects_and_hashes_open_their_services_as_the_namespaces_account() -> None:
    assert allowed(OTHER) == Accepted(url=OTHER, identity=Identity(audience=OTHER, account=ACCOUNT))
    assert allowed(HASHED) == Accepted(url=HASHED, identity=Identity(audience=HASHED, account=ACCOUNT))


def test_only_services_of_the_listed_names_may_be_declared() -> None:
    assert allowed("https://web-blue-222222222.us-central1.run.app")
    assert "may not name the service 'bank'" in refusal("https://bank-222222222.us-central1.run.app")
    assert refusal("https://myweb-222222222.us-central1.run.app")


def test_a_tags_token_is_made_for_its_service() -> None:
    accepted = allowed("https://v1---web-222222222.us-central1.run.app")
    assert accepted.url == "https://v1---web-222222222.us-central1.run.app"
    assert accepted.identity is not None
    assert accepted.identity.audience == OTHER


def test_a_foreign_audience_is_refused_and_one_of_the_map_is_not() -> None:
    assert "audience" in refusal(OTHER, audience="https://victim-222222222.us-central1.run.app")
    accepted = allowed(OTHER, audience="https://extra.example")
    assert accepted.identity == Identity(audience="https://extra.example", account=ACCOUNT)
    assert allowed(OTHER, audience=OTHER).identity == Identity(audience=OTHER, account=ACCOUNT)


def test_hosts_that_are_not_cloud_runs_come_from_the_map_alone() -> None:
    assert allowed("https://api.example.com").identity == Identity(audience="https://aud.example", account=ACCOUNT)
    assert "audience" in refusal("https://api.example.com", audience=OTHER)
    for text in ("https://other.example.com", "https://x.run.app.evil.com", "https://evilrun.app"):
        assert "none of Cloud Run's" in refusal(text)
    assert refusal("https://api.example.com", namespace="elsewhere")


def test_a_host_without_an_audience_gets_no_token() -> None:
    assert allowed("https://plain.example.com") == Accepted(url="https://plain.example.com", identity=None)
    assert "no token is sent" in refusal("https://plain.example.com", audience=OTHER)


def test_the_map_may_lead_a_host_elsewhere_and_raw() -> None:
    assert allowed("https://raw.example.com") == Accepted(url="tcp://192.0.2.1:443", identity=None)
    assert allowed("https://moved.example.com").url == "https://inner.example.com/_hbone/15003"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "policy: is not a mapping"),
        ("namespaces: []", "namespaces: is not a mapping"),
        ("namespace: {}", "'namespace' is not one of"),
        ("namespaces: {demo: {project: [own]}}", "'project' is not one of"),
        ("namespaces: {Demo: {}}", "is no namespace"),
        ("namespaces: {demo: {projects: own}}", "is no list"),
        ("namespaces: {demo: {projects: [my-project]}}", "a project's number or own"),
        ("namespaces: {demo: {projects: [true]}}", "a project's number or own"),
        ("namespaces: {demo: {hashes: ['*']}}", "a hash"),
        ("namespaces: {demo: {services: ['web.+']}}", "a name or a pattern"),
        ("namespaces: {demo: {account: me@gmail.com}}", "no email of a service account"),
        ("namespaces: {demo: {hosts: {'*.example.com': {}}}}", "no full host name"),
        ("namespaces: {demo: {hosts: {10.0.0.1: {}}}}", "an address"),
        ("namespaces: {demo: {hosts: {a.example: {url: 'ftp://a'}}}}", "scheme"),
        ("namespaces: {demo: {hosts: {a.example: {url: 'tcp://a:1', audience: b}}}}", "carry no token"),
        ("namespaces: {demo: {hosts: {a.example: {audience: 7}}}}", "no audience"),
        ("namespaces: {demo: {limit: many}}", "no number of services"),
        ("namespaces: {demo: {limit: -1}}", "no number of services"),
        ("namespaces: {demo: {limit: true}}", "no number of services"),
        ("namespaces: {demo: {}, demo: {}}", "stands twice"),
        ("cloudRun: [{project: p-one}]", "no regions"),
        ("cloudRun: [{project: p-one, regions: [moon]}]", "a region"),
        ("namespaces: {demo: {projects: [own]", "not YAML"),
        ("a: !!python/object/apply:os.system [true]", "not YAML"),
        ("[" * 3000, "not YAML"),
    ],
)
def test_a_map_with_a_word_that_is_not_known_is_refused_as_a_whole(text: str, why: str) -> None:
    with pytest.raises(PolicyError, match=why):
        policy_text.read(text)


@pytest.mark.parametrize("text", ["", "# only words\n", "namespaces:\n", "namespaces: {demo: }"])
def test_an_empty_map_allows_nothing(text: str) -> None:
    with pytest.raises(Refused):
        check(policy_text.read(text).of("demo"), parse(NUMBERED), namespace="demo", own=OWN)


@given(st.text(max_size=200))
def test_no_text_is_more_than_refused(text: str) -> None:
    with contextlib.suppress(PolicyError):
        policy_text.read(text)


def test_who_is_given_a_service_by_name_is_known() -> None:
    assert READ.claims().of(parse(OTHER), project="222222222", own=OWN) == {"demo"}
    assert READ.claims().of(parse("https://api.example.com"), project="", own=OWN) == {"demo"}
    assert READ.claims().of(parse(NUMBERED), project="111111111", own=OWN) == frozenset()
