from __future__ import annotations

import pytest

from krun_iptables import backend, restore
from krun_iptables.errors import DeadlinePassed, Denied, Unreachable
from krun_iptables.rules import rules
from krun_iptables.settings import settings

TEXT = restore.apply(rules(settings()))
LAST = len(TEXT.splitlines())

# What the programs wrote on stderr where the kernel would not have it: 1.8.9, and 1.8.4 on gVisor.
REFUSALS = [
    "Could not fetch rule set generation id: Permission denied (you must be root)",
    "Cannot initialize: Permission denied (you must be root)",
    "iptables-restore: unable to initialize table 'nat'\n\nError occurred at line: 2\nTry `iptables-restore -h'",
    "can't initialize iptables table `nat': Table does not exist (do you need to insmod?)",
    "Fatal: can't open lock file /run/xtables.lock: Permission denied",
    "Failed to initialize nft: Protocol not supported",
    "getsockopt failed strangely: Protocol not available",
    "Warning: Extension owner revision 0 not supported, missing kernel module?",
    "\nline 8: RULE_APPEND failed (Invalid argument): rule in chain ISTIO_OUTPUT",
    "\nline 8: RULE_APPEND failed (No such file or directory): rule in chain ISTIO_OUTPUT",
    f"iptables-restore: line {LAST} failed",
]


@pytest.mark.parametrize("said", REFUSALS)
def test_what_the_kernel_will_not_have_is_not_permitted(said: str) -> None:
    failure = backend.failure("/usr/sbin/iptables-restore", said=said, text=TEXT)
    assert isinstance(failure, Denied)
    assert "NET_ADMIN" in failure.hint


@pytest.mark.parametrize(
    "said",
    [
        "iptables-restore: line 3 failed",
        "Couldn't load target `X'\n\nError occurred at line: 3\nTry `iptables-restore -h'",
        f"iptables-nft-restore v1.8.9 (nf_tables): Chain 'ISTIO_OUTPUT' does not exist\nError occurred at line: {LAST}",
        "\nline 3: CHAIN_DEL failed (Device or resource busy): chain ISTIO_OUTPUT",
    ],
)
def test_any_other_failure_shows_the_line_it_is_about(said: str) -> None:
    failure = backend.failure("/usr/sbin/iptables-restore", said=said, text=TEXT)
    assert isinstance(failure, Unreachable)
    assert repr(TEXT.splitlines()[LAST - 1 if str(LAST) in said else 2]) in failure.message
    assert "Try `" not in failure.message
    assert failure.message.isprintable()
    assert "--dry-run" in failure.hint


def test_a_lock_that_is_held_is_a_deadline_that_passed() -> None:
    said = "Another app is currently holding the xtables lock; still 0s 0us time ahead to have a chance"
    failure = backend.failure("/usr/sbin/iptables-legacy-restore", said=said, text=TEXT)
    assert isinstance(failure, DeadlinePassed)
    assert "try again" in failure.hint


@pytest.mark.parametrize("said", ["", "iptables-restore: line 99999 failed", "iptables-restore: line 0 failed"])
def test_a_failure_without_a_usable_line_is_still_told(said: str) -> None:
    assert isinstance(backend.failure("iptables-restore", said=said, text=TEXT), Unreachable)
