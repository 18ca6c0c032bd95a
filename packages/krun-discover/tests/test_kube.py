"""The requests of an API server, and which failure each bad answer is; over TLS, with a real server's answers."""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import json
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from krun_discover import kube_access, kube_credentials
from krun_discover.errors import Denied, Failure, Misconfigured, Unreachable
from krun_discover.issued import Token
from krun_discover.kube import Cluster
from krun_discover.kube_access import Access
from krun_discover.kube_credentials import Credentials, Proof, Text
from krun_discover.kube_ranges import Ranges, ranges
from krun_discover.kube_target import Target, believed
from krun_discover.web import Web
from krun_testbed.certificates import Authority, Pair
from krun_testbed.kubernetes_kubeconfig import kubeconfig
from krun_testbed.web_peers import WebPeer, answer, connect_proxy, server_tls, web_peer

pytestmark = pytest.mark.loopback

CANARY = "canary-6a1f-0123456789"
USER = "workload@project.iam.gserviceaccount.com"
CREDENTIALS = Text(token=CANARY, title="config: users[name=a].user.token")
Ask = Callable[[Cluster], Any]


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def tls(authority: Authority, tmp_path: Path, address: str) -> ssl.SSLContext:
    return server_tls(authority.server(hosts=(address,)), str(tmp_path))


def status(code: int, message: str = "", **more: Any) -> bytes:
    """An answer of the kind that tells of a failure."""
    found = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code, **more}
    return answer(code, json.dumps(found).encode())


def found(**content: Any) -> bytes:
    return answer(200, json.dumps(content).encode())


def forbidden(resource: str, name: str, verb: str, namespace: str = "demo", more: str = "") -> bytes:
    """As kube-apiserver writes it."""
    kind = resource.partition("/")[0]
    return status(
        403,
        f'{kind} "{name}" is forbidden: User "{USER}" cannot {verb} resource "{resource}" in API group "" '
        f'in the namespace "{namespace}"{more}',
    )


class Api:
    """A cluster behind the answers."""

    def __init__(self, *, address: str, authority: Authority, peer: WebPeer, credentials: Credentials) -> None:
        self.peer = peer
        self.web = Web(deadline=time.monotonic() + 20, environ={}, limit=5)
        server = f"https://{address}:{peer.port}/base"
        verified, roots = believed(server, roots=authority.root.decode(), source="the test's authority")
        target = Target(server=server, source="a test", tls=verified, roots=roots, credentials=credentials)
        self.cluster = Cluster(web=self.web, target=target)

    def failure(self, ask: Ask, kind: type[Failure]) -> Failure:
        """What is raised; the canary is not in it, nor in the journal."""
        with pytest.raises(kind) as caught:
            ask(self.cluster)
        assert CANARY not in f"{caught.value.message} {caught.value.hint} {self.web.journal} {self.cluster.target}"
        assert self.cluster.target.server in caught.value.message
        return caught.value


@pytest.fixture
def api(address: str, authority: Authority, tls: ssl.SSLContext) -> Iterator[Callable[..., Api]]:
    with contextlib.ExitStack() as stack:

        def make(*answers: bytes, credentials: Credentials = CREDENTIALS) -> Api:
            peer = stack.enter_context(web_peer(address, *answers, tls=tls))
            return Api(address=address, authority=authority, peer=peer, credentials=credentials)

        yield make


def get_map(cluster: Cluster) -> dict[str, str] | None:
    return cluster.get_config_map(namespace="demo", name="mesh-env")


def mint(cluster: Cluster) -> Token:
    return cluster.mint_token(namespace="demo", account="robot", audiences=["istio-ca"], seconds=3600)


def test_a_config_map_is_its_texts(api: Callable[..., Api]) -> None:
    made = api(found(data={"A": "1", "B": 2}, binaryData={"C": "eA=="}))
    assert get_map(made.cluster) == {"A": "1"}
    head = made.peer.requests[0].decode()
    assert head.startswith("GET /base/api/v1/namespaces/demo/configmaps/mesh-env HTTP/1.1\r\n")
    assert f"authorization: bearer {CANARY}" in head.lower()


