"""Static mode's settings out of the environment, and the files that Envoy reads, as goldens."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_launch import contract, envoy_outbound, static_envoy
from krun_launch.errors import Misconfigured

DATA = Path(__file__).with_name("data")
RUN = Path("/run/krun")
LEAST = {"KRUN_GATEWAY": "192.0.2.1:15443"}
MOST = {
    "KRUN_GATEWAY": "gateway.example:443",
    "KRUN_LOOPBACK": "127.0.0.2",
    "KRUN_MESH_NAMESPACES": "web, db,web",
    "PORT_grpc": "9090",
    "PORT_http": "3000",
    "TRUST_DOMAIN": "project.svc.id.goog",
    "WORKLOAD_NAME": "a",
    "WORKLOAD_NAMESPACE": "demo",
}
CAPTURED = {**MOST, "KRUN_LOOPBACK": "127.0.0.1", "KRUN_APP_PROTOCOL": "h2c"}


def settings(**env: str) -> static_envoy.StaticSettings:
    return static_envoy.settings({**LEAST, **env}, run_dir=RUN)


@pytest.mark.parametrize(("name", "env"), [("least", LEAST), ("most", MOST), ("captured", CAPTURED)])
def test_the_files_are_those_on_record(name: str, env: dict[str, str]) -> None:
    """After a change that is meant: KRUN_TEST_RECORD=1, and read the difference."""
    lua = Path(envoy_outbound.__file__).with_name("names.lua").read_text()
    files = static_envoy.files(static_envoy.settings(env, run_dir=RUN, is_captured=env == CAPTURED))
    assert sorted(files) == ["envoy.json", "sds-certificate.json", "sds-roots.json"]
    for file, content in files.items():
        short = json.dumps(json.loads(content.replace(json.dumps(lua)[1:-1], "(names.lua)")), indent=1) + "\n"
        path = DATA / f"static-{name}-{file}"
        if os.environ.get("KRUN_TEST_RECORD"):
            path.write_text(short)
        assert short == path.read_text()


def test_nothing_that_is_read_goes_undeclared() -> None:
    assert static_envoy.READS <= contract.READS


def test_an_empty_variable_counts_as_not_set() -> None:
    empty = dict.fromkeys((*MOST, "PROJECT_ID", "MESH", "MCON_ADDR"), "")
    assert static_envoy.settings({**empty, **LEAST}, run_dir=RUN) == settings()


@pytest.mark.parametrize(
    ("env", "host", "port"),
    [
        ({"KRUN_GATEWAY": "gw.example:1", "MESH": "static:other:2", "MCON_ADDR": "192.0.2.3"}, "gw.example", 1),
        ({"MESH": "static:other:2", "MCON_ADDR": "192.0.2.3"}, "other", 2),
        ({"MESH": "static:other"}, "other", 15443),
        ({"MESH": "static:[2001:db8::1]"}, "2001:db8::1", 15443),
        ({"MESH": "file:/x", "MCON_ADDR": "192.0.2.3"}, "192.0.2.3", 15443),
        ({"MCON_ADDR": "2001:db8::1"}, "2001:db8::1", 15443),
        ({"KRUN_GATEWAY": "[2001:db8::1]:15443"}, "2001:db8::1", 15443),
    ],
)
def test_the_gateway_comes_from_the_first_that_names_one(env: dict[str, str], host: str, port: int) -> None:
    found = static_envoy.settings(env, run_dir=RUN)
    assert (found.gateway_host, found.gateway_port) == (host, port)


@pytest.mark.parametrize(
    ("env", "trust_domain"),
    [
        ({}, "cluster.local"),
        ({"PROJECT_ID": "p-1"}, "p-1.svc.id.goog"),
        ({"PROJECT_ID": "p-1", "TRUST_DOMAIN": "mesh.example"}, "mesh.example"),
    ],
)
def test_the_trust_domain_is_the_projects_unless_it_is_set(env: dict[str, str], trust_domain: str) -> None:
    assert settings(**env).trust_domain == trust_domain


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"KRUN_GATEWAY": ""}, "KRUN_GATEWAY is not set"),
        ({"KRUN_GATEWAY": "", "MESH": "static:"}, "MESH: '' is neither a host name nor an IP address"),
        ({"KRUN_GATEWAY": "gw"}, "KRUN_GATEWAY: 'gw' has no port"),
        ({"KRUN_GATEWAY": "gw:0"}, "KRUN_GATEWAY: '0' is not a port"),
        ({"KRUN_GATEWAY": "gw:١٢"}, "is not a port"),
        ({"KRUN_GATEWAY": "gw:-1"}, "is not a port"),
        ({"KRUN_GATEWAY": "gw:" + "9" * 5000}, "is not a port"),
        ({"KRUN_GATEWAY": "https://gw:443"}, "neither a host name nor an IP address"),
        ({"KRUN_GATEWAY": ":443"}, "neither a host name nor an IP address"),
        ({"KRUN_GATEWAY": "2001:db8::g:443"}, "neither a host name nor an IP address"),
        ({"KRUN_LOOPBACK": "0.0.0.0"}, "KRUN_LOOPBACK: '0.0.0.0' is not a loopback address"),
        ({"KRUN_LOOPBACK": "::1"}, "KRUN_LOOPBACK: '::1' is not a loopback address"),
        ({"WORKLOAD_NAME": "a\udcff"}, "WORKLOAD_NAME: 'a\\udcff' is not the name of a workload"),
        ({"WORKLOAD_NAME": "a b"}, "WORKLOAD_NAME: 'a b' is not the name of a workload"),
        ({"KRUN_LOOPBACK": "localhost"}, "KRUN_LOOPBACK: 'localhost' is not a loopback address"),
        ({"WORKLOAD_NAMESPACE": 'x"]=1 os.exit()--'}, "WORKLOAD_NAMESPACE"),
        ({"KRUN_MESH_NAMESPACES": "a b"}, "KRUN_MESH_NAMESPACES: 'a b'"),
        ({"TRUST_DOMAIN": "spiffe://x"}, "TRUST_DOMAIN: 'spiffe://x'"),
        ({"PORT_http": "http"}, "PORT_http: 'http' is not a port"),
        ({"PORT_http": "15007"}, "PORT_http: 15007 is Envoy's HTTP proxy"),
        ({"PORT_grpc": "15000"}, "PORT_grpc: 15000 is Envoy's admin interface"),
        ({"KRUN_GATEWAY": "127.0.0.1:15007"}, "is this workload itself"),
        ({"KRUN_GATEWAY": "127.0.0.1:8080"}, "is this workload itself"),
    ],
)
def test_a_wrong_setting_is_named(env: dict[str, str], words: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        settings(**env)
    assert words in caught.value.message
    assert caught.value.hint


NAMES = st.sampled_from(sorted(MOST))


@given(st.dictionaries(NAMES, st.text(alphabet=st.characters(exclude_characters="\0"), max_size=40)))
def test_any_text_is_a_setting_or_is_refused_and_never_changes_the_script(env: dict[str, str]) -> None:
    try:
        found = settings(**env)
    except Misconfigured:
        return
    script = envoy_outbound.names_script(found)
    constants = script.removesuffix(Path(envoy_outbound.__file__).with_name("names.lua").read_text())
    assert len(constants.splitlines()) == 6
    assert constants.count('"') == 4 + 2 * len(found.mesh_namespaces)
    json.loads(static_envoy.files(found)["envoy.json"])


def test_envoy_drains_at_once_and_starts_by_itself() -> None:
    argv = static_envoy.argv(envoy="/opt/envoy", run_dir=RUN, log_level="info", drain_seconds=3)
    assert argv[:5] == ("/opt/envoy", "--config-path", "/run/krun/envoy.json", "--log-level", "info")
    assert "--disable-hot-restart" in argv
    assert argv[argv.index("--drain-time-s") + 1] == "3"
    assert argv[argv.index("--drain-strategy") + 1] == "immediate"


def addresses(value: object) -> Iterator[str]:
    """Every address that is listened on or dialled."""
    if isinstance(value, dict):
        if "port_value" in value:
            yield f"{value['address']}:{value['port_value']}"
        for item in value.values():
            yield from addresses(item)
    elif isinstance(value, list):
        for item in value:
            yield from addresses(item)


def test_every_address_is_of_our_loopback_but_the_gateways() -> None:
    found = set(addresses(json.loads(static_envoy.files(static_envoy.settings(MOST, run_dir=RUN))["envoy.json"])))
    ours = {f"127.0.0.2:{port}" for port in (15000, 15003, 15007, 3000, 9090)}
    assert found == {*ours, "gateway.example:443"}
