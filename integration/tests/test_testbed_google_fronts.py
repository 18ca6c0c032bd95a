"""The ways to the stand-ins for Google's APIs, and by them to a real API server: variables, a proxy, fronts."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import ssl
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from krun_testbed import google_api_faults as faults
from krun_testbed import processes
from krun_testbed.certificates import Authority
from krun_testbed.google_api import PROJECT, GoogleApi
from krun_testbed.google_api_client import CLUSTERS, EMAIL, FORM, Client
from krun_testbed.google_api_kubernetes import front
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_client import ApiError

pytestmark = pytest.mark.loopback


@pytest.fixture
def client(google: GoogleApi) -> Client:
    return Client(google)


def test_gclouds_own_variables_lead_to_the_servers(google: GoogleApi) -> None:
    environment = google.environment
    assert environment["SSL_CERT_FILE"] == str(google.roots)
    for name in ("CONTAINER", "GKEHUB", "CLOUDRESOURCEMANAGER", "IAMCREDENTIALS", "STS", "CONNECTGATEWAY"):
        url = environment[f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{name}"]
        assert url == google.servers[name.lower()].url
        assert url.endswith("/")
    assert environment["CLOUDSDK_AUTH_TOKEN_HOST"] == f"{google.servers['oauth2'].url}token"


@contextlib.contextmanager
def through(proxy: str, host: str, *, roots: str | bytes) -> Iterator[http.client.HTTPSConnection]:
    """A connection to a true name, as a client with HTTPS_PROXY makes it."""
    where = urlsplit(proxy)
    trust = ssl.create_default_context(
        cadata=roots.decode() if isinstance(roots, bytes) else None, cafile=roots if isinstance(roots, str) else None
    )
    connection = http.client.HTTPSConnection(where.hostname or "", where.port, timeout=10, context=trust)
    connection.set_tunnel(host, 443)
    with contextlib.closing(connection):
        yield connection


def test_a_proxy_leads_to_them_by_their_true_names_and_to_nobody_else(
    google: GoogleApi, client: Client, address: str
) -> None:
    headers = {"Authorization": f"Bearer {client.token}"}
    with google.proxied(address=address) as environment:
        proxy = environment["HTTPS_PROXY"]
        for host in ("container.googleapis.com", "us-central1-connectgateway.googleapis.com", "sts.googleapis.com"):
            with through(proxy, host, roots=environment["SSL_CERT_FILE"]) as connection:
                connection.request("GET", CLUSTERS, headers=headers)
                assert connection.getresponse().status in (200, 404)
        assert [asked.api for asked in google.requests] == ["container", "connectgateway", "sts"]
        with (
            through(proxy, "example.com", roots=environment["SSL_CERT_FILE"]) as connection,
            pytest.raises(OSError, match="403"),
        ):
            connection.request("GET", "/")


SELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def who(answer: Any) -> str:
    return str(answer["status"]["userInfo"]["username"])


@pytest.mark.kubernetes
def test_a_cluster_takes_googles_tokens_straight_and_by_both_fronts(
    google: GoogleApi, client: Client, kubernetes: Kubernetes
) -> None:
    made = google.add(kubernetes, "demo", fleet="global")
    assert client.ask("container", CLUSTERS)[1]["clusters"] == [made]
    assert base64.b64decode(made["masterAuth"]["clusterCaCertificate"]) == kubernetes.root
    assert who(kubernetes.caller(client.token).create(SELF, {})) == EMAIL
    host = made["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]["endpoint"]
    status, answer = client.ask("dns", SELF, method="POST", body={"kind": "SelfSubjectReview"}, Host=host)
    assert (status, who(answer)) == (201, EMAIL)
    gateway = f"/v1/projects/{PROJECT.number}/locations/global/gkeMemberships/demo"
    status, answer = client.post("connectgateway", f"{gateway}{SELF}", {"kind": "SelfSubjectReview"})
    assert (status, who(answer)) == (201, EMAIL)
    # What the API server refuses comes back as it said it.
    path = f"{gateway}/api/v1/nodes?limit=1"
    assert client.ask("connectgateway", path)[1]["reason"] == "Forbidden"
    assert client.refusal("connectgateway", path.replace(PROJECT.number, PROJECT.id))[0] == 404


@pytest.mark.kubernetes
def test_the_dns_endpoint_takes_no_tokens_of_the_cluster_unless_it_is_told_to(
    google: GoogleApi, client: Client, kubernetes: Kubernetes, namespace: str
) -> None:
    made = google.add(kubernetes, "demo")
    config = made["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]
    host = config["endpoint"]
    client.token = kubernetes.token("default", namespace=namespace)
    assert client.refusal("dns", "/api/v1/nodes", Host=host)[0] == 401
    config["enableK8sTokensViaDns"] = True
    assert client.ask("dns", "/api/v1/nodes", Host=host)[1]["reason"] == "Forbidden"
    client.token = google.accounts.access_token(EMAIL)
    google.accounts.forbidden.add((EMAIL, "container.clusters.connect"))
    assert client.refusal("dns", "/version", Host=host) == (403, "PERMISSION_DENIED", "IAM_PERMISSION_DENIED")
    google.accounts.forbidden.clear()
    del config["allowExternalTraffic"]
    assert client.refusal("dns", "/version", Host=host)[:2] == (403, "PERMISSION_DENIED")


@pytest.mark.kubernetes
def test_a_service_account_of_the_cluster_becomes_one_of_google(
    google: GoogleApi, client: Client, kubernetes: Kubernetes, namespace: str
) -> None:
    google.add(kubernetes, "demo")
    pool = "demo-project.svc.id.goog"
    types = "urn:ietf:params:oauth:token-type:"
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": f"identitynamespace:{pool}:{kubernetes.server.issuer}",
        "requested_token_type": f"{types}access_token",
        "subject_token_type": f"{types}jwt",
        "subject_token": kubernetes.token("default", namespace=namespace, audiences=(pool,)),
    }
    status, found = client.post("sts", "/v1/token", form, kind=FORM)
    assert (status, google.accounts.holder(found["access_token"])) == (200, f"{pool}[{namespace}/default]")
    google.accounts.actors[EMAIL] = {f"{pool}[{namespace}/default]"}
    client.token = found["access_token"]
    path = f"/v1/projects/-/serviceAccounts/{EMAIL}:generateIdToken"
    assert client.post("iamcredentials", path, {"audience": "a", "includeEmail": True})[0] == 200
    # A token for another audience is not one for Google.
    form["subject_token"] = kubernetes.token("default", namespace=namespace)
    assert client.post("sts", "/v1/token", form, kind=FORM)[1]["error"] == "invalid_grant"


@pytest.mark.kubernetes
def test_a_proxy_leads_to_the_clusters_own_addresses(
    google: GoogleApi, client: Client, kubernetes: Kubernetes, address: str
) -> None:
    made = google.add(kubernetes, "demo", private="10.128.0.10")
    headers = {"Authorization": f"Bearer {client.token}"}
    with google.proxied(kubernetes, address=address) as environment:
        proxy = environment["HTTPS_PROXY"]
        addresses = made["controlPlaneEndpointsConfig"]["ipEndpointsConfig"]
        for host in (addresses["publicEndpoint"], addresses["privateEndpoint"]):
            with through(proxy, host, roots=kubernetes.root) as connection:
                connection.request("GET", "/api/v1/nodes", headers=headers)
                assert connection.getresponse().status == 403
        name = made["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]["endpoint"]
        with through(proxy, name, roots=environment["SSL_CERT_FILE"]) as connection:
            connection.request("GET", "/api/v1/nodes", headers=headers)
            assert connection.getresponse().status == 403


@pytest.mark.kubernetes
def test_a_front_before_the_api_server_notes_and_disturbs(
    kubernetes: Kubernetes, address: str, authority: Authority
) -> None:
    caller = kubernetes.caller(kubernetes.outsider(EMAIL))
    with front(kubernetes, address=address, authority=authority) as server:
        caller = replace(caller, url=server.url.rstrip("/"), root=authority.root)
        assert who(caller.create(SELF, {})) == EMAIL
        assert [(asked.method, asked.path) for asked in server.requests] == [("POST", SELF)]
        server.faults.append(faults.status(503, times=1))
        with pytest.raises(ApiError) as caught:
            caller.get(SELF)
        assert caught.value.status == 503


@pytest.mark.kubernetes
def test_all_of_it_runs_alone(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    argv = [sys.executable, "-m", "krun_testbed.google_api", str(file)]
    with processes.start(argv, env=dict(os.environ)) as running:
        running.wait_for(r"ready environment=", timeout=60)
        environment = dict(line.split("=", 1) for line in file.read_text(encoding="utf-8").splitlines())
        assert environment["GCE_METADATA_HOST"]
        with through(
            environment["HTTPS_PROXY"], "container.googleapis.com", roots=environment["SSL_CERT_FILE"]
        ) as connection:
            connection.request("GET", CLUSTERS)
            assert connection.getresponse().status == 401
        assert running.terminate() == 0
