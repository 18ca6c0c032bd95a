"""The public's way into a container, as a neighbour tries it: the application, and nothing of Envoy or the agent."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from krun_testbed import components, processes
from krun_testbed.containers import Container
from krun_testbed.containers_mesh import Mesh

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

FORGED = {
    "X-Forwarded-Client-Cert": "By=spiffe://x/y",
    "x_forwarded_client_cert": "By=spiffe://x/y",
    "X-Envoy-Original-Path": "/admin",
    "X-Envoy-Peer-Metadata": "x",
    "x-krun-sni": "outbound_.80_._.b.demo.svc.cluster.local",
    "Proxy": "http://evil.example",
    "Proxy-Authorization": "Basic eDp5",
}
RESERVED = (
    "/_hbone",
    "/_hbone/15000",
    "/_hbone/15001",
    "/_hbone/15053",
    "/_hbone/../",
    "/_hbone/../admin",
    "/_hbone/%31%35000",
    "/%5fhbone/15000",
    "/%255fhbone/15000",
    "//_hbone/15000",
    "/x/../_hbone/15000",
    "/./_hbone/15000",
    "/_hbone//15000",
    "/_HBONE/15000",
    "/_hbone;x/15000",
    "/_hbone/15000?x=1",
)
MALFORMED = {
    "both framings": "POST / HTTP/1.1|Host: c|Content-Length: 3|Transfer-Encoding: chunked||0||",
    "two lengths": "POST / HTTP/1.1|Host: c|Content-Length: 3|Content-Length: 4||abcd",
    "no number": "POST / HTTP/1.1|Host: c|Content-Length: +3||abc",
    "NUL": "GET / HTTP/1.1|Host: c|X: a\\0b||",
    "lone CR": "GET / HTTP/1.1|Host: c|X: a\\rb||",
    "lone LF": "GET / HTTP/1.1|Host: c|X: a\\nY: b||",
    "folded": "GET / HTTP/1.1|Host: c|X: a| b||",
    "user in host": "GET / HTTP/1.1|Host: user@c||",
    "space in host": "GET / HTTP/1.1|Host: c d||",
    "path in host": "GET / HTTP/1.1|Host: c/d||",
    "two hosts": "GET / HTTP/1.1|Host: c|Host: d||",
    "no host": "GET / HTTP/1.1||",
    "space before colon": "GET / HTTP/1.1|Host: c|X : a||",
}
# Run in the neighbour: sends the bytes as they are, prints the first line of the answer.
SEND = """
import socket, sys
address, text = sys.argv[1], sys.argv[2].replace("|", "\\r\\n").encode().decode("unicode_escape").encode("latin-1")
with socket.create_connection((address, 15009), timeout=10) as connection:
    connection.sendall(text)
    print(connection.makefile("rb").readline().decode().strip())
"""


@pytest.fixture(scope="module")
def workload(mesh: Mesh) -> Iterator[Container]:
    with mesh.workload("pipeline", name="c") as c:
        yield c


@pytest.fixture(scope="module")
def neighbour(mesh: Mesh) -> Iterator[Container]:
    with mesh.plain("sleep", "600") as container:
        yield container


def sent(neighbour: Container, workload: Container, text: str) -> str:
    """The first line that answers these bytes; ``|`` is the end of a line."""
    return neighbour.exec("python3", "-I", "-c", SEND, workload.address(), text).stdout.strip()


def asked(workload: Container, path: str, *options: str, flag: str) -> tuple[int, str]:
    curl = [components.program("curl", package="curl"), "--silent", "--path-as-is", flag, *options]
    done = processes.run([*curl, "--write-out", " %{http_code}", f"http://{workload.address()}:15009{path}"])
    body, _, status = done.stdout.rpartition(" ")
    return int(status), body


@pytest.mark.parametrize("flag", ["--http1.1", "--http2-prior-knowledge"])
def test_application_sees_the_request_and_nothing_that_was_forged(flag: str, workload: Container) -> None:
    headers = [word for name, value in FORGED.items() for word in ("--header", f"{name}: {value}")]
    status, body = asked(workload, "/public?q=1", *headers, "--header", "X-Own: stays", flag=flag)
    assert status == 200
    seen = json.loads(body)
    assert seen["path"] == "/public?q=1"
    assert seen["headers"]["x-own"] == "stays"
    names = {name.replace("_", "-") for name in seen["headers"]}
    assert names & {name.lower().replace("_", "-") for name in FORGED} == set()


@pytest.mark.parametrize("flag", ["--http1.1", "--http2-prior-knowledge"])
def test_no_form_of_a_reserved_path_leads_anywhere(flag: str, workload: Container) -> None:
    for path in RESERVED:
        assert asked(workload, path, flag=flag)[0] == 404, path
        # This curl waits for ever when an answer over HTTP/2 overtakes its body.
        if flag == "--http1.1":
            assert asked(workload, path, "--data", "x", flag=flag)[0] == 404, path


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_request_of_a_neighbour_is_400(name: str, workload: Container, neighbour: Container) -> None:
    assert sent(neighbour, workload, MALFORMED[name]).split(" ")[1:2] == ["400"], name


def test_none_of_it_when_the_public_is_not_wanted(mesh: Mesh) -> None:
    with mesh.workload("pipeline", name="c", env={"KRUN_PUBLIC": "none"}) as c:
        for flag in ("--http1.1", "--http2-prior-knowledge"):
            assert asked(c, "/public", flag=flag)[0] == 404