def test_one_without_data_is_empty_and_one_that_is_not_there_is_none(api: Callable[..., Api]) -> None:
    assert get_map(api(found(kind="ConfigMap")).cluster) == {}
    missing = status(404, 'configmaps "mesh-env" not found', details={"name": "mesh-env", "kind": "configmaps"})
    assert get_map(api(missing).cluster) is None


def test_a_secret_is_its_bytes(api: Callable[..., Api]) -> None:
    data = {"a": base64.b64encode(b"\0\xff").decode(), "b": ""}
    made = api(found(data=data))
    assert made.cluster.get_secret(namespace="demo", name="db") == {"a": b"\0\xff", "b": b""}
    assert made.peer.requests[0].startswith(b"GET /base/api/v1/namespaces/demo/secrets/db ")
    broken = api(found(data={"a": f"{CANARY}!"}))
    broken.failure(lambda cluster: cluster.get_secret(namespace="demo", name="db"), Unreachable)


def test_a_token_has_the_life_that_the_server_gave_it(api: Callable[..., Api]) -> None:
    end = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(hours=9)
    made = api(found(status={"token": CANARY, "expirationTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ")}))
    token = mint(made.cluster)
    assert (token.value, token.expires, token.source) == (CANARY, end.timestamp(), "service account demo/robot")
    assert CANARY not in repr(token)
    head, _, body = made.peer.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /base/api/v1/namespaces/demo/serviceaccounts/robot/token ")
    assert json.loads(body) == {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": ["istio-ca"], "expirationSeconds": 3600},
    }


@pytest.mark.parametrize(
    ("answered", "reason"),
    [
        ({}, "the token's end is no time"),
        ({"token": CANARY, "expirationTimestamp": "soon"}, "the token's end is no time"),
        ({"expirationTimestamp": "2999-01-01T00:00:00Z"}, "there is no token in the answer"),
        ({"token": f"{CANARY} x", "expirationTimestamp": "2999-01-01T00:00:00Z"}, "there is no token in the answer"),
        (
            {"token": CANARY, "expirationTimestamp": "2001-01-01T00:00:00Z"},
            "the token in the answer has expired: is the clock",
        ),
    ],
)
def test_an_answer_without_a_good_token_is_told(api: Callable[..., Api], answered: dict[str, str], reason: str) -> None:
    error = api(found(status=answered)).failure(mint, Unreachable)
    assert f"create serviceaccounts/token robot in namespace demo: {reason}" in error.message


def test_one_who_may_not_is_told_what_and_the_commands_that_grant_it(api: Callable[..., Api]) -> None:
    error = api(forbidden("serviceaccounts/token", "robot", "create")).failure(mint, Denied)
    assert error.message.endswith(f"(a test): {USER} may not create serviceaccounts/token robot in namespace demo")
    assert error.hint == (
        "kubectl create role krun-token-robot --verb=create --resource=serviceaccounts/token --resource-name=robot "
        f"--namespace=demo && kubectl create rolebinding krun-token-robot --role=krun-token-robot --user={USER} "
        "--namespace=demo"
    )


def test_what_a_platform_adds_to_a_refusal_is_kept(api: Callable[..., Api]) -> None:
    more = ': requires one of ["container.configMaps.get"] permission(s).'
    error = api(forbidden("configmaps", "mesh-env", "get", more=more)).failure(get_map, Denied)
    assert 'mesh-env in namespace demo: requires one of ["container.configMaps.get"]' in error.message
    assert "--resource=configmaps --resource-name=mesh-env --namespace=demo" in error.hint


def test_a_user_that_is_a_service_account_is_bound_as_one() -> None:
    access = Access(verb="list", resource="servicecidrs", group="networking.k8s.io")
    assert kube_access.grant(access, user="system:serviceaccount:demo:app") == (
        "kubectl create clusterrole krun-servicecidrs --verb=list --resource=servicecidrs.networking.k8s.io && "
        "kubectl create clusterrolebinding krun-servicecidrs --clusterrole=krun-servicecidrs --serviceaccount=demo:app"
    )


