"""What is asked of the application."""

from __future__ import annotations

import pytest

from krun_launch.errors import Misconfigured
from krun_launch.settings import settings
from krun_launch.startup_probe import app_probe


@pytest.mark.parametrize(
    ("env", "asked"),
    [
        ({}, "127.0.0.2:8080"),
        ({"PORT_http": "3000"}, "127.0.0.2:3000"),
        ({"STARTUP_PROBE_TCP": "9000"}, "127.0.0.2:9000"),
        ({"STARTUP_PROBE_TCP": "127.0.0.9:9000"}, "127.0.0.9:9000"),
        ({"STARTUP_PROBE_TCP": "localhost:9000"}, "127.0.0.1:9000"),
        ({"STARTUP_PROBE_HTTP": "/healthy?now"}, "http://127.0.0.2:8080/healthy?now"),
        ({"STARTUP_PROBE_HTTP": "http://127.0.0.9/x"}, "http://127.0.0.9:80/x"),
        ({"STARTUP_PROBE_HTTP": "http://127.0.0.9:81"}, "http://127.0.0.9:81/"),
    ],
)
def test_probe(env: dict[str, str], asked: str) -> None:
    assert str(app_probe(env, settings=settings({"KRUN_LOOPBACK": "127.0.0.2", **env}))) == asked


@pytest.mark.parametrize(
    "env",
    [
        {"STARTUP_PROBE_TCP": "9000", "STARTUP_PROBE_HTTP": "/x"},
        {"STARTUP_PROBE_TCP": "port"},
        {"STARTUP_PROBE_TCP": "0"},
        {"STARTUP_PROBE_TCP": "9" * 5000},
        {"STARTUP_PROBE_TCP": "example.com:80"},
        {"STARTUP_PROBE_HTTP": "healthy"},
        {"STARTUP_PROBE_HTTP": "https://127.0.0.1/"},
        {"STARTUP_PROBE_HTTP": "/a b"},
        {"STARTUP_PROBE_HTTP": "/a\r\nX: y"},
    ],
)
def test_wrong_probe_is_named(env: dict[str, str]) -> None:
    with pytest.raises(Misconfigured, match="STARTUP_PROBE_"):
        app_probe(env, settings=settings({}))
