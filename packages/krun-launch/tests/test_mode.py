"""Which mode is in force."""

from __future__ import annotations

import click
import pytest

from krun_launch.errors import Misconfigured
from krun_launch.facts import Facts
from krun_launch.mode import choose

BARE = Facts()
ENVOY = Facts(envoy="/opt/envoy")
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
    with pytest.raises(Misconfigured, match="XDS_ADDR=istiod:15012"):
        choose({"KRUN_MODE": way, "XDS_ADDR": "istiod:15012"}, facts=ENVOY)


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"XDS_ADDR": "istiod:15012"}, "XDS_ADDR=istiod:15012"),
        ({"XDS_ADDR": "istiod:15012", "MESH": "static:g:1"}, "XDS_ADDR=istiod:15012"),
        ({"MESH": "gke://project"}, "MESH=gke://project"),
    ],
)
def test_mesh_that_this_version_cannot_join_is_no_silent_step_down(env: dict[str, str], named: str) -> None:
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
