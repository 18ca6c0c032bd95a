"""Whether connections are intercepted: every combination of what is asked, in force and possible."""

from __future__ import annotations

import shlex

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_launch.errors import Denied, Misconfigured
from krun_launch.facts import Facts
from krun_launch.interception import NOT_SERVED, choose, quoted, rules_wanted

USER = Facts(envoy="/opt/envoy")
ROOT = USER.but(uid=0, cannot_switch="", cannot_capture="")
RULES = ROOT.but(has_rules=True)
FORBIDS = {"KRUN_FALLBACK": "deny"}
ASKS = {"KRUN_MODE": "captured"}


@pytest.mark.parametrize(
    ("env", "facts", "way", "reason", "second_best"),
    [
        ({}, USER, "whitebox", "no rules of krun-iptables are in force", False),
        ({}, ROOT, "whitebox", "no rules of krun-iptables are in force", False),
        ({}, RULES, "captured", "rules of krun-iptables are in force", False),
        ({"KRUN_INTERCEPTION": "redirect"}, ROOT, "captured", "rules of krun-iptables are in force", False),
        # Whoever says that there are none has looked: chains may be left of another.
        ({"KRUN_INTERCEPTION": "none"}, RULES, "whitebox", "krun-iptables could apply no rules", True),
        ({**ASKS, "KRUN_INTERCEPTION": "redirect"}, ROOT, "captured", "rules of krun-iptables are in force", False),
        (ASKS, RULES, "captured", "rules of krun-iptables are in force", False),
        (FORBIDS, RULES, "captured", "rules of krun-iptables are in force", False),
        ({"KRUN_FALLBACK": "allow"}, ROOT, "whitebox", "no rules of krun-iptables are in force", False),
        ({"KRUN_MODE": "whitebox"}, ROOT, "whitebox", "KRUN_MODE=whitebox", False),
        ({"KRUN_MODE": "whitebox", **FORBIDS}, ROOT, "whitebox", "KRUN_MODE=whitebox", False),
        ({"ISTIO_META_INTERCEPTION_MODE": "NONE"}, ROOT, "whitebox", "ISTIO_META_INTERCEPTION_MODE=NONE", False),
        ({"ISTIO_META_INTERCEPTION_MODE": "REDIRECT"}, RULES, "captured", "rules of krun-iptables are in force", False),
    ],
)
def test_choice(env: dict[str, str], facts: Facts, way: str, reason: str, second_best: bool) -> None:
    found = choose(env, facts=facts)
    assert (found.way, found.reason, found.is_second_best) == (way, reason, second_best)


@pytest.mark.parametrize(
    ("env", "facts", "message"),
    [
        (ASKS, ROOT, "KRUN_MODE=captured: no rules of krun-iptables are in force"),
        ({**ASKS, "KRUN_INTERCEPTION": "none"}, ROOT, "KRUN_MODE=captured: krun-iptables could apply no rules"),
        (ASKS, USER, "KRUN_MODE=captured: not root"),
        (FORBIDS, ROOT, "KRUN_FALLBACK=deny: no rules of krun-iptables are in force"),
        ({**FORBIDS, "KRUN_INTERCEPTION": "none"}, ROOT, "KRUN_FALLBACK=deny: krun-iptables could apply no rules"),
        ({"KRUN_INTERCEPTION": "redirect"}, USER, "rules of krun-iptables are in force, and Envoy cannot listen"),
        ({"KRUN_LOOPBACK": "127.0.0.2"}, RULES, "rules of krun-iptables are in force, and Envoy cannot listen"),
        ({}, RULES.but(cannot_capture="no route"), "rules of krun-iptables are in force, and Envoy cannot listen"),
    ],
)
def test_what_was_asked_for_and_cannot_be_is_not_permitted(env: dict[str, str], facts: Facts, message: str) -> None:
    with pytest.raises(Denied) as caught:
        choose(env, facts=facts)
    assert caught.value.message.startswith(message)
    assert caught.value.hint


@pytest.mark.parametrize("env", [{"KRUN_MODE": "whitebox"}, {"ISTIO_META_INTERCEPTION_MODE": "NONE"}])
def test_rules_that_lead_nowhere_are_a_contradiction(env: dict[str, str]) -> None:
    with pytest.raises(Misconfigured, match="has no listener"):
        choose(env, facts=RULES)


