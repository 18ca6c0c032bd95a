"""The package's part of the tables in docs."""

from __future__ import annotations

from krun_discover import contract


def test_what_is_printed_is_also_read_as_a_set_variable_always_wins() -> None:
    assert contract.SETS <= contract.READS


def test_no_secret_is_among_what_is_printed() -> None:
    assert not [name for name in contract.SETS if any(word in name for word in ("TOKEN", "KEY", "AUTH", "SECRET"))]
