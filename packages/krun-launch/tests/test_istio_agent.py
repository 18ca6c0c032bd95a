"""What pilot-agent is told: all that it reads today, nothing that it must not know, and files as the injection's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_launch import istio_agent, istio_proxy_config, istio_settings
from krun_launch.errors import Misconfigured
from krun_launch.istio_settings import IstioSettings

ENV = {"XDS_ADDR": "192.0.2.7:15012", "WORKLOAD_NAMESPACE": "demo", "WORKLOAD_NAME": "a", "PATH": "/usr/bin"}
SETTINGS = istio_settings.settings(ENV, run_dir=Path("/run/agent"), instance="0a1b", is_captured=True)


def environment(*, settings: IstioSettings = SETTINGS, override: str = "", **env: str) -> dict[str, str]:
    return istio_agent.environment(
        {**ENV, **env}, settings=settings, envoy="/opt/envoy", template="/opt/template", override=override, drain=4
    )


def test_variables_of_the_application_and_of_krun_never_reach_the_agent() -> None:
    strangers = {
        "HTTP_PROXY": "http://127.0.0.1:15007",
        "https_proxy": "http://127.0.0.1:15007",
        "NO_PROXY": "x",
        "DATABASE_PASSWORD": "canary",
        "SSH_AUTH": "canary",
        "KRUN_TCP": "1=a:1",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "KUBECONFIG": "/canary",
    }
    assert environment(**strangers) == environment()


@pytest.mark.parametrize("value", ["NONE", "TPROXY", "REDIRECT"])
def test_whether_connections_are_intercepted_is_not_the_agents_to_know(value: str) -> None:
    told = environment(ISTIO_META_INTERCEPTION_MODE=value, ISTIO_META_HTTP_PROXY_PORT="15007", HTTP_PROXY_PORT="15007")
    assert told == environment()
    metadata = {"ISTIO_META_INTERCEPTION_MODE": value, "ISTIO_META_HTTP_PROXY_PORT": "15007", "DISABLE_ENVOY": "true"}
    text = json.dumps({"proxyMetadata": metadata, "interceptionMode": value, "proxyHttpPort": 15007})
    assert environment(PROXY_CONFIG=text) == environment()


def test_what_a_user_says_is_passed_on() -> None:
    said = {
        "ISTIO_META_NETWORK": "edge",
        "ISTIO_METAJSON_LABELS": '{"team": "x"}',
        "INSTANCE_IP": "192.0.2.9",
        "SECRET_TTL": "1h",
        "XDS_HEADER_X": "y",
        "CLOUD_PLATFORM": "gcp",
        "ISTIO_META_DNS_CAPTURE": "false",
    }
    told = environment(**said)
    assert {name: told[name] for name in said} == said


def test_metadata_of_the_configuration_is_part_of_the_environment_and_a_variable_wins() -> None:
    text = "proxyMetadata:\n  ISTIO_META_NETWORK: edge\n  SECRET_TTL: 1h\n"
    told = environment(PROXY_CONFIG=text, SECRET_TTL="2h")
    assert (told["ISTIO_META_NETWORK"], told["SECRET_TTL"]) == ("edge", "2h")
    assert "proxyMetadata" not in json.loads(told["PROXY_CONFIG"])


def test_names_are_asked_of_the_agent_only_when_captured() -> None:
    assert environment()["ISTIO_META_DNS_CAPTURE"] == "true"
    assert "ISTIO_META_DNS_CAPTURE" not in environment(settings=SETTINGS.but(is_captured=False))


def test_whitebox_has_the_only_override() -> None:
    assert environment(ISTIO_BOOTSTRAP_OVERRIDE="/mine")["ISTIO_BOOTSTRAP_OVERRIDE"] == "/mine"
    assert environment(override="/ours")["ISTIO_BOOTSTRAP_OVERRIDE"] == "/ours"
    with pytest.raises(Misconfigured, match="ISTIO_BOOTSTRAP_OVERRIDE"):
        environment(override="/ours", ISTIO_BOOTSTRAP_OVERRIDE="/mine")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"drainDuration": "4s"}),
        ({"drainDuration": "9s", "concurrency": 3}, {"drainDuration": "9s", "concurrency": 3}),
        ({"configPath": "/x", "interceptionMode": "NONE"}, {"drainDuration": "4s"}),
        ({"discoveryAddress": "other:1", "binaryPath": "/theirs"}, {"drainDuration": "4s", "binaryPath": "/theirs"}),
        (
            {"proxyStatsMatcher": {"inclusionSuffixes": ["x"], "inclusionPrefixes": ["y"]}},
            {
                "drainDuration": "4s",
                "proxyStatsMatcher": {"inclusionSuffixes": ["x", "downstream_rq_active"], "inclusionPrefixes": ["y"]},
            },
        ),
    ],
)
def test_configuration_is_the_users_with_ours_in_it(given: dict[str, Any], expected: dict[str, Any]) -> None:
    ours = {
        "discoveryAddress": "192.0.2.7:15012",
        "binaryPath": "/opt/envoy",
        "proxyStatsMatcher": {"inclusionSuffixes": ["downstream_rq_active"]},
    }
    assert json.loads(environment(PROXY_CONFIG=json.dumps(given))["PROXY_CONFIG"]) == {**ours, **expected}


def test_an_envoy_that_is_named_is_taken() -> None:
    told = environment(PROXY_CONFIG="binaryPath: /theirs", KRUN_ENVOY="/opt/envoy")
    assert json.loads(told["PROXY_CONFIG"])["binaryPath"] == "/opt/envoy"


@given(st.text())
def test_any_text_is_a_configuration_or_refused_in_one_line(text: str) -> None:
    found = parsed(text)
    assert isinstance(found, dict) or (found.startswith("PROXY_CONFIG: ") and found.isprintable())


def parsed(text: str) -> dict[str, Any] | str:
    try:
        return istio_proxy_config.parse(text)
    except Misconfigured as error:
        return error.message


def test_files_are_those_of_a_pod() -> None:
    roots = "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n"
    assert istio_agent.files({"CAROOT_ISTIOD": roots}, settings=SETTINGS) == {
        "etc/istio/pod/labels": 'app="a"\n'
        'security.istio.io/tlsMode="istio"\n'
        'service.istio.io/canonical-name="a"\n'
        'service.istio.io/canonical-revision="latest"\n',
        "var/run/secrets/istio/root-cert.pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    }


@pytest.mark.parametrize(("level", "agents"), [("warning", "warn"), ("error", "warn"), ("trace", "debug")])
def test_the_agent_says_as_much_as_envoy_and_always_what_fails(level: str, agents: str) -> None:
    argv = istio_agent.argv(agent="/opt/agent", settings=SETTINGS, log_level=level, is_json=True)
    assert f"--proxyLogLevel={level}" in argv
    assert f"--log_output_level=all:{agents},grpc:none" in argv
    assert "--log_as_json" in argv
