"""Which names are mesh names: the script as it is, in a real Envoy."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
from collections.abc import Callable, Iterator

import pytest

from krun_testbed import addresses
from krun_testbed.static_mesh import WAIT, environment, started, write_files

pytestmark = pytest.mark.loopback


@pytest.fixture(scope="module")
def decide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[int, str]]]:
    """The script of names as it is, in a real Envoy whose routes only say what the script decided: no DNS is asked."""
    directory, address = tmp_path_factory.mktemp("names"), addresses.loopback()
    write_files(directory, environment(address, f"{address}:1"))
    path = directory / "envoy.json"
    bootstrap = json.loads(path.read_text())
    resources = bootstrap["static_resources"]
    outbound = resources["listeners"].pop()
    resources["listeners"], resources["clusters"] = [outbound], []
    manager = outbound["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = [item for item in manager["http_filters"] if "dynamic" not in item["name"]]
    say = {"header": {"key": "sni", "value": "%REQ(X-KRUN-SNI)%"}}
    mesh = {"prefix": "/", "headers": [{"name": "x-krun-sni", "present_match": True}]}
    manager["route_config"]["virtual_hosts"][0]["routes"] = [
        {"match": mesh, "direct_response": {"status": 200}, "response_headers_to_add": [say]},
        {"match": {"prefix": "/"}, "direct_response": {"status": 200}},
    ]
    path.write_text(json.dumps(bootstrap))
    with (
        started(directory, address),
        contextlib.closing(http.client.HTTPConnection(address, 15007, timeout=WAIT)) as connection,
    ):

        def ask(host: str) -> tuple[int, str]:
            connection.request("GET", "/", headers={"Host": host})
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.headers.get("sni", "outside")

        yield ask


def sni(name: str, port: int = 80) -> str:
    return f"outbound_.{port}_._.{name}.svc.cluster.local"


@pytest.mark.parametrize(
    ("host", "decision"),
    [
        ("b", sni("b.demo")),
        ("b:8080", sni("b.demo", 8080)),
        ("b.", sni("b.demo")),
        ("B.Demo:8080", sni("b.demo", 8080)),
        ("b-2", sni("b-2.demo")),
        ("b:65535", sni("b.demo", 65535)),
        ("b.demo", sni("b.demo")),
        ("b.demo:443", sni("b.demo", 443)),
        ("b.web", sni("b.web")),
        ("b.demo.svc", sni("b.demo")),
        ("b.other.svc:9090", sni("b.other", 9090)),
        ("b.other.svc.", sni("b.other")),
        ("b.demo.svc.cluster.local", sni("b.demo")),
        ("b.demo.svc.cluster.local.:8080", sni("b.demo", 8080)),
        ("0.b.demo.svc.cluster.local", sni("0.b.demo")),
        ("b.other", "outside"),
        ("example.com", "outside"),
        ("www.b.demo", "outside"),
        ("b.demo.cluster.local", "outside"),
        ("svc.cluster.local.example.com", "outside"),
        ("bsvc", sni("bsvc.demo")),
        ("b.xsvc", "outside"),
        ("metadata.google.internal", "outside"),
        ("localhost", "outside"),
        ("LOCALHOST.", "outside"),
        ("localhost:8080", "outside"),
        ("10.0.0.1", "outside"),
        ("10.0.0.1:8080", "outside"),
        ("127.0.0.1:8080", "outside"),
        ("[::1]:8080", "outside"),
        ("[2001:db8::1]", "outside"),
        ("under_score", "outside"),
        ("-b", "outside"),
        ("b..svc", "outside"),
        (".svc", "outside"),
        ("x" * 64, "outside"),
    ],
)
def test_each_form_of_a_name_is_in_the_mesh_or_outside(
    decide: Callable[[str], tuple[int, str]], host: str, decision: str
) -> None:
    assert decide(host) == (200, decision)


@pytest.mark.parametrize("host", ["b:0", "b:65536", "b:99999999999999999999", "b:http", "b:80:80", ":80"])
def test_a_host_that_is_none_is_refused(decide: Callable[[str], tuple[int, str]], host: str) -> None:
    assert decide(host)[0] == 400


@pytest.mark.parametrize(
    "host",
    [
        "localhost:15000",
        "localhost.:15007",
        "x.localhost:15000",
        "127.0.0.1:15007",
        "127.9.9.9:15003",
        "[::1]:15000",
        "0.0.0.0:15000",
        "example.com:15007",
    ],
)
def test_the_proxy_does_not_lead_to_itself(decide: Callable[[str], tuple[int, str]], host: str) -> None:
    assert decide(host)[0] == 403


def test_envoys_ports_elsewhere_are_ports_like_others(decide: Callable[[str], tuple[int, str]]) -> None:
    assert decide("example.com:15000") == (200, "outside")
