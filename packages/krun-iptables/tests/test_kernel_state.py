"""Whether what iptables-save says is what was decided, and where something of ours may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from krun_iptables import kernel_state, restore
from krun_iptables.backend import Backend
from krun_iptables.kernel_state import Seen
from krun_iptables.network import network
from krun_iptables.rule import OUT, RETURN, Match, Rule
from krun_iptables.rules import rules
from krun_iptables.settings import Settings

if TYPE_CHECKING:
    from krun_iptables.rule import Family

DECIDED = rules(Settings(outbound_ranges=(network("10.0.0.0/8"),), inbound_ports=(80,), exclude_interfaces=("eth9",)))
# As iptables 1.8.9 saves them.
SAVED = """\
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ISTIO_INBOUND - [0:0]
:ISTIO_IN_REDIRECT - [0:0]
:ISTIO_OUTPUT - [0:0]
:ISTIO_REDIRECT - [0:0]
-A PREROUTING -s 192.0.2.1/32 -j RETURN
-A PREROUTING -i eth9 -m comment --comment ISTIO -j RETURN
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A OUTPUT -o eth9 -m comment --comment ISTIO -j RETURN
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_INBOUND -p tcp -m tcp --dport 15008 -j RETURN
-A ISTIO_INBOUND -p tcp -m tcp --dport 80 -j ISTIO_IN_REDIRECT
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -d 10.0.0.0/8 -j ISTIO_REDIRECT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
COMMIT
"""


def is_held(saved: str) -> bool:
    return kernel_state.is_held(DECIDED, state=restore.state(saved))


def test_what_was_decided_is_recognised_among_others() -> None:
    assert is_held(SAVED)


@pytest.mark.parametrize("line", [line for line in SAVED.splitlines() if "ISTIO" in line])
def test_a_line_of_ours_that_is_missing_is_seen(line: str) -> None:
    assert not is_held(SAVED.replace(f"{line}\n", "", 1))


@pytest.mark.parametrize("more", ["-A ISTIO_OUTPUT -j RETURN", "-A OUTPUT -j ISTIO_REDIRECT", ":ISTIO_DROP - [0:0]"])
def test_one_of_ours_too_many_is_seen(more: str) -> None:
    assert not is_held(SAVED.replace("COMMIT", f"{more}\nCOMMIT"))


def test_two_rules_that_changed_places_are_seen() -> None:
    lines = SAVED.splitlines()
    first = lines.index("-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN")
    lines[first : first + 2] = reversed(lines[first : first + 2])
    assert not is_held("\n".join(lines))


def test_the_marks_that_our_rules_set_are_found() -> None:
    saved = "*mangle\n:ISTIO_DIVERT - [0:0]\n-A ISTIO_DIVERT -j MARK --set-xmark 0x1f4/0xffffffff\nCOMMIT\n"
    assert kernel_state.marks(restore.state(saved)) == {500}


def test_names_of_groups_are_numbers_in_the_kernel() -> None:
    rule = Rule(family=4, table="nat", chain=OUT, match=Match(gid="root"), target=RETURN, reason="x")
    (found,) = kernel_state.numbered([rule])
    assert found.match.gid == "0"


def backend(kind: str, family: Family) -> Backend:
    return Backend(kind=kind, family=family, save="", restore="")


def test_only_where_something_may_be_it_is_looked_for() -> None:
    seen = Seen(nft=frozenset({4}), native=(), legacy=frozenset({6}))
    assert [seen.may_hold(backend(kind, 4)) for kind in ("nft", "legacy")] == [True, False]
    assert [seen.may_hold(backend(kind, 6)) for kind in ("nft", "legacy")] == [False, True]


def test_what_the_kernel_does_not_tell_may_be_anywhere_in_nft() -> None:
    seen = Seen(nft=None, native=None, legacy=frozenset())
    assert [seen.may_hold(backend(kind, 4)) for kind in ("nft", "legacy")] == [True, False]


def test_legacy_tables_in_use_come_first_unless_ours_stands_in_nft() -> None:
    used = frozenset({4})
    assert Seen(nft=frozenset(), native=(), legacy=used).is_legacy_used(4)
    assert Seen(nft=None, native=None, legacy=used).is_legacy_used(4)
    assert not Seen(nft=used, native=(), legacy=used).is_legacy_used(4)
    assert not Seen(nft=frozenset(), native=(), legacy=frozenset()).is_legacy_used(4)
