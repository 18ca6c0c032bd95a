from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from krun_testbed import components, processes

pytestmark = pytest.mark.loopback


def iptables(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command; never without one of the flags that change nothing, or a PATH without iptables."""
    return processes.run([components.command("krun-iptables"), *arguments], env=processes.environment(**environment))


def test_settings_are_printed_as_json() -> None:
    done = iptables("--show-settings", OUTBOUND_PORTS_EXCLUDE="5432", OUTBOUND_IP_RANGES_INCLUDE="", PROXY_UID="7")
    assert done.returncode == 0
    assert done.stderr == ""
    printed = json.loads(done.stdout)
    assert printed["outbound_ip_ranges_include"] == ["10.0.0.0/8"]
    assert printed["outbound_ports_exclude"] == [5432, 15008, 15009]
    assert (printed["proxy_uid"], printed["proxy_gid"]) == ([7], [1337])


def test_dry_run_prints_rules_with_their_reasons_and_needs_no_iptables(tmp_path: Path) -> None:
    done = iptables("--dry-run", "--inbound-ports", "8080", PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("*nat", "COMMIT")
    assert "-A ISTIO_INBOUND -p tcp -m tcp --dport 8080 -j ISTIO_IN_REDIRECT" in lines
    appended = [at for at, line in enumerate(lines) if line.startswith("-A ")]
    assert all(lines[at - 1].startswith("# ") for at in appended)


@pytest.mark.parametrize("arguments", [[], ["--remove"], ["--iptables", "legacy"]])
def test_without_iptables_in_path_it_is_not_permitted(arguments: list[str], tmp_path: Path) -> None:
    done = iptables(*arguments, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (77, "")
    assert "in PATH" in done.stderr
    assert done.stderr.splitlines()[-1] == "hint: install iptables"


@pytest.mark.parametrize("flags", [["--dry-run", "--remove"], ["--remove", "--show-settings"]])
def test_flags_that_exclude_each_other_are_wrong_usage(flags: list[str], tmp_path: Path) -> None:
    done = iptables(*flags, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "give one of them" in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OUTBOUND_IP_RANGES_INCLUDE", "10.0.0.0/40"),
        ("OUTBOUND_PORTS_EXCLUDE", "70000"),
        ("ISTIO_INBOUND_PORTS", "http"),
        ("PROXY_GID", "istio-proxy"),
    ],
)
@pytest.mark.parametrize("arguments", [[], ["--show-settings"], ["--dry-run"]])
def test_a_wrong_value_names_its_variable(name: str, value: str, arguments: list[str], tmp_path: Path) -> None:
    done = iptables(*arguments, **{name: value, "PATH": str(tmp_path)})
    assert done.returncode == 78
    assert done.stdout == ""
    assert name in done.stderr
    assert value in done.stderr
