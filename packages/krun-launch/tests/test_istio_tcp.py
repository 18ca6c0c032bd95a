"""KRUN_TCP: what it says, what is refused by name, and the listeners that come of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_launch import istio_tcp
from krun_launch.errors import Misconfigured
from krun_launch.istio_settings import IstioSettings, TcpService, settings
from krun_launch.plan import Port

RUN = Path("/run/krun/agent")


def found(text: str, **env: str) -> IstioSettings:
    given = {"XDS_ADDR": "istiod.istio-system.svc:15012", "WORKLOAD_NAMESPACE": "demo", "KRUN_TCP": text, **env}
    return settings(given, run_dir=RUN, instance="1", is_captured=False)


@pytest.mark.parametrize(
    ("service", "host"),
    [
        ("cache", "cache.demo.svc.cluster.local"),
        ("Cache.Other", "cache.other.svc.cluster.local"),
        ("cache.other.svc", "cache.other.svc.cluster.local"),
        ("cache.other.svc.cluster.local", "cache.other.svc.cluster.local"),
        ("cache.other.svc.cluster.local.", "cache.other.svc.cluster.local"),
        ("db.eu.example.com", "db.eu.example.com"),
        ("example.com.", "example.com"),
    ],
)
def test_a_service_is_named_as_in_the_mesh(service: str, host: str) -> None:
    services = istio_tcp.parse(f"6379={service}:6380", namespace="demo")
    assert services == (TcpService(port=6379, host=host, target_port=6380),)


def test_there_may_be_several_and_blanks_between_them() -> None:
    services = istio_tcp.parse(" 6379=cache:6379, 5432=db.data:5432 ,", namespace="demo")
    assert [(one.port, one.host) for one in services] == [
        (6379, "cache.demo.svc.cluster.local"),
        (5432, "db.data.svc.cluster.local"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("6379", "KRUN_TCP: '6379' is not PORT=SERVICE:PORT"),
        ("6379=cache", "'6379=cache' is not PORT=SERVICE:PORT"),
        ("6379=cache:1:2", "is not PORT=SERVICE:PORT"),
        ("http=cache:1", "KRUN_TCP: 'http' is not a port"),
        ("6379=cache:redis", "KRUN_TCP: 'redis' is not a port"),
        ("0=cache:1", "KRUN_TCP: '0' is not a port"),
        ("6379=:1", "KRUN_TCP: '' is not the name of a service"),
        ("6379=a|b:1", "KRUN_TCP: 'a|b' is not the name of a service"),
        ("6379=a..b:1", "KRUN_TCP: 'a..b' is not the name of a service"),
        ("15007=cache:1", "KRUN_TCP: port 15007 is one of Envoy's, of the agent's or of krun's"),
        ("6379=cache:1,6379=db:1", "KRUN_TCP: port 6379 is there twice"),
    ],
)
def test_what_is_no_service_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        istio_tcp.parse(text, namespace="demo")
    assert words in caught.value.message
    assert caught.value.hint


@given(st.text(max_size=60))
def test_any_text_is_services_or_is_refused(text: str) -> None:
    try:
        services = istio_tcp.parse(text, namespace="demo")
    except Misconfigured:
        return
    for service in services:
        assert istio_tcp.HOST.fullmatch(service.host)
        assert 0 < service.port < 65536


def test_the_ports_must_be_free_and_say_what_they_are_for() -> None:
    (port,) = istio_tcp.ports(found("6379=cache:6380"))
    assert port == Port(name="cache.demo.svc.cluster.local:6380", host="127.0.0.1", number=6379, variable="KRUN_TCP")


def test_the_applications_own_port_is_refused() -> None:
    with pytest.raises(Misconfigured, match="port 3000 is where the application listens"):
        istio_tcp.ports(found("3000=cache:6379", PORT_http="3000"))


def test_a_listener_leads_to_istiods_cluster_and_never_ends_a_quiet_connection() -> None:
    (listener,) = istio_tcp.listeners(found("6379=cache:6380"))
    assert listener["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 6379}
    (proxy,) = listener["filter_chains"][0]["filters"]
    assert proxy["typed_config"]["cluster"] == "outbound|6380||cache.demo.svc.cluster.local"
    assert proxy["typed_config"]["idle_timeout"] == "0s"
    assert "listener_filters" not in listener  # a server may speak first
