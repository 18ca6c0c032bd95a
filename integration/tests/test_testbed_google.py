"""The stand-ins for Google's APIs: their answers, and whom they refuse and how."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import google.auth.transport
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from google.auth import identity_pool
from google.oauth2 import service_account

from krun_testbed.google_api import PROJECT, GoogleApi
from krun_testbed.google_api_client import CLUSTERS, EMAIL, FORM, Client, add_clusters, claims
from krun_testbed.google_api_fleet import membership
from krun_testbed.google_api_metadata import metadata_server

pytestmark = pytest.mark.loopback

OTHER = "other@demo-project.iam.gserviceaccount.com"


@pytest.fixture
def client(google: GoogleApi) -> Client:
    return Client(google)


def test_clusters_are_listed_and_shown_as_gke_does(google: GoogleApi, client: Client) -> None:
    assert client.ask("container", CLUSTERS) == (200, {})
    add_clusters(google, "one", "two")
    google.container.missing_zones.append("us-central1-c")
    status, found = client.ask("container", CLUSTERS)
    assert (status, [row["name"] for row in found["clusters"]]) == (200, ["one", "two"])
    assert found["missingZones"] == ["us-central1-c"]
    # A project's number and its id are the same to it; a location leaves others out.
    assert client.ask("container", CLUSTERS.replace("demo-project", PROJECT.number))[1] == found
    assert client.ask("container", CLUSTERS.replace("/-/", "/europe-west1/"))[1] == {"missingZones": ["us-central1-c"]}
    one = client.ask("container", "/v1/projects/demo-project/locations/us-central1/clusters/one")[1]
    assert one == found["clusters"][0]
    assert base64.b64decode(one["masterAuth"]["clusterCaCertificate"]) == b"PEM"


def test_a_mask_of_fields_leaves_out_the_rest_and_may_not_be_wrong(google: GoogleApi, client: Client) -> None:
    add_clusters(google, "one")
    mask = "clusters(name,masterAuth/clusterCaCertificate,privateClusterConfig(publicEndpoint)),missingZones"
    found = client.ask("container", f"{CLUSTERS}?fields={mask}")[1]
    assert found == {
        "clusters": [
            {
                "name": "one",
                "masterAuth": {"clusterCaCertificate": base64.b64encode(b"PEM").decode()},
                "privateClusterConfig": {"publicEndpoint": "203.0.113.7"},
            }
        ]
    }
    one = "/v1/projects/demo-project/locations/us-central1/clusters/one"
    assert client.ask("container", f"{one}?fields=location,status")[1] == {
        "location": "us-central1",
        "status": "RUNNING",
    }
    for wrong in ("clusters(nam)", "clusters(name", "clusters(masterAuth/x)", "name", "a;b"):
        assert client.refusal("container", f"{CLUSTERS}?fields={wrong}")[:2] == (400, "INVALID_ARGUMENT"), wrong


@pytest.mark.parametrize(
    ("api", "path", "permission"),
    [
        ("container", CLUSTERS, "container.clusters.list"),
        ("container", f"{CLUSTERS}/c", "container.clusters.get"),
        ("gkehub", "/v1/projects/demo-project/locations/-/memberships", "gkehub.memberships.list"),
        ("cloudresourcemanager", "/v3/projects/demo-project", "resourcemanager.projects.get"),
        ("connectgateway", "/v1/projects/1/locations/global/gkeMemberships/m/version", "gkehub.gateway.get"),
    ],
)
def test_who_has_no_token_or_no_permission_is_refused_in_googles_form(
    google: GoogleApi, client: Client, api: str, path: str, permission: str
) -> None:
    good = client.token
    client.token = "ya29.unknown"
    assert client.refusal(api, path) == (401, "UNAUTHENTICATED", "ACCESS_TOKEN_TYPE_UNSUPPORTED")
    assert client.refusal(api, path, Authorization="") == (401, "UNAUTHENTICATED", "CREDENTIALS_MISSING")
    client.token = google.accounts.access_token(EMAIL, life=-1)
    assert client.refusal(api, path) == (401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED")
    client.token = google.accounts.access_token(EMAIL, scopes="https://www.googleapis.com/auth/devstorage.read_only")
    assert client.refusal(api, path) == (403, "PERMISSION_DENIED", "ACCESS_TOKEN_SCOPE_INSUFFICIENT")
    client.token = good
    google.accounts.forbidden.add((EMAIL, permission))
    assert client.refusal(api, path) == (403, "PERMISSION_DENIED", "IAM_PERMISSION_DENIED")


def test_a_quota_project_takes_a_permission_of_its_own(google: GoogleApi, client: Client) -> None:
    headers = {"X-Goog-User-Project": "demo-project"}
    assert client.ask("container", CLUSTERS, **headers)[0] == 200
    google.accounts.forbidden.add(("*", "serviceusage.services.use"))
    assert client.ask("container", CLUSTERS)[0] == 200
    assert client.refusal("container", CLUSTERS, **headers) == (403, "PERMISSION_DENIED", "USER_PROJECT_DENIED")


def test_what_is_not_there_is_not_found(client: Client) -> None:
    for path in (f"{CLUSTERS}/none", CLUSTERS.replace("demo-project", "none"), "/v1/projects/demo-project/cluster/one"):
        assert client.refusal("container", path)[:2] == (404, "NOT_FOUND")
    memberships = "/v1/projects/demo-project/locations/global/memberships"
    assert client.refusal("gkehub", f"{memberships}/none")[:2] == (404, "NOT_FOUND")
    # The resource manager does not tell.
    assert client.refusal("cloudresourcemanager", "/v3/projects/none")[:2] == (403, "PERMISSION_DENIED")


def test_memberships_are_listed_and_shown(google: GoogleApi, client: Client) -> None:
    path = "projects/demo-project/locations/us-central1/clusters/one"
    rows = [
        membership("one", project="demo-project", cluster=path, issuer="https://x", pool="demo-project.svc.id.goog")
    ]
    rows.append(membership("attached", project="demo-project", location="europe-west1"))
    google.fleet.memberships["demo-project"] = rows
    base = "/v1/projects/demo-project/locations"
    assert client.ask("gkehub", f"{base}/-/memberships")[1] == {"resources": rows}
    assert client.ask("gkehub", f"{base}/europe-west1/memberships")[1] == {"resources": rows[1:]}
    one = client.ask("gkehub", f"{base}/global/memberships/one")[1]
    assert one["endpoint"]["gkeCluster"]["resourceLink"] == f"//container.googleapis.com/{path}"
    google.fleet.unreachable.append("asia-east1")
    assert client.ask("gkehub", f"{base}/-/memberships")[1]["unreachable"] == ["asia-east1"]


def test_a_project_has_its_number_in_both_versions(client: Client) -> None:
    for name in (PROJECT.id, PROJECT.number):
        new = client.ask("cloudresourcemanager", f"/v3/projects/{name}")[1]
        old = client.ask("cloudresourcemanager", f"/v1/projects/{name}")[1]
        assert (new["name"], new["projectId"]) == (f"projects/{PROJECT.number}", PROJECT.id)
        assert (old["projectNumber"], old["projectId"]) == (PROJECT.number, PROJECT.id)


@pytest.mark.parametrize("kind", [FORM, "application/json"])
def test_sts_exchanges_a_token_that_its_provider_trusts(google: GoogleApi, client: Client, kind: str) -> None:
    google.sts.providers["identitynamespace:p:i"] = lambda token: f"p[{token}]" if token == "ns/sa" else None
    names = ("grant_type", "requested_token_type", "subject_token_type", "subject_token", "audience")
    camel = ("grantType", "requestedTokenType", "subjectTokenType", "subjectToken", "audience")
    types = "urn:ietf:params:oauth:token-type:"
    values = ("urn:ietf:params:oauth:grant-type:token-exchange", f"{types}access_token", f"{types}jwt", "ns/sa")
    form = dict(zip(names if kind == FORM else camel, (*values, "identitynamespace:p:i"), strict=True))
    status, found = client.post("sts", "/v1/token", form, kind=kind)
    assert (status, found["token_type"], found["issued_token_type"]) == (200, "Bearer", f"{types}access_token")
    assert google.accounts.holder(found["access_token"]) == "p[ns/sa]"
    assert google.accounts.grants[found["access_token"]].way == "sts"
    token = "subject_token" if kind == FORM else "subjectToken"
    wrong = {token: "other", "audience": "identitynamespace:q:i", names[0] if kind == FORM else camel[0]: "x"}
    for name, error in zip(wrong, ("invalid_grant", "invalid_target", "unsupported_grant_type"), strict=True):
        status, found = client.post("sts", "/v1/token", form | {name: wrong[name]}, kind=kind)
        assert (status, found["error"]) == (400, error)
    assert client.post("sts", "/v1/token", {"audience": "x"}, kind=kind)[1]["error"] == "invalid_request"


def test_an_account_is_acted_for_by_who_may(google: GoogleApi, client: Client) -> None:
    base = f"/v1/projects/-/serviceAccounts/{OTHER}"
    asked = {"scope": ["https://www.googleapis.com/auth/cloud-platform"], "lifetime": "1800s"}
    assert client.post("iamcredentials", f"{base}:generateAccessToken", asked)[0] == 403
    google.accounts.actors[OTHER] = {EMAIL}
    status, found = client.post("iamcredentials", f"{base}:generateAccessToken", asked)
    assert status == 200
    assert google.accounts.holder(found["accessToken"]) == OTHER
    assert found["expireTime"].endswith("Z")
    assert client.post("iamcredentials", f"{base}:generateAccessToken", asked | {"lifetime": "7200s"})[0] == 400
    assert client.post("iamcredentials", f"{base}:generateAccessToken", {})[0] == 400
    status, found = client.post(
        "iamcredentials", f"{base}:generateIdToken", {"audience": "https://x", "includeEmail": True}
    )
    assert (claims(found["token"])["aud"], claims(found["token"])["email"]) == ("https://x", OTHER)
    assert client.post("iamcredentials", f"{base}:generateIdToken", {})[0] == 400


def test_delegates_are_a_chain_each_of_whom_may_act_for_the_next(google: GoogleApi, client: Client) -> None:
    google.accounts.actors |= {"middle@x": {EMAIL}, OTHER: {"middle@x"}}
    path = f"/v1/projects/-/serviceAccounts/{OTHER}:generateIdToken"
    asked = {"audience": "a", "includeEmail": True}
    assert client.post("iamcredentials", path, asked)[0] == 403
    chain = {"delegates": ["projects/-/serviceAccounts/middle@x"]}
    assert client.post("iamcredentials", path, asked | chain)[0] == 200


def test_a_service_accounts_key_gets_both_kinds_of_token(google: GoogleApi, client: Client) -> None:
    uri = f"{google.servers['oauth2'].url}token"
    file = google.oauth2.service_account(EMAIL, project="demo-project", token_uri=uri)
    grant = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}
    scope = assertion(file, scope="https://www.googleapis.com/auth/cloud-platform")
    status, found = client.post("oauth2", "/token", grant | {"assertion": scope}, kind=FORM)
    assert (status, google.accounts.holder(found["access_token"])) == (200, EMAIL)
    target = assertion(file, target_audience="https://x")
    found = client.post("oauth2", "/token", grant | {"assertion": target}, kind=FORM)[1]
    assert claims(found["id_token"])["aud"] == "https://x"
    for wrong in (scope[:-8], assertion(file | {"client_email": OTHER}, scope="x"), "x"):
        status, found = client.post("oauth2", "/token", grant | {"assertion": wrong}, kind=FORM)
        assert (status, found["error"]) == (400, "invalid_grant")


def assertion(file: dict[str, str], **more: str) -> str:
    """What a client library signs with the key of a service account's file."""
    now = int(time.time())
    said = {"iss": file["client_email"], "aud": file["token_uri"], "iat": now, "exp": now + 3600, **more}
    parts = [{"alg": "RS256", "typ": "JWT", "kid": file["private_key_id"]}, said]
    signed = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    key = serialization.load_pem_private_key(file["private_key"].encode(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def test_a_users_login_gets_an_access_token_and_an_id_token_of_gcloud_only(google: GoogleApi, client: Client) -> None:
    file = google.oauth2.login("person@example.com")
    asked = {"grant_type": "refresh_token"} | {k: file[k] for k in ("client_id", "client_secret", "refresh_token")}
    status, found = client.post("oauth2", "/token", asked, kind=FORM)
    assert (status, google.accounts.holder(found["access_token"])) == (200, "person@example.com")
    assert claims(found["id_token"])["aud"] == file["client_id"]
    assert client.post("oauth2", "/token", asked | {"refresh_token": "x"}, kind=FORM)[1]["error"] == "invalid_grant"
    assert client.post("oauth2", "/token", asked | {"client_id": "x"}, kind=FORM)[1]["error"] == "invalid_client"


class Request(google.auth.transport.Request):
    """How Google's own library asks, by http.client."""

    def __init__(self, roots: Path) -> None:
        self.trust = ssl.create_default_context(cafile=roots)

    def __call__(self, url: str, method: str = "GET", body: Any = None, headers: Any = None, **more: Any) -> Any:
        where = urlsplit(url)
        connection = http.client.HTTPSConnection(where.hostname or "", where.port, timeout=10, context=self.trust)
        with contextlib.closing(connection):
            connection.request(method, where.path, body=body, headers=headers or {})
            response = connection.getresponse()
            return SimpleNamespace(status=response.status, headers=dict(response.getheaders()), data=response.read())


def test_googles_own_library_gets_its_tokens(google: GoogleApi) -> None:
    request, uri = Request(google.roots), f"{google.servers['oauth2'].url}token"
    file = google.oauth2.service_account(EMAIL, project="demo-project", token_uri=uri)
    access = service_account.Credentials.from_service_account_info(file, scopes=["https://x"])
    access.refresh(request)
    assert google.accounts.holder(access.token) == EMAIL
    identity = service_account.IDTokenCredentials.from_service_account_info(file, target_audience="https://x")
    identity.refresh(request)
    assert claims(identity.token)["aud"] == "https://x"
    pool = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q"
    google.sts.providers[pool] = lambda token: "principal://p/s" if token == "good" else None
    google.accounts.actors[OTHER] = {"principal://p/s"}
    supplier = SimpleNamespace(get_subject_token=lambda context, request: "good")
    account = f"{google.servers['iamcredentials'].url}v1/projects/-/serviceAccounts/{OTHER}"
    federated = identity_pool.Credentials(
        audience=pool,
        subject_token_type="urn:ietf:params:oauth:token-type:jwt",
        token_url=f"{google.servers['sts'].url}v1/token",
        subject_token_supplier=supplier,
        service_account_impersonation_url=f"{account}:generateAccessToken",
        scopes=["https://www.googleapis.com/auth/cloud-platform"],
    )
    federated.refresh(request)
    assert google.accounts.holder(federated.token) == OTHER


def test_the_metadata_servers_tokens_are_known_to_the_apis(google: GoogleApi, client: Client, address: str) -> None:
    def get(where: str, path: str) -> tuple[str, str]:
        connection = http.client.HTTPConnection(where, timeout=10)
        with contextlib.closing(connection):
            account = "/computeMetadata/v1/instance/service-accounts/default"
            connection.request("GET", f"{account}/{path}", headers={"Metadata-Flavor": "Google"})
            response = connection.getresponse()
            return response.read().decode(), response.headers["Server"]

    narrow = "https://www.googleapis.com/auth/container.read-only"
    servers = {
        "cloud-run": "Metadata Server for Serverless",
        "gke": "GKE Metadata Server",
        "vm": "Metadata Server for VM",
    }
    for platform, product in servers.items():
        with metadata_server(google.accounts, address=address, platform=platform) as server:
            text, shown = get(server.address, f"token?scopes={narrow}")
            assert shown == product
            client.token = json.loads(text)["access_token"]
            # A machine's scopes are its own, whatever is asked for.
            scopes = google.accounts.grants[client.token].scopes
            assert (scopes == (narrow,)) == (platform == "cloud-run")
            assert client.ask("container", CLUSTERS)[0] == 200
            identity, _ = get(server.address, "identity?audience=https://x")
            assert claims(identity)["email"] == json.loads(get(server.address, "?recursive=true")[0])["email"]
