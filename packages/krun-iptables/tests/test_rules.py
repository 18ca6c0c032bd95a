from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from krun_iptables.rules import CHAINS, Rule, chains, rules
from krun_iptables.settings import Settings, settings

ports = st.lists(st.integers(1, 65535), max_size=5).map(lambda some: ",".join(map(str, some)))
ids = st.lists(st.integers(0, 2**32 - 2), min_size=1, max_size=3).map(lambda some: ",".join(map(str, some)))
ranges = st.lists(
    st.sampled_from(["*", "10.0.0.0/8", "172.16.0.0/12", "192.168.1.0/24", "240.240.0.0/16"]), min_size=1
).map(",".join)
any_settings = st.builds(
    settings,
    include=ranges,
    exclude_ports=ports,
    inbound_ports=ports | st.just("*"),
    inbound_exclude_ports=ports,
    proxy_uid=ids,
    proxy_gid=ids,
    exempt_gid=ids | st.just(""),
)


def texts(decided: Settings) -> list[str]:
    return [rule.text for rule in rules(decided)]


def test_the_default_rules() -> None:
    assert texts(settings()) == [
        "ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
        "OUTPUT -j ISTIO_OUTPUT",
        "ISTIO_OUTPUT -p tcp -m tcp --dport 15008 -j RETURN",
        "ISTIO_OUTPUT -p tcp -m tcp --dport 15009 -j RETURN",
        "ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN",
        "ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN",
        "ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN",
        "ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN",
        "ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN",
        "ISTIO_OUTPUT -d 127.0.0.0/8 -j RETURN",
        "ISTIO_OUTPUT -d 10.0.0.0/8 -j ISTIO_REDIRECT",
    ]


def test_all_rules_at_once_stand_in_istios_order() -> None:
    decided = settings(
        include="*,192.168.0.0/16", exclude_ports="22", inbound_ports="*", inbound_exclude_ports="23", exempt_gid="7"
    )
    inward = "-p tcp -m tcp --dport {} -j RETURN"
    own = "ISTIO_OUTPUT ! -d 127.0.0.0/8 -o lo -p tcp -m tcp ! --dport 15008 -m owner"
    assert texts(decided) == [
        "ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
        "ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006",
        "PREROUTING -p tcp -j ISTIO_INBOUND",
        *(f"ISTIO_INBOUND {inward.format(port)}" for port in (23, 15008, 15009, 15019, 15020, 15021, 15090)),
        "ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT",
        "OUTPUT -j ISTIO_OUTPUT",
        *(f"ISTIO_OUTPUT {inward.format(port)}" for port in (22, 15008, 15009)),
        "ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN",
        f"{own} --uid-owner 1337 -j ISTIO_IN_REDIRECT",
        "ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN",
        "ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN",
        f"{own} --gid-owner 1337 -j ISTIO_IN_REDIRECT",
        "ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN",
        "ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN",
        "ISTIO_OUTPUT -m owner --gid-owner 7 -j RETURN",
        "ISTIO_OUTPUT -d 127.0.0.0/8 -j RETURN",
        "ISTIO_OUTPUT -j ISTIO_REDIRECT",
        "ISTIO_OUTPUT -d 192.168.0.0/16 -j ISTIO_REDIRECT",
    ]


def test_named_ports_alone_are_intercepted_inwards() -> None:
    found = [rule for rule in texts(settings(inbound_ports="8080,15009")) if rule.startswith("ISTIO_INBOUND")]
    assert found[-2:] == [
        "ISTIO_INBOUND -p tcp -m tcp --dport 8080 -j ISTIO_IN_REDIRECT",
        "ISTIO_INBOUND -p tcp -m tcp --dport 15009 -j ISTIO_IN_REDIRECT",
    ]
    # What is always excluded stays so, as it stands before.
    assert found.index("ISTIO_INBOUND -p tcp -m tcp --dport 15009 -j RETURN") < len(found) - 2


@given(any_settings)
def test_every_rule_has_a_reason_that_fits_one_line(decided: Settings) -> None:
    for rule in rules(decided):
        assert rule.reason
        assert rule.reason.isprintable()


@given(any_settings)
def test_every_rule_is_made_of_valid_words(decided: Settings) -> None:
    for rule in rules(decided):
        assert rule.chain in (*CHAINS, "OUTPUT", "PREROUTING")
        assert rule.target[0] in ("RETURN", "REDIRECT", *CHAINS)
        assert all(1 <= int(port) <= 65535 for port in re.findall(r"--(?:dport|to-ports) (\S+)", rule.text))
        assert all(0 <= int(number) < 2**32 - 1 for number in re.findall(r"-owner (\S+)", rule.text))


@given(any_settings)
def test_a_connection_returns_before_it_is_redirected(decided: Settings) -> None:
    out = [rule for rule in rules(decided) if rule.chain == "ISTIO_OUTPUT"]
    first = next(at for at, rule in enumerate(out) if rule.target == ("ISTIO_REDIRECT",))
    assert all(rule.target == ("ISTIO_REDIRECT",) for rule in out[first:])
    assert "-d 127.0.0.0/8 -j RETURN" in out[first - 1].text
    excluded = {f"ISTIO_OUTPUT -p tcp -m tcp --dport {port} -j RETURN" for port in decided.exclude_ports}
    assert excluded <= {rule.text for rule in out[:first]}


@given(any_settings)
def test_every_chain_is_led_to_and_no_rule_leads_to_a_chain_that_is_not_there(decided: Settings) -> None:
    found = rules(decided)
    led_to = {rule.target[0] for rule in found if rule.target[0] in CHAINS}
    assert led_to == set(chains(found))


@given(any_settings)
def test_nothing_concerns_incoming_connections_unless_they_are_asked_for(decided: Settings) -> None:
    concerned: list[Rule] = [rule for rule in rules(decided) if rule.chain == "PREROUTING" or "ISTIO_IN" in rule.text]
    assert bool(concerned) == decided.captures_inbound
