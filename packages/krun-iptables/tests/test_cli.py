from __future__ import annotations

import json
import subprocess

import pytest

from krun_testbed import components, processes

pytestmark = pytest.mark.loopback


def iptables(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return processes.run([components.command("krun-iptables"), *arguments], env=processes.environment(**environment))


def test_settings_are_printed_as_json() -> None:
    done = iptables("--show-settings", OUTBOUND_PORTS_EXCLUDE="5432", OUTBOUND_IP_RANGES_INCLUDE="")
    assert done.returncode == 0
    assert done.stderr == ""
    assert json.loads(done.stdout) == {
        "outbound_ip_ranges_include": ["10.0.0.0/8"],
        "outbound_ports_exclude": [5432, 15008, 15009],
    }


def test_without_being_asked_for_settings_it_says_that_it_applies_nothing() -> None:
    done = iptables()
    assert done.returncode == 78
    assert done.stdout == ""
    assert "cannot apply rules" in done.stderr
    assert "hint: " in done.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("OUTBOUND_IP_RANGES_INCLUDE", "10.0.0.0/40"), ("OUTBOUND_PORTS_EXCLUDE", "70000")]
)
def test_a_wrong_value_names_its_variable(name: str, value: str) -> None:
    done = iptables("--show-settings", **{name: value})
    assert done.returncode == 78
    assert done.stdout == ""
    assert name in done.stderr
    assert value in done.stderr
