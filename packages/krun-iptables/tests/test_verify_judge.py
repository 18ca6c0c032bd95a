"""What is said of a connection, by all that is known of it."""

from __future__ import annotations

import errno
from ipaddress import ip_address
from typing import Any, Literal

import pytest

from krun_iptables.explain import explain
from krun_iptables.packet import Packet
from krun_iptables.verify_attempt import Arrival, Attempt, read, worded
from krun_iptables.verify_judge import judge
from krun_iptables.verify_owner import Owner
from krun_iptables.verify_plan import Probe

TOKEN = b"0123456789abcdef"
THERE = (ip_address("192.0.2.1"), 80)
TAKEN = [(4, "tcp", 15001)]
LED = Arrival(port=15001, wanted=THERE)


def attempt(kind: Literal["redirect", "pass"], protocol: Literal["tcp", "udp"] = "tcp", **known: Any) -> Attempt:
    """One to THERE, and what became of it."""
    packet = Packet(destination=THERE[0], port=THERE[1], protocol=protocol, out_interface="eth0")
    wanted = explain((), packet).but(kind=kind, port=15001 if kind == "redirect" else THERE[1])
    made = Attempt(Probe(name="it", packet=packet, owner=Owner(uid=1, gid=1), wanted=wanted), number=0)
    for name, value in known.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("tried", "taken", "outcome", "text"),
    [
        (
            attempt("redirect", arrival=LED, is_answered=True),
            [],
            "ok",
            "arrived at port 15001, and the answer came back",
        ),
        (attempt("redirect", arrival=LED), [], "fail", "arrived at port 15001, but no answer came back"),
        (attempt("redirect", arrival=LED.but(port=15006)), [], "fail", "arrived at port 15006 instead of 15001"),
        (attempt("redirect", is_connected=True), [], "fail", "did not arrive at port 15001: it went elsewhere"),
        (attempt("redirect"), [], "fail", "did not arrive at port 15001: nothing came within 5 s"),
        (attempt("redirect", error=errno.ECONNREFUSED), [], "fail", "did not arrive at port 15001: connection refused"),
        (attempt("redirect", arrival=LED), TAKEN, "ok", "arrived at port 15001, which another program has"),
        (attempt("redirect", is_connected=True), TAKEN, "fail", "did not arrive at port 15001: it went elsewhere"),
        (
            attempt("redirect", error=errno.ECONNREFUSED),
            TAKEN,
            "fail",
            "did not arrive at port 15001: connection refused",
        ),
        (
            attempt("redirect", is_connected=True, error=errno.ECONNRESET),
            TAKEN,
            "unknown",
            "another program has port 15001, and closed the connection before it could be seen there",
        ),
        (attempt("pass"), [], "ok", "is not intercepted: no rule takes it"),
        (attempt("pass", arrival=LED), TAKEN, "fail", "is led to port 15001, and must not be: no rule takes it"),
        (attempt("pass", "udp"), TAKEN, "ok", "is not intercepted: no rule takes it"),
        (attempt("pass", "udp"), [(4, "udp", 15053)], "unknown", "another program has the port that DNS is led to"),
    ],
)
def test_each_end_has_its_words(tried: Attempt, taken: list[Any], outcome: str, text: str) -> None:
    check = judge(tried, taken=taken, is_answered=True, limit=5)
    assert (check.name, check.outcome, check.text) == ("it", outcome, text)


@pytest.mark.parametrize("number", [0, 1, 65536])
def test_a_number_is_read_as_it_was_said_and_nothing_else_is_one(number: int) -> None:
    assert read(TOKEN, b"before " + worded(TOKEN, number) + b" after") == number
    assert read(TOKEN[::-1], worded(TOKEN, number)) is None
    assert read(TOKEN, TOKEN) is None