def test_a_users_name_cannot_add_to_the_command() -> None:
    access = Access(verb="get", resource="secrets", namespace="demo", name="x")
    assert "'--user=x; rm -rf /'" in kube_access.grant(access, user="x; rm -rf /")
    assert kube_access.user_of('User "x\x1b[2J" cannot get') == ""
    assert kube_access.user_of(r'User "a\"b" cannot get') == 'a"b'
    assert kube_access.user_of("no") == ""


def test_one_who_is_not_known_is_told_which_credentials_are_refused(api: Callable[..., Api]) -> None:
    error = api(status(401, "Unauthorized")).failure(get_map, Denied)
    assert error.message.endswith("(a test): config: users[name=a].user.token: not accepted (HTTP 401)")
    assert "it may have expired" in error.hint


class Renewed:
    """Credentials that are others the second time."""

    title = remedy = "renewed"

    def __init__(self) -> None:
        self.tokens = ["old", "new"]

    def proof(self, *, deadline: float) -> Proof:
        return kube_credentials.bearer(self.tokens[0], title="x")

    def renew(self) -> bool:
        self.tokens = self.tokens[1:]
        return bool(self.tokens)


def test_credentials_that_can_be_renewed_are_and_once_only(api: Callable[..., Api]) -> None:
    made = api(status(401), found(data={}), credentials=Renewed())
    assert get_map(made.cluster) == {}
    assert [b"Bearer new" in request for request in made.peer.requests] == [False, True]
    again = api(status(401), credentials=Renewed())
    again.failure(get_map, Denied)
    assert len(again.peer.requests) == 2


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("namespaces", "there is no namespace demo"),
        ("serviceaccounts", "there is no service account robot in namespace demo"),
    ],
)
def test_an_account_that_is_not_there_is_told_from_its_namespace(
    api: Callable[..., Api], kind: str, message: str
) -> None:
    made = api(status(404, "not found", details={"kind": kind}), found(kind="Namespace"))
    error = made.failure(mint, Misconfigured)
    assert error.message.endswith(f"(a test): {message}")
    assert "WORKLOAD_SERVICE_ACCOUNT" in error.hint


def test_a_server_that_names_the_account_is_asked_for_its_namespace(api: Callable[..., Api]) -> None:
    made = api(status(404, details={"kind": "serviceaccounts"}), status(404, details={"kind": "namespaces"}))
    assert made.failure(mint, Misconfigured).message.endswith("there is no namespace demo")
    made = api(status(404, details={"kind": "serviceaccounts"}), status(403))
    assert "there is no service account robot" in made.failure(mint, Misconfigured).message


def test_a_life_that_the_server_refuses_is_told_in_its_words(api: Callable[..., Api]) -> None:
    error = api(status(422, "may not specify a duration less than 10 minutes")).failure(mint, Misconfigured)
    assert "less than 10 minutes" in error.message


@pytest.mark.parametrize(
    ("answered", "said"),
    [
        (answer(404, b"404 page not found"), "HTTP 404"),
        (answer(302, b"", "location: https://login.example"), "HTTP 302, not of Kubernetes"),
        (answer(200, b"<html>"), "the answer is no object"),
        (answer(200, b"[]"), "the answer is no object"),
        (status(410, "gone"), "HTTP 410: gone"),
    ],
)
def test_who_does_not_answer_like_an_api_server_is_told(api: Callable[..., Api], answered: bytes, said: str) -> None:
    error = api(answered).failure(get_map, Unreachable)
    assert said in error.message
    assert "is it an API server of Kubernetes" in error.hint


def test_a_refusal_of_googles_front_is_told_with_the_role_that_it_takes(api: Callable[..., Api]) -> None:
    body = {"error": {"code": 403, "message": "Permission 'container.clusters.connect' denied", "status": "X"}}
    error = api(answer(403, json.dumps(body).encode())).failure(get_map, Denied)
    assert "HTTP 403: Permission 'container.clusters.connect' denied" in error.message


