"""What of a packet a rule's match asks for."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from krun_iptables.network import network
from krun_iptables.packet import Packet, fits, misfit
from krun_iptables.rule import ANY, Match

PACKET = Packet(
    destination=ip_address("10.0.0.1"),
    port=443,
    source=ip_address("10.1.0.1"),
    source_port=999,
    out_interface="eth0",
    uids=("1000", "app"),
    gids=("2000", "apps"),
    mark=7,
    connection_mark=8,
)


def test_an_empty_match_fits_every_packet() -> None:
    assert fits(ANY, PACKET)


@pytest.mark.parametrize(
    "match",
    [
        Match(out_interface="eth0"),
        Match(out_interface="eth+"),
        Match(protocol="tcp"),
        Match(source=network("10.1.0.0/24")),
        Match(destination=network("10.0.0.1/32")),
        Match(not_destination=network("127.0.0.1/32")),
        Match(source_port=999),
        Match(port=443),
        Match(not_ports=(53, 15008)),
        Match(uid="1000"),
        Match(uid="app"),
        Match(not_uid="1337"),
        Match(gid="apps"),
        Match(not_gids=("1", "2")),
        Match(mark=7),
        Match(not_mark=0),
        Match(connection_mark=8),
        Match(states=("NEW", "RELATED")),
    ],
)
def test_what_the_packet_is_fits(match: Match) -> None:
    assert misfit(match, PACKET) == ""


@pytest.mark.parametrize(
    ("match", "word"),
    [
        (Match(in_interface="eth0"), "interface"),
        (Match(out_interface="lo"), "interface"),
        (Match(out_interface="wlan+"), "interface"),
        (Match(protocol="udp"), "protocol"),
        (Match(source=network("10.2.0.0/24")), "source"),
        (Match(destination=network("10.0.0.2/32")), "destination"),
        (Match(not_destination=network("10.0.0.0/8")), "destination"),
        (Match(source_port=1), "source port"),
        (Match(port=80), "port"),
        (Match(not_ports=(53, 443)), "port"),
        (Match(uid="1337"), "user"),
        (Match(not_uid="app"), "user"),
        (Match(gid="1337"), "group"),
        (Match(not_gids=("1", "2000")), "group"),
        (Match(mark=0), "mark"),
        (Match(not_mark=7), "mark"),
        (Match(connection_mark=7), "connection's mark"),
        (Match(states=("INVALID",)), "state"),
        (Match(protocol="tcp", port=80), "port"),
    ],
)
def test_what_differs_is_named(match: Match, word: str) -> None:
    assert misfit(match, PACKET) == word
    assert not fits(match, PACKET)


def test_a_packet_whose_source_is_not_known_fits_no_rule_about_one() -> None:
    assert misfit(Match(source=network("0.0.0.0/0")), PACKET.but(source=None)) == "source"


def test_the_family_is_that_of_the_destination() -> None:
    assert (PACKET.family, PACKET.but(destination=ip_address("2001:db8::1")).family) == (4, 6)
