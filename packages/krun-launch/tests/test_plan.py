"""Plans of whole workloads, pinned as JSON in data/plan: a change of what runs is a change of these files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from krun_launch.describe import describe
from krun_launch.errors import Misconfigured
from krun_launch.facts import Facts
from krun_launch.plan import Plan, plan
from krun_launch.spawn import NULL, SHARED

DATA = Path(__file__).parent / "data" / "plan"
ENVOY = Facts(envoy="/opt/envoy", hboned="/opt/hboned", sshd="/opt/krun-sshd")
STATIC = {
    "HOME": "/home/app",
    "KRUN_CERTS": "/certs",
    "MESH": "static:gateway.example:15442",
    "PATH": "/usr/bin",
    "WORKLOAD_NAMESPACE": "demo",
}
# As root, where everything is possible; then with the rules in force.
ROOT = ENVOY.but(uid=0, cannot_switch="", cannot_capture="", resolv_conf="nameserver 192.0.2.53\nsearch corp.example\n")
CAPTURED = ROOT.but(has_rules=True, app_gid=65533, app_home="/home/app", own_home="/home/own")
# In a mesh with a control plane.
AGENT: dict[str, Any] = {"pilot_agent": "/opt/pilot-agent", "template": "/opt/bootstrap.json", "instance": "0a1b2c3d"}
ISTIO = {
    "CAROOT_ISTIOD": "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----",
    "HOME": "/home/app",
    "ISTIO_META_INTERCEPTION_MODE": "REDIRECT",
    "PATH": "/usr/bin",
    "WORKLOAD_NAME": "a",
    "WORKLOAD_NAMESPACE": "demo",
    "XDS_ADDR": "192.0.2.7:15012",
}
KEYS = {"SSH_AUTH": "ssh-ed25519 AAAA person"}


def made(
    env: dict[str, str],
    *,
    app: tuple[str, ...] = ("app", "--flag"),
    facts: Facts = ENVOY,
    flags: dict[str, str] | None = None,
) -> Plan:
    return plan(env, app=app, facts=facts, run_dir=Path("/run/krun"), flags=flags)


FACTS = {
    "captured": CAPTURED,
    "whitebox-root": ROOT,
    "istio-captured": CAPTURED.but(**AGENT, krun_token="/opt/krun-token"),
    "istio-docker": CAPTURED.but(**AGENT, has_token=True, resolv_conf="nameserver 127.0.0.11\noptions ndots:0\n"),
    "istio-whitebox": ENVOY.but(**AGENT, krun_token="/opt/krun-token"),
    "istio-pod": CAPTURED.but(**AGENT, has_token=True, has_roots=True),
}
CASES = {
    "none": ({"KRUN_MODE": "none", "HOME": "/", "PORT": "15009"}, ("app", "--flag")),
    "static": (STATIC, ("app", "--flag")),
    "static-ssh": ({**STATIC, **KEYS, "DATABASE_PASSWORD": "x", "APP_WORD": "seen"}, ("app",)),
    "sidecar": (STATIC, ()),
    "job": ({**STATIC, **KEYS, "CLOUD_RUN_JOB": "nightly"}, ("app",)),
    "cloud-run": ({**STATIC, "K_SERVICE": "b", "PORT": "15009", "PORT_http": "3000", "PORT_grpc": "3001"}, ("app",)),
    "captured": ({**STATIC, **KEYS, "KRUN_MODE": "captured", "K8S_UID": "65532", "HOME": "/home/own"}, ("app",)),
    "whitebox-root": ({**STATIC, "KRUN_INTERCEPTION": "none", "KRUN_PUBLIC": "none"}, ("app",)),
    "istio-captured": ({**ISTIO, **KEYS, "KRUN_MODE": "captured", "K8S_UID": "65532", "PORT_grpc": "3001"}, ("app",)),
    "istio-docker": ({**ISTIO, "KRUN_MODE": "captured"}, ("app",)),
    "istio-whitebox": ({**ISTIO, "KRUN_TCP": "6379=cache:6379", "PROXY_CONFIG": "concurrency: 2"}, ("app",)),
    "istio-pod": ({**ISTIO, "CAROOT_ISTIOD": ""}, ()),
    "probe": ({**STATIC, "STARTUP_PROBE_HTTP": "/healthy", "KRUN_APP_TIMEOUT": "5", "KRUN_GRACE": "30"}, ("app",)),
}


@pytest.mark.parametrize("name", CASES)
def test_plan_is_as_pinned(name: str) -> None:
    """After a change that is meant: KRUN_TEST_RECORD=1, and read the difference."""
    env, app = CASES[name]
    facts = FACTS.get(name, ENVOY)
    document = json.loads(describe(made(env, app=app, facts=facts), env=env))
    # What Envoy is told is pinned elsewhere (test_static_envoy.py).
    document["files"] = sorted(document["files"])
    if os.environ.get("KRUN_TEST_RECORD"):
        (DATA / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    assert document == json.loads((DATA / f"{name}.json").read_text())


def test_an_agent_beside_dockers_resolver_is_not_started_again() -> None:
    env = {**CASES["istio-docker"][0], "KRUN_RESTARTS": "3"}
    planned = made(env, facts=FACTS["istio-docker"])
    assert planned.settings.restarts == 0
    assert [text for text in planned.warnings if text.startswith("KRUN_RESTARTS")]
    assert made(env, facts=FACTS["istio-captured"]).settings.restarts == 3


def test_description_holds_no_value_of_the_environment() -> None:
    env = {**STATIC, **KEYS, "DATABASE_PASSWORD": "canary-a", "KRUN_OFFER": "15003"}
    text = describe(made(env), env=env)
    assert "canary-a" not in text
    assert "AAAA" not in text


def test_flags_decide_and_the_application_does_not_see_them() -> None:
    planned = made({"WORD": "x"}, flags={"KRUN_MODE": "none", "KRUN_GRACE": "3"})
    assert planned.mode == "none"
    assert planned.settings.grace == 3
    assert planned.processes[0].env == {"WORD": "x"}


def test_application_on_a_terminal_shares_it_unless_stdin_was_the_environment() -> None:
    terminal = ENVOY.but(is_on_terminal=True)
    assert made(STATIC, facts=terminal).processes[1].group == SHARED
    planned = plan(STATIC, app=("app",), facts=terminal, run_dir=Path("/run/krun"), app_stdin=NULL)
    assert planned.processes[1].group != SHARED


def test_helpers_are_out_of_reach_of_the_terminal_and_of_stdin() -> None:
    for spec in made({**STATIC, **KEYS}).processes:
        if spec.name != "app":
            assert (spec.group, spec.stdin, spec.is_helper) == ("session", "null", True)


@pytest.mark.parametrize(
    ("hboned", "sshd", "keys", "warning"),
    [
        (None, "/opt/krun-sshd", {}, "inbound tunnels are off: hboned is not installed"),
        (None, None, KEYS, "inbound tunnels are off: hboned is not installed"),
        ("/opt/hboned", None, KEYS, "SSH_AUTH is set, and krun-sshd is not installed: no debug shell"),
        ("/opt/hboned", None, {}, ""),
        ("/opt/hboned", "/opt/krun-sshd", KEYS, ""),
    ],
)
def test_missing_helper_is_at_most_one_warning(
    hboned: str | None, sshd: str | None, keys: dict[str, str], warning: str
) -> None:
    planned = made({**STATIC, **keys}, facts=Facts(envoy="/opt/envoy", hboned=hboned, sshd=sshd))
    assert planned.warnings == ((warning,) if warning else ())


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"PORT": "8080"}, "port 8080: wanted by hboned (PORT) and the application (PORT_http)"),
        ({"PORT": "15000"}, "port 15000: wanted by Envoy's admin and hboned (PORT)"),
        (
            {"KRUN_STATUS_PORT": "15009"},
            "port 15009: wanted by krun-launch's status (KRUN_STATUS_PORT) and hboned (PORT)",
        ),
        ({"PORT_http": "15022"}, "port 15022: wanted by krun-sshd and the application (PORT_http)"),
    ],
)
def test_two_uses_of_one_port_are_a_contradiction(extra: dict[str, str], message: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        made({**STATIC, **extra})
    assert caught.value.message == message
    assert caught.value.hint


def test_mode_none_needs_an_application() -> None:
    with pytest.raises(Misconfigured, match="nothing to run"):
        made({"KRUN_MODE": "none"}, app=())