def test_a_busy_server_is_asked_again(api: Callable[..., Api]) -> None:
    assert get_map(api(status(500), found(data={"a": "b"})).cluster) == {"a": "b"}


def test_a_server_of_another_authority_is_told_with_the_authority_that_was_believed(
    address: str, tls: ssl.SSLContext, api: Callable[..., Api]
) -> None:
    made = api(found())
    wrong, roots = believed("https://x", roots=Authority().root.decode(), source="config: clusters[name=a].cluster.ca")
    target = Target(server=made.cluster.target.server, source="a test", tls=wrong, roots=roots, credentials=CREDENTIALS)
    error = made.failure(lambda _: get_map(Cluster(web=made.web, target=target)), Unreachable)
    assert "its certificate is not trusted" in error.message
    assert error.hint == "it was verified by config: clusters[name=a].cluster.ca: is that its certificate authority?"
    assert made.peer.requests == [b""] or not made.peer.requests


def test_a_server_that_is_not_there_is_told_with_its_source(address: str) -> None:
    web = Web(deadline=time.monotonic() + 1, environ={}, limit=1)
    cluster = Cluster(web=web, target=Target(server=f"https://{address}:1", source="kubeconfig x"))
    with pytest.raises(Unreachable, match=re.escape(f"API server https://{address}:1 (kubeconfig x): ")) as caught:
        get_map(cluster)
    assert "refused" in caught.value.message
    assert "is there a way to it" in caught.value.hint


def test_a_proxy_that_refuses_is_told_apart_from_the_server(api: Callable[..., Api], address: str) -> None:
    with connect_proxy(address, refuses="407 Login first") as proxy:
        made = api(found())
        url = f"http://me:{CANARY}@{address}:{proxy.port}"
        target = Target(server=made.cluster.target.server, source="a test", proxy=url)
        error = made.failure(lambda _: get_map(Cluster(web=made.web, target=target)), Unreachable)
        assert "the proxy refused" in error.message
        assert "proxy-url" in error.hint


def test_a_proxy_leads_to_the_server(api: Callable[..., Api], address: str) -> None:
    with connect_proxy(address) as proxy:
        made = api(found(data={"a": "b"}))
        was = made.cluster.target
        target = Target(server=was.server, source="a test", tls=was.tls, proxy=f"http://{address}:{proxy.port}")
        assert get_map(Cluster(web=made.web, target=target)) == {"a": "b"}
        assert len(proxy.requests) == 1


@pytest.mark.parametrize("name", ["", "../secrets/x", "a/b", "A", "a?b", "-a", "a" * 254, "a%2fb", "ö"])
def test_names_that_are_none_lead_to_no_request(api: Callable[..., Api], name: str) -> None:
    made = api(found())
    for ask in (
        lambda: made.cluster.get_config_map(namespace="demo", name=name),
        lambda: made.cluster.get_secret(namespace=name, name="x"),
        lambda: made.cluster.mint_token(namespace="demo", account=name, audiences=[], seconds=600),
    ):
        with pytest.raises(Misconfigured, match="not a name in Kubernetes"):
            ask()
    assert made.web.journal == []


def test_whether_we_may_is_asked_of_the_server(api: Callable[..., Api]) -> None:
    made = api(found(status={"allowed": True}), found(status={"allowed": False}), found(status=1))
    asked = [
        made.cluster.can_i(verb="create", resource="serviceaccounts/token", namespace="demo", name="robot")
        for _ in range(3)
    ]
    assert asked == [True, False, False]
    spec = json.loads(made.peer.requests[0].partition(b"\r\n\r\n")[2])["spec"]["resourceAttributes"]
    assert spec == {
        "verb": "create",
        "resource": "serviceaccounts",
        "subresource": "token",
        "namespace": "demo",
        "name": "robot",
    }


