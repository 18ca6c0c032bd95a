"""The way back from what iptables-save says now to what it said before."""

from __future__ import annotations

from krun_iptables import guard, kernel_undo

BEFORE = """\
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ISTIO_OUTPUT - [0:0]
:OTHER - [0:0]
-A OUTPUT -d 203.0.113.7/32 -j OTHER
-A OUTPUT -j ISTIO_OUTPUT
-A OUTPUT -d 203.0.113.8/32 -j OTHER
-A ISTIO_OUTPUT -p tcp -j RETURN
COMMIT
"""
NOW = """\
*mangle
:PREROUTING ACCEPT [0:0]
:ISTIO_INBOUND - [0:0]
-A PREROUTING -p tcp -j ISTIO_INBOUND
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ISTIO_OUTPUT - [0:0]
:ISTIO_REDIRECT - [0:0]
:OTHER - [0:0]
-A OUTPUT -d 203.0.113.7/32 -j OTHER
-A OUTPUT -d 203.0.113.8/32 -j OTHER
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
COMMIT
"""


def test_what_is_as_it_was_takes_no_text() -> None:
    assert kernel_undo.text(BEFORE, now=BEFORE) == ""


def test_where_nothing_was_all_of_ours_goes() -> None:
    text = kernel_undo.text("", now=NOW)
    assert "-D PREROUTING -p tcp -j ISTIO_INBOUND" in text
    assert "-D OUTPUT -j ISTIO_OUTPUT" in text
    for chain in ("ISTIO_INBOUND", "ISTIO_OUTPUT", "ISTIO_REDIRECT"):
        assert f"-X {chain}" in text
    assert "OTHER" not in text


def test_ours_comes_back_to_its_place_among_others() -> None:
    nat = kernel_undo.text(BEFORE, now=NOW).partition("*nat\n")[2]
    assert nat.splitlines() == [
        "-D OUTPUT -j ISTIO_OUTPUT",
        ":ISTIO_OUTPUT - [0:0]",
        ":ISTIO_REDIRECT - [0:0]",
        "-A ISTIO_OUTPUT -p tcp -j RETURN",
        "-I OUTPUT 2 -j ISTIO_OUTPUT",
        "-X ISTIO_REDIRECT",
        "COMMIT",
    ]


def test_a_guard_that_is_up_is_taken_down() -> None:
    saved = f"*filter\n:INPUT ACCEPT [0:0]\n:{guard.CHAIN} - [0:0]\n-A INPUT -p tcp -j {guard.CHAIN}\nCOMMIT\n"
    text = kernel_undo.text("", now=saved)
    assert f"-D INPUT -p tcp -j {guard.CHAIN}" in text
    assert f"-X {guard.CHAIN}" in text
