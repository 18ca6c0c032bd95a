"""What goes wrong on demand with the stand-ins for Google's APIs, and what they note."""

from __future__ import annotations

import http.client
import ssl
import time
from pathlib import Path

import pytest

from krun_testbed import google_api
from krun_testbed import google_api_faults as faults
from krun_testbed.addresses import loopback
from krun_testbed.certificates import Authority
from krun_testbed.google_api import GoogleApi
from krun_testbed.google_api_client import CLUSTERS, FORM, Client, add_clusters

pytestmark = pytest.mark.loopback


@pytest.fixture
def client(google: GoogleApi) -> Client:
    return Client(google)


def test_every_request_is_written_down(google: GoogleApi, client: Client) -> None:
    client.ask("container", f"{CLUSTERS}?fields=clusters(name)", **{"X-Goog-User-Project": "p"})
    client.post("sts", "/v1/token", {"audience": "a b"}, kind=FORM)
    listed, exchanged = google.requests
    assert (listed.api, listed.method, listed.path) == ("container", "GET", CLUSTERS)
    assert listed.query == {"fields": "clusters(name)"}
    assert (listed.bearer, listed.headers["x-goog-user-project"]) == (client.token, "p")
    assert exchanged.fields == {"audience": "a b"}
    assert google.servers["sts"].requests == [exchanged]


def test_what_the_stand_in_cannot_do_fails_the_test(authority: Authority, tmp_path: Path) -> None:
    def verify(token: str) -> str:
        raise RuntimeError("nobody thought of this")

    def ask() -> None:
        with google_api.running(address=loopback(), directory=tmp_path, authority=authority) as google:
            google.sts.providers["x"] = verify
            types = "urn:ietf:params:oauth:token-type:"
            form = {"grantType": "urn:ietf:params:oauth:grant-type:token-exchange", "subjectToken": "x"}
            form |= {"requestedTokenType": f"{types}access_token", "subjectTokenType": f"{types}jwt", "audience": "x"}
            assert Client(google).post("sts", "/v1/token", form)[0] == 500

    with pytest.raises(AssertionError, match="nobody thought of this"):
        ask()


def test_errors_on_demand_are_counted_and_are_of_one_path(google: GoogleApi, client: Client) -> None:
    server = google.servers["container"]
    server.faults.append(faults.status(503, path="/clusters$", times=2))
    server.faults.append(faults.status(429, "Quota exceeded.", times=1, headers={"Retry-After": "7"}))
    assert client.refusal("container", CLUSTERS)[:2] == (503, "UNAVAILABLE")
    assert client.refusal("container", CLUSTERS)[:2] == (503, "UNAVAILABLE")
    assert client.refusal("container", CLUSTERS)[:2] == (429, "RESOURCE_EXHAUSTED")
    assert client.headers["retry-after"] == "7"
    assert client.ask("container", CLUSTERS)[0] == 200
    server.faults.append(faults.status(500, path="/other"))
    assert client.ask("container", CLUSTERS)[0] == 200
    server.faults[:] = [faults.disabled("container.googleapis.com", project="demo-project")]
    assert client.refusal("container", CLUSTERS) == (403, "PERMISSION_DENIED", "SERVICE_DISABLED")
    server.faults[:] = [faults.malformed()]
    assert client.ask("container", CLUSTERS) == (200, "<html>502 Bad Gateway</html>")
    server.faults[:] = [faults.redirect("https://elsewhere.example/v1/token")]
    assert client.ask("container", CLUSTERS)[0] == 302
    assert client.headers["location"] == "https://elsewhere.example/v1/token"


def test_connections_on_demand_are_slow_or_silent_or_end_early(google: GoogleApi, client: Client) -> None:
    server = google.servers["container"]
    server.faults.append(faults.slow(0.2, times=1))
    started = time.monotonic()
    assert client.ask("container", CLUSTERS)[0] == 200
    assert time.monotonic() - started >= 0.2
    server.faults[:] = [faults.hang()]
    with pytest.raises(TimeoutError):
        client.ask("container", CLUSTERS, timeout=0.3)
    server.faults[:] = [faults.cut()]
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError, ssl.SSLError)):
        client.ask("container", CLUSTERS)
    add_clusters(google, "one")
    server.faults[:] = [faults.drip(0.01, times=1)]
    started = time.monotonic()
    assert client.ask("container", f"{CLUSTERS}?fields=clusters/name", timeout=0.3)[0] == 200
    assert time.monotonic() - started > 0.3
    server.faults[:] = [faults.cut(after=10)]
    with pytest.raises(http.client.IncompleteRead):
        client.ask("container", CLUSTERS)


def test_a_server_is_down_for_a_while_at_the_same_address(google: GoogleApi, client: Client) -> None:
    server = google.servers["sts"]
    with server.down(), pytest.raises(ConnectionRefusedError):
        client.ask("sts", "/v1/token")
    assert client.ask("sts", "/v1/token")[0] == 404


def test_a_certificate_of_another_host_or_authority_is_shown_on_demand(google: GoogleApi, client: Client) -> None:
    server = google.servers["sts"]
    host = server.where()[0]
    wrong = {
        "another host": google.authority.server(hosts=("elsewhere.example",)),
        "another authority": Authority().server(hosts=(host,)),
    }
    for what, certificate in wrong.items():
        with server.certified(certificate), pytest.raises(ssl.SSLCertVerificationError):
            client.ask("sts", "/v1/token")
        assert server.requests == [], what
    assert client.ask("sts", "/v1/token")[0] == 404