def test_ranges_are_those_of_services_and_of_all_pages_of_nodes(api: Callable[..., Api]) -> None:
    made = api(
        found(items=[{"spec": {"cidrs": ["10.96.0.0/12", "fd00::/108"]}}, {"spec": {"cidrs": ["x", 1]}}, 1]),
        found(metadata={"continue": "a b"}, items=[{"spec": {"podCIDRs": ["10.0.0.0/24"]}}, {"spec": {}}]),
        found(items=[{"spec": {"podCIDRs": ["10.0.1.0/24", "10.9.0.0/24"]}}]),
    )
    assert ranges(made.cluster) == Ranges(
        services=("10.96.0.0/12", "fd00::/108"), pods=("10.0.0.0/23", "10.9.0.0/24"), remarks=()
    )
    assert b"GET /base/api/v1/nodes?limit=250&continue=a%20b " in made.peer.requests[2]


def test_ranges_that_we_may_not_know_are_no_failure(api: Callable[..., Api]) -> None:
    made = api(answer(404, b"404 page not found"), forbidden("nodes", "", "list"))
    assert ranges(made.cluster) == Ranges(
        services=(),
        pods=(),
        remarks=("servicecidrs are not known to this API server: it is older than 1.33", "may not list nodes"),
    )


HEAVY = {
    "asyncio",
    "yaml",
    "requests",
    "urllib3",
    "kubernetes",
    "google.auth",
    "cryptography",
    "subprocess",
    "click.testing",
}


@pytest.mark.parametrize("is_yaml", [False, True])
def test_a_request_by_a_kubeconfig_loads_nothing_heavy_and_yaml_only_for_yaml(
    api: Callable[..., Api], authority: Authority, tmp_path: Path, is_yaml: bool
) -> None:
    made = api(found(data={"a": "b"}))
    user = {"token": CANARY}
    text = kubeconfig(server=made.cluster.target.server, root=authority.root, user=user)
    if not is_yaml:
        text = json.dumps(yaml.safe_load(text))
    (tmp_path / "config").write_text(text, encoding="utf-8")
    code = (
        "import sys, time\n"
        "from krun_discover import kubeconfig\nfrom krun_discover.kube import Cluster\n"
        "from krun_discover.web import Web\n"
        "target = kubeconfig.load({'KUBECONFIG': sys.argv[1]}, google=lambda: None)\n"
        "cluster = Cluster(web=Web(deadline=time.monotonic() + 20, environ={}), target=target)\n"
        "assert cluster.get_config_map(namespace='demo', name='mesh-env') == {'a': 'b'}\n"
        "print(*sys.modules)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "config")]
    loaded = set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())
    assert loaded & HEAVY == ({"yaml"} if is_yaml else set())


def plain(address: str) -> tuple[bytes, Pair]:
    """An authority and a server as some platforms make them (EKS): without key identifiers and key usage."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)

    def builder(subject: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().issuer_name(name).public_key(public).serial_number(x509.random_serial_number())
        titled = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        return made.subject_name(titled).not_valid_before(now - day).not_valid_after(now + day)

    constraints = x509.BasicConstraints(ca=True, path_length=None)
    root = builder("kubernetes", root_key.public_key()).add_extension(constraints, critical=True)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    server = builder("server", key.public_key()).add_extension(names, critical=False)
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = server.sign(root_key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return root.sign(root_key, hashes.SHA256()).public_bytes(Encoding.PEM), Pair(
        chain=chain, key=key.private_bytes(*form)
    )


def test_a_clusters_own_authority_may_be_as_plain_as_some_platforms_make_it(address: str, tmp_path: Path) -> None:
    """Newer Pythons verify more strictly by default (VERIFY_X509_STRICT) than kubectl and these authorities do."""
    root, pair = plain(address)
    with web_peer(address, found(data={"a": "b"}), tls=server_tls(pair, str(tmp_path))) as peer:
        verified, roots = believed("https://x", roots=root.decode(), source="a test")
        target = Target(server=f"https://{address}:{peer.port}", source="a test", tls=verified, roots=roots)
        assert get_map(Cluster(web=Web(deadline=time.monotonic() + 20, environ={}), target=target)) == {"a": "b"}
