"""Which mode is in force."""

from __future__ import annotations

import click
import pytest

from krun_launch.errors import Misconfigured
from krun_launch.facts import Facts
from krun_launch.mode import choose

BARE = Facts()
ENVOY = Facts(envoy="/opt/envoy")
AGENT = Facts(envoy="/opt/envoy", pilot_agent="/opt/pilot-agent", template="/opt/template.json")
MOUNTED = Facts(envoy="/opt/envoy", has_default_certs=True)


@pytest.mark.parametrize(
    ("env", "facts", "mode", "reason"),
    [
        ({}, BARE, "none", "nothing in the environment names a mesh"),
        ({}, ENVOY, "none", "nothing in the environment names a mesh"),
        ({}, MOUNTED, "static", "envoy is there, and certificates are mounted"),
        ({"XDS_ADDR": "-"}, MOUNTED, "none", "XDS_ADDR=-"),
        ({"XDS_ADDR": "-", "KRUN_MODE": "static"}, MOUNTED, "static", "KRUN_MODE=static"),
        ({"MESH": "static:g:1"}, ENVOY, "static", "MESH=static:"),
        ({"MESH": "static:g:1", "XDS_ADDR": "-"}, ENVOY, "static", "MESH=static:"),
        ({"MESH": "file:x"}, ENVOY, "none", "nothing in the environment names a mesh"),
        ({"KRUN_GATEWAY": "g:1"}, ENVOY, "static", "envoy is there, and KRUN_GATEWAY"),
        ({"MCON_ADDR": "1.2.3.4"}, ENVOY, "static", "envoy is there, and MCON_ADDR"),
        ({"KRUN_CERTS": "/c"}, ENVOY, "static", "envoy is there, and KRUN_CERTS"),
        ({"KRUN_GATEWAY": "g:1"}, BARE, "none", "there is no envoy"),
        ({"KRUN_GATEWAY": "g:1", "KRUN_MODE": "none"}, ENVOY, "none", "KRUN_MODE=none"),
        ({"KRUN_MODE": ""}, BARE, "none", "nothing in the environment names a mesh"),
    ],
)
def test_choice(env: dict[str, str], facts: Facts, mode: str, reason: str) -> None:
    choice = choose(env, facts=facts)
    assert (choice.mode, choice.reason) == (mode, reason)


def test_mode_of_a_later_version_is_refused_by_name() -> None:
    with pytest.raises(Misconfigured, match="KRUN_MODE=proxyless: this version"):
        choose({"KRUN_MODE": "proxyless"}, facts=MOUNTED)


@pytest.mark.parametrize("way", ["captured", "whitebox"])
def test_a_way_of_interception_that_is_asked_for_is_static_mode(way: str) -> None:
    choice = choose({"KRUN_MODE": way}, facts=ENVOY)
    assert (choice.mode, choice.reason) == ("static", f"KRUN_MODE={way}")
    with pytest.raises(Misconfigured, match="no envoy in PATH"):
        choose({"KRUN_MODE": way}, facts=BARE)


@pytest.mark.parametrize("asked", [{}, {"KRUN_MODE": "captured"}, {"KRUN_MODE": "whitebox"}, {"MESH": "gke://p"}])
@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"XDS_ADDR": "istiod:15012"}, "XDS_ADDR=istiod:15012"),
        ({"XDS_ADDR": "[2001:db8::1]:15012"}, "XDS_ADDR=[2001:db8::1]:15012"),
        ({"PROXY_CONFIG": "discoveryAddress: istiod.x:15012"}, "XDS_ADDR=istiod.x:15012"),
        ({"PROXY_CONFIG": '{"discoveryAddress": "a:1"}', "XDS_ADDR": "istiod:15012"}, "XDS_ADDR=istiod:15012"),
    ],
)
def test_a_control_plane_is_joined(env: dict[str, str], reason: str, asked: dict[str, str]) -> None:
    choice = choose({**env, **asked}, facts=AGENT)
    assert (choice.mode, choice.reason) == ("istio", reason)


@pytest.mark.parametrize("asked", [{"KRUN_MODE": "static"}, {"MESH": "static:g:1"}])
def test_static_by_name_goes_without_the_control_plane(asked: dict[str, str]) -> None:
    assert choose({"XDS_ADDR": "istiod:15012", **asked}, facts=AGENT).mode == "static"
    assert choose({"XDS_ADDR": "istiod:15012", "KRUN_MODE": "none"}, facts=AGENT).mode == "none"


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"XDS_ADDR": "istiod:15012"}, "XDS_ADDR=istiod:15012.*pilot-agent is not there"),
        ({"XDS_ADDR": "istiod:15012", "KRUN_PILOT_AGENT": "/no"}, "KRUN_PILOT_AGENT=/no: not there"),
        ({"XDS_ADDR": "istiod"}, "XDS_ADDR='istiod': not HOST:PORT"),
        ({"XDS_ADDR": "istiod:70000"}, "XDS_ADDR='istiod:70000': not HOST:PORT"),
        ({"XDS_ADDR": "meshconfig.googleapis.com:443"}, "Google's own control plane"),
        ({"XDS_ADDR": "a:1", "MESH": "td:projects=1&scopes=x"}, "Google's own control plane"),
        ({"PROXY_CONFIG": "discoveryAddress: {"}, "PROXY_CONFIG: neither JSON nor YAML .line 1."),
        ({"MESH": "gke://project"}, "MESH=gke://project"),
    ],
)
def test_mesh_that_cannot_be_joined_is_no_silent_step_down(env: dict[str, str], named: str) -> None:
    with pytest.raises(Misconfigured, match=named) as caught:
        choose(env, facts=MOUNTED)
    assert caught.value.hint


def test_unknown_mode_is_wrong_usage() -> None:
    with pytest.raises(click.UsageError, match="'sideways' is not one of"):
        choose({"KRUN_MODE": "sideways"}, facts=MOUNTED)


@pytest.mark.parametrize(
    "env",
    [{"KRUN_MODE": "static"}, {"MESH": "static:g:1"}, {"KRUN_GATEWAY": "g:1", "KRUN_ENVOY": "/no/envoy"}],
)
def test_static_by_name_never_falls_back(env: dict[str, str]) -> None:
    with pytest.raises(Misconfigured) as caught:
        choose(env, facts=BARE)
    assert caught.value.hint
