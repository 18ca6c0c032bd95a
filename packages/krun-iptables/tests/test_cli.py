"""The command as a process: what it prints, what it refuses, and what it does not load to do so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from krun_testbed import components, processes

pytestmark = pytest.mark.loopback


def iptables(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command; never without one of the flags that change nothing: here it would be this machine's rules."""
    return processes.run([components.command("krun-iptables"), *arguments], env=processes.environment(**environment))


def rules(*arguments: str, **environment: str) -> list[str]:
    done = iptables(*arguments, "--dry-run", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return [line for line in done.stdout.splitlines() if line.startswith(("-A", "-I", "add rule", "insert rule"))]


def test_settings_are_printed_as_json() -> None:
    done = iptables("--show-settings", OUTBOUND_PORTS_EXCLUDE="5432", OUTBOUND_IP_RANGES_INCLUDE="", PROXY_UID="7")
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    assert printed["outbound_ranges"] == ["10.0.0.0/8"]
    assert printed["outbound_exclude_ports"] == [5432, 15008, 15009]
    assert (printed["proxy_uids"], printed["proxy_gids"]) == (["7"], ["1337"])


def test_dry_run_prints_rules_with_their_reasons_and_needs_no_iptables(tmp_path: Path) -> None:
    done = iptables("--dry-run", "--inbound-ports", "8080", PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("*nat", "COMMIT")
    assert "-A ISTIO_INBOUND -p tcp --dport 8080 -j ISTIO_IN_REDIRECT" in lines
    appended = [at for at, line in enumerate(lines) if line.startswith("-A ")]
    assert all(lines[at - 1].startswith("# ") for at in appended)


def test_native_rules_are_printed_for_nft() -> None:
    done = iptables("istio-iptables", "--dry-run", "--native-nftables", "-i", "*")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("add table inet istio-proxy-nat\n")
    assert "add rule inet istio-proxy-nat istio-output counter jump istio-redirect\n" in done.stdout


def test_dry_run_writes_what_it_prints_to_a_file_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rules"
    file.write_text("something longer than all rules\n" * 1000)
    done = iptables("istio-iptables", "-n", DRY_RUN_FILE_PATH=str(file))
    assert (done.returncode, file.read_text()) == (0, done.stdout)
    done = iptables("istio-iptables", "-n", DRY_RUN_FILE_PATH=str(tmp_path / "no" / "folder"))
    assert (done.returncode, done.stdout) == (69, "")
    assert "DRY_RUN_FILE_PATH" in done.stderr


def test_a_variable_and_its_flag_say_the_same() -> None:
    by_flags = rules("-b", "80,81", "-i", "10.0.0.0/8", "-o", "22", "--drop-invalid")
    by_variables = rules(
        ISTIO_INBOUND_PORTS="80,81",
        ISTIO_SERVICE_CIDR="10.0.0.0/8",
        ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE="22",
        INVALID_DROP="true",
    )
    assert by_flags == by_variables
    assert by_flags == rules("istio-iptables", "-b80,81", "-i=10.0.0.0/8", "-o", "22", "--drop-invalid=1")


def test_istios_tool_intercepts_nothing_without_settings_and_krun_what_goes_to_10() -> None:
    assert not [rule for rule in rules("istio-iptables") if rule.endswith("-j ISTIO_REDIRECT")]
    assert [rule for rule in rules() if rule.endswith("-j ISTIO_REDIRECT")] == [
        "-A ISTIO_OUTPUT -d 10.0.0.0/8 -j ISTIO_REDIRECT"
    ]


def test_flags_that_say_how_choose_no_defaults() -> None:
    assert rules("--reconcile", "--force-apply", "--cni-mode", "--log_output_level=debug") == rules()


@pytest.mark.parametrize(
    "flags", [["--dry-run", "--show-settings"], ["--dry-run", "--remove"], ["--cleanup-only", "--dry-run"]]
)
def test_flags_that_exclude_each_other_are_wrong_usage(flags: list[str], tmp_path: Path) -> None:
    done = iptables(*flags, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "give one of them" in done.stderr


def test_a_variable_that_a_flag_excludes_is_a_wrong_setting(tmp_path: Path) -> None:
    done = iptables("--show-settings", PATH=str(tmp_path), CLEANUP_ONLY="true")
    assert (done.returncode, done.stdout) == (78, "")
    assert "CLEANUP_ONLY, --show-settings: give one of them" in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OUTBOUND_IP_RANGES_INCLUDE", "10.0.0.0/40"),
        ("OUTBOUND_PORTS_EXCLUDE", "70000"),
        ("ISTIO_INBOUND_PORTS", "http"),
        ("PROXY_GID", "no-such-group"),
        ("KRUN_IPTABLES", "ebtables"),
        ("KRUN_LOG_LEVEL", "loud"),
        ("REDIRECT_DNS", "maybe"),
    ],
)
@pytest.mark.parametrize("argument", ["--show-settings", "--dry-run"])
def test_a_wrong_variable_is_named_with_its_value_in_one_line(
    name: str, value: str, argument: str, tmp_path: Path
) -> None:
    done = iptables(argument, **{name: value, "PATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (78, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"krun-iptables: error: {name}: {value!r} ")
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--include", "10.0.0.0/40"), ("-b", "http"), ("--proxy-gid", "no-such-group"), ("--log-format", "xml")],
)
def test_a_wrong_flag_is_named_with_its_value_in_one_line(flag: str, value: str, tmp_path: Path) -> None:
    done = iptables("--dry-run", flag, value, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"krun-iptables: error: {flag}: {value!r} ")
    assert hint.startswith("hint: ")


def test_help_names_every_flag_and_variable_that_is_read() -> None:
    from krun_iptables.options import OPTIONS

    shown = iptables("--help").stdout
    words = set(re.findall(r"[\w-]+", shown))
    for option in OPTIONS:
        for name in filter(None, (option.flag, option.own)):
            assert f"--{name}" in words or option.says == "log"
        assert set(filter(None, (*option.variables, option.own_variable))) <= words


def test_a_start_loads_no_more_than_it_needs() -> None:
    """Modules that cost as much as all the rest: a start is in front of every cold start."""
    start = "from krun_iptables.cli import main; main()"
    done = processes.run([sys.executable, "-I", "-X", "importtime", "-c", start, "--dry-run"])
    assert done.returncode == 0
    loaded = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.M))
    assert "krun_iptables.rules" in loaded
    large = {"asyncio", "click", "dataclasses", "inspect", "json", "logging", "pathlib", "subprocess"}
    assert not loaded & (large | {"collections", "contextlib", "functools", "ipaddress", "re", "typing"})
