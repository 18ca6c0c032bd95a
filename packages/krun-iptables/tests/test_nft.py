"""The text for nft: Istio's layout, from the rules that iptables gets."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_iptables import nft
from krun_iptables.network import address, network
from krun_iptables.rule import OUT, OUTPUT, REDIRECT, Match, Rule, jump
from krun_iptables.rules import rules
from krun_iptables.settings import Settings

EVERY = rules(
    Settings(
        all_inbound_ports=True,
        mode="TPROXY",
        inbound_exclude_ports=(22,),
        all_outbound=True,
        outbound_exclude_ranges=(network("10.1.0.0/16"),),
        exclude_interfaces=("eth9",),
        virtual_interfaces=("tap0", "tap1"),
        drop_invalid=True,
        redirect_dns=True,
        dns_servers=(address("10.0.0.10"), address("fd00::10")),
        ipv6=True,
    )
)
COMMAND = re.compile(
    r"(add|flush) table inet istio-proxy-(nat|mangle|raw)"
    r"|add chain inet istio-proxy-(nat|mangle|raw) [a-z-]+( \{ type (nat|filter|route) hook \w+ priority -\d+ ; \})?"
    r"|(add|insert) rule inet istio-proxy-(nat|mangle|raw) [a-z-]+ (index \d )?.+"
)


def commands(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def added(text: str, *, chain: str) -> list[str]:
    """The rules of a chain of table nat, in order of making."""
    start = f"add rule inet istio-proxy-nat {chain} "
    return [line.removeprefix(start) for line in commands(text) if line.startswith(start)]


def test_every_line_is_a_command_and_every_rule_has_its_reason_above_it() -> None:
    lines = nft.render(EVERY).splitlines()
    for above, line in itertools.pairwise(lines):
        assert line.startswith("# ") or COMMAND.fullmatch(line), line
        assert above.startswith("# ") == (" rule " in line and not line.startswith("#"))


def test_tables_come_in_istios_order_and_each_is_made_then_emptied() -> None:
    heads = [line for line in commands(nft.render(EVERY)) if " table " in line]
    wanted = [f"{what} table inet {table}" for table in nft.TABLES for what in ("add", "flush")]
    assert heads == wanted


def test_a_table_or_chain_without_rules_is_left_out() -> None:
    text = nft.render(rules(Settings()))
    assert "mangle" not in text
    assert "raw" not in text
    assert " prerouting" not in text


def test_a_rule_that_is_the_same_for_both_families_stands_once() -> None:
    four, both = (nft.render(rules(Settings(ipv6=ipv6, all_outbound=True))) for ipv6 in (False, True))
    assert added(both, chain="output") == added(four, chain="output") == ["counter jump istio-output"]
    of_six = [rule for rule in added(both, chain="istio-output") if rule not in added(four, chain="istio-output")]
    assert of_six
    assert all(" ip6 " in f" {rule}" for rule in of_six)


def test_a_rule_that_settings_ask_for_twice_stands_twice() -> None:
    text = nft.render(rules(Settings(outbound_exclude_ports=(80, 80), ipv6=True)))
    assert added(text, chain="istio-output").count("tcp dport 80 counter return") == 2


def test_an_insert_into_an_empty_chain_is_an_append() -> None:
    text = nft.render(rules(Settings(virtual_interfaces=("tap0", "tap1"))))
    assert added(text, chain="prerouting") == ['iifname "tap0" counter return']
    assert 'insert rule inet istio-proxy-nat prerouting index 0 iifname "tap1" counter return' in text


def test_a_chain_that_is_only_jumped_to_is_there() -> None:
    rule = Rule(family=4, table="nat", chain=OUTPUT, target=jump(OUT), reason="x")
    assert "add chain inet istio-proxy-nat istio-output" in commands(nft.render([rule]))


@pytest.mark.parametrize(("word", "written"), [("1337", "1337"), ("lo", "lo"), ("log", '"log"'), ("eth+", '"eth*"')])
def test_a_name_is_in_quotes_and_a_number_is_not(word: str, written: str) -> None:
    rule = Rule(family=4, table="nat", chain=OUT, match=Match(out_interface=word), target=jump(REDIRECT), reason="x")
    assert nft.words(rule)[:2] == ("oifname", written)


def test_replacing_takes_every_table_of_ours_away_first() -> None:
    text = nft.replace(rules(Settings()))
    assert text == nft.clear(nft.TABLES) + nft.render(rules(Settings()))
    for table in nft.TABLES:
        assert f"add table inet {table}\ndelete table inet {table}\n" in text


def test_a_first_text_makes_its_tables_and_says_else_what_any_does() -> None:
    lines = nft.create(EVERY).splitlines()
    assert [line.replace("create table", "add table") for line in lines] == nft.render(EVERY).splitlines()
    assert sum(line.startswith("create table ") for line in lines) == 3


@given(st.lists(st.sampled_from([22, 80, 443]), max_size=5), st.booleans())
def test_merging_families_loses_no_rule_of_ipv4_and_keeps_the_order(ports: list[int], ipv6: bool) -> None:
    decided = rules(Settings(outbound_exclude_ports=tuple(ports), ipv6=ipv6))
    merged = nft.once(decided)
    assert [rule for rule in merged if rule.family == 4] == [rule for rule in decided if rule.family == 4]
    assert list(merged) == [rule for rule in decided if rule in merged]