@pytest.mark.parametrize("env", [{"KRUN_INTERCEPTION": "yes"}, {"KRUN_FALLBACK": "no"}])
def test_a_word_that_is_none_is_wrong_usage(env: dict[str, str]) -> None:
    with pytest.raises(click.BadParameter, match="is not one of"):
        choose(env, facts=ROOT)


@pytest.mark.parametrize(
    ("given", "ranges"),
    [
        ("", "240.240.0.0/16"),
        ("10.0.0.0/8, 192.168.0.0/16", "10.0.0.0/8,192.168.0.0/16,240.240.0.0/16"),
        ("240.240.0.0/16", "240.240.0.0/16"),
        ("*", "*"),
    ],
)
def test_rules_always_lead_names_of_the_mesh_to_envoy_and_know_who_envoy_is(given: str, ranges: str) -> None:
    wanted = rules_wanted({"OUTBOUND_IP_RANGES_INCLUDE": given, "PROXY_UID": "7"}, facts=ROOT)
    assert wanted == {"OUTBOUND_IP_RANGES_INCLUDE": ranges, "PROXY_UID": "1337", "PROXY_GID": "1337", **NOT_SERVED}


@pytest.mark.parametrize(
    ("given", "ranges"),
    [("", "10.0.0.0/8,240.240.0.0/16"), ("172.20.0.0/16", "172.20.0.0/16,240.240.0.0/16"), ("*", "*")],
)
@pytest.mark.parametrize("names", ["true", "false"])
def test_with_an_agent_rules_lead_to_it_what_is_asked_of_name_servers(given: str, ranges: str, names: str) -> None:
    env = {"OUTBOUND_IP_RANGES_INCLUDE": given} | ({} if names == "true" else {"ISTIO_META_DNS_CAPTURE": names})
    # No resolver's file has to be written then.
    facts = ROOT.but(cannot_capture="/etc/resolv.conf cannot be written")
    assert rules_wanted(env, facts=facts) == {}
    assert choose({}, facts=facts.but(has_rules=True), has_agent=True).way == "captured"
    assert rules_wanted(env, facts=facts, has_agent=True) == {
        "OUTBOUND_IP_RANGES_INCLUDE": ranges,
        "PROXY_UID": "1337",
        "PROXY_GID": "1337",
        "ISTIO_INBOUND_INTERCEPTION_MODE": "REDIRECT",
        "ISTIO_META_DNS_CAPTURE": names,
    }


def test_beside_dockers_resolver_rules_lead_no_question_to_the_agent_and_the_file_has_to_be_written() -> None:
    dockers = ROOT.but(resolv_conf="nameserver 127.0.0.11\noptions ndots:0\n")
    for env in ({}, {"ISTIO_META_DNS_CAPTURE": "true"}, {"ISTIO_META_DNS_CAPTURE": "false"}):
        assert rules_wanted(env, facts=dockers, has_agent=True)["ISTIO_META_DNS_CAPTURE"] == "false"
    fixed = dockers.but(cannot_capture="/etc/resolv.conf cannot be written")
    assert rules_wanted({}, facts=fixed, has_agent=True) == {}
    with pytest.raises(Denied, match=r"/etc/resolv\.conf cannot be written"):
        rules_wanted(ASKS, facts=fixed, has_agent=True)
    # Who does not want names does not need the file.
    assert rules_wanted({"ISTIO_META_DNS_CAPTURE": "false"}, facts=fixed, has_agent=True)


@pytest.mark.parametrize(
    ("env", "facts"),
    [
        ({"KRUN_MODE": "whitebox"}, ROOT),
        ({"ISTIO_META_INTERCEPTION_MODE": "NONE"}, ROOT),
        ({"KRUN_INTERCEPTION": "redirect"}, ROOT),
        ({"KRUN_LOOPBACK": "127.0.0.2"}, ROOT),
        ({}, USER),
    ],
)
def test_no_rules_are_wanted_where_nobody_would_serve_them(env: dict[str, str], facts: Facts) -> None:
    assert rules_wanted(env, facts=facts) == {}


@pytest.mark.parametrize("env", [ASKS, FORBIDS])
def test_rules_that_are_required_and_cannot_be_served_are_refused_before_any_is_made(env: dict[str, str]) -> None:
    with pytest.raises(Denied, match="not root"):
        rules_wanted(env, facts=USER)


@given(st.text(st.characters(exclude_characters="\0")))
def test_a_quoted_value_is_one_word_of_a_shell(value: str) -> None:
    assert shlex.split(quoted(value)) == [value]
