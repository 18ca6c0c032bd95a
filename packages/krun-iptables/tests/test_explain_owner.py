"""Users and groups as rules may name them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from krun_iptables.explain_owner import group, user

BOTH = pytest.mark.parametrize("read", [user, group])


@BOTH
@pytest.mark.parametrize("text", ["0", "root", "00"])
def test_a_number_and_a_name_mean_the_same_owner(read: Callable[[str], tuple[str, ...]], text: str) -> None:
    assert read(text) == ("0", "root")


@BOTH
def test_a_number_without_a_name_stands_alone(read: Callable[[str], tuple[str, ...]]) -> None:
    assert read("4000000001") == ("4000000001",)


@BOTH
@pytest.mark.parametrize("text", ["", "no-such-one", "-1", "4294967295", "9" * 400, "٣", "1.0"])
def test_what_is_no_owner_of_this_machine_is_refused(read: Callable[[str], tuple[str, ...]], text: str) -> None:
    with pytest.raises(ValueError, match=r"no (user|group|id)|is no id"):
        read(text)
