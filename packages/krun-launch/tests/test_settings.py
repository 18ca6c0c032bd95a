"""Numbers and addresses: defaults, bounds, contradictions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_launch.errors import Misconfigured
from krun_launch.settings import port, seconds, settings


def test_defaults_are_those_of_the_table() -> None:
    found = settings({})
    assert (found.loopback, found.bind, found.port, found.app_port) == ("127.0.0.1", "127.0.0.1", 15009, 8080)
    assert (found.status_port, found.ready_timeout, found.app_timeout) == (15019, 30, 240)
    assert (found.grace, found.drain, found.kill_after) == (10, 4, 9.5)


@pytest.mark.parametrize(
    ("env", "bind"),
    [
        ({"K_SERVICE": "b"}, "0.0.0.0"),
        ({"KRUN_LOOPBACK": "127.0.0.2"}, "127.0.0.2"),
        ({"K_SERVICE": "b", "KRUN_BIND": "10.0.0.1"}, "10.0.0.1"),
    ],
)
def test_hboned_is_on_all_addresses_only_where_the_platform_demands_it(env: dict[str, str], bind: str) -> None:
    assert settings(env).bind == bind


def test_no_grace_at_all_needs_no_drain_to_be_set() -> None:
    found = settings({"KRUN_GRACE": "0"})
    assert (found.drain, found.kill_after) == (0, 0)


def test_short_grace_leaves_time_for_both() -> None:
    found = settings({"KRUN_GRACE": "0.4"})
    assert 0 < found.drain < found.grace
    assert 0 < found.kill_after < found.grace


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({"KRUN_DRAIN": "10"}, ("KRUN_DRAIN", "KRUN_GRACE")),
        ({"KRUN_GRACE": "-1"}, ("KRUN_GRACE",)),
        ({"KRUN_READY_TIMEOUT": "inf"}, ("KRUN_READY_TIMEOUT",)),
        ({"KRUN_APP_TIMEOUT": "nan"}, ("KRUN_APP_TIMEOUT",)),
        ({"PORT": "0"}, ("PORT",)),
        ({"PORT": "9" * 5000}, ("PORT",)),
        ({"PORT_http": "http"}, ("PORT_http",)),
        ({"KRUN_STATUS_PORT": "65536"}, ("KRUN_STATUS_PORT",)),
        ({"KRUN_BIND": "localhost"}, ("KRUN_BIND",)),
    ],
)
def test_wrong_value_names_its_variable(env: dict[str, str], names: tuple[str, ...]) -> None:
    with pytest.raises(Misconfigured) as caught:
        settings(env)
    assert all(name in caught.value.message for name in names)


@given(st.text())
def test_no_text_is_a_bug(text: str) -> None:
    for read in (lambda: seconds({"A": text}, "A", default=1), lambda: port({"A": text}, "A", default=1)):
        try:
            value = read()
        except Misconfigured:
            continue
        assert 0 <= value <= 86400
