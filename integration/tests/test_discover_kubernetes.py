"""krun-discover's client and a real kube-apiserver: what the role grants, every kind of credentials, refusals."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

from krun_discover import incluster, kubeconfig
from krun_discover.errors import Denied, Failure, Malformed, Misconfigured, Unreachable
from krun_discover.issued import Token
from krun_discover.kube import Cluster
from krun_discover.kube_ranges import ranges
from krun_discover.kube_target import Target
from krun_discover.web import Web
from krun_testbed import tables
from krun_testbed.certificates import Authority, Pair
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_kubeconfig import by_certificate, by_token, by_token_file
from krun_testbed.kubernetes_kubeconfig import kubeconfig as text_of
from krun_testbed.web_peers import connect_proxy

pytestmark = pytest.mark.kubernetes

PRINCIPAL = "workload@demo-project.iam.gserviceaccount.com"
MAP = {"PROJECT_ID": "demo-project", "XDS_ADDR": "istiod.example:15012"}
PLUGIN = "client.authentication.k8s.io/v1"
MANIFEST = tables.ROOT / "manifests" / "discover-rbac.yaml"


class Caller:
    """A workload, in a folder and a namespace of its own, that calls by a kubeconfig; its secrets show up nowhere."""

    def __init__(self, *, kubernetes: Kubernetes, namespace: str, folder: Path) -> None:
        self.kubernetes = kubernetes
        self.namespace = namespace
        self.folder = folder
        self.user = f"{namespace}-{PRINCIPAL}"
        self.token = kubernetes.outsider(self.user)
        self.secrets = [self.token]
        self.google_token = self.token
        self.web = Web(deadline=time.monotonic() + 30, environ={})

    def google(self) -> Token:
        return Token(value=self.google_token, expires=time.time() + 600, source="a test")

    def write(self, user: dict[str, Any], **more: Any) -> Path:
        """A kubeconfig for this user."""
        root = more.pop("root", self.kubernetes.root)
        url = more.pop("server", self.kubernetes.url)
        path = self.folder / "config"
        path.write_text(text_of(server=url, root=root, user=user, namespace=self.namespace, **more), encoding="utf-8")
        return path

    def target(self, user: dict[str, Any], *, context: str = "", **more: Any) -> Target:
        path = self.write(user, **more)
        environ = {"KUBECONFIG": str(path), "PATH": "/usr/bin:/bin", "HOME": str(self.folder)}
        found = kubeconfig.load(environ, context=context, google=self.google)
        assert isinstance(found, Target)
        self.hides(repr(found))
        return found

    def cluster(self, user: dict[str, Any] | None = None, **more: Any) -> Cluster:
        return Cluster(web=self.web, target=self.target(by_token(self.token) if user is None else user, **more))

    def reads(self, cluster: Cluster) -> bool:
        """Whether it gets the map that it was granted."""
        return cluster.get_config_map(namespace=self.namespace, name="mesh-env") == MAP

    def hides(self, text: str) -> None:
        assert not [secret for secret in self.secrets if secret and secret in text]

    def failure(self, ask: Callable[[], object], kind: type[Failure]) -> Failure:
        """What is raised, without any secret in it or in the journal."""
        with pytest.raises(kind) as caught:
            ask()
        self.hides(f"{caught.value!r} {caught.value.message} {caught.value.hint} {self.web.journal}")
        return caught.value


@pytest.fixture(scope="module", autouse=True)
def system(kubernetes: Kubernetes) -> None:
    kubernetes.namespace("istio-system")
    kubernetes.config_map("mesh-env", MAP, namespace="istio-system")


@pytest.fixture
def caller(kubernetes: Kubernetes, namespace: str, tmp_path: Path) -> Caller:
    """One whom nothing is permitted yet."""
    kubernetes.config_map("mesh-env", MAP, namespace=namespace)
    return Caller(kubernetes=kubernetes, namespace=namespace, folder=tmp_path)


def manifest(caller: Caller) -> list[dict[str, Any]]:
    """The role that is shipped, for this caller."""
    text = Template(MANIFEST.read_text(encoding="utf-8")).substitute(
        PRINCIPAL=caller.user, WORKLOAD_NAMESPACE=caller.namespace, WORKLOAD_SERVICE_ACCOUNT="default"
    )
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.fixture
def workload(caller: Caller) -> Caller:
    """One with the role that is shipped."""
    caller.kubernetes.apply(*manifest(caller))
    return caller


def mint(caller: Caller, cluster: Cluster, *, account: str = "default", seconds: int = 3600) -> Token:
    found = cluster.mint_token(
        namespace=caller.namespace, account=account, audiences=["istio-ca", "other"], seconds=seconds
    )
    caller.secrets.append(found.value)
    caller.hides(repr(found))
    return found


def claims(token: str) -> dict[str, Any]:
    middle = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return found


def test_the_shipped_role_reads_the_settings_of_both_namespaces(workload: Caller) -> None:
    cluster = workload.cluster()
    assert workload.reads(cluster)
    assert cluster.get_config_map(namespace="istio-system", name="mesh-env") == MAP


def test_the_shipped_role_mints_a_token_that_the_server_accepts_for_its_audiences(workload: Caller) -> None:
    token = mint(workload, workload.cluster())
    reviewed = workload.kubernetes.review(token.value, audiences=("istio-ca",))
    assert reviewed["authenticated"]
    assert reviewed["audiences"] == ["istio-ca"]
    assert reviewed["user"]["username"] == f"system:serviceaccount:{workload.namespace}:default"
    assert token.expires == claims(token.value)["exp"]
    assert 3500 < token.expires - time.time() <= 3600
    assert not workload.kubernetes.review(token.value).get("authenticated")


def test_a_life_that_is_too_short_is_told_in_the_servers_words(workload: Caller) -> None:
    error = workload.failure(lambda: mint(workload, workload.cluster(), seconds=60), Misconfigured)
    assert "may not specify a duration less than 10 minutes" in error.message


def test_the_shipped_role_grants_nothing_else(workload: Caller) -> None:
    cluster = workload.cluster()
    workload.kubernetes.service_account("other", namespace=workload.namespace)
    for ask in (
        lambda: cluster.get_config_map(namespace=workload.namespace, name="other"),
        lambda: cluster.get_config_map(namespace="kube-system", name="mesh-env"),
        lambda: cluster.get_secret(namespace=workload.namespace, name="mesh-env"),
        lambda: mint(workload, cluster, account="other"),
    ):
        workload.failure(ask, Denied)


def test_what_we_may_do_can_be_asked(workload: Caller) -> None:
    cluster, place = workload.cluster(), workload.namespace
    create, get = {"verb": "create", "resource": "serviceaccounts/token"}, {"verb": "get", "resource": "configmaps"}
    assert cluster.can_i(**create, namespace=place, name="default")
    assert not cluster.can_i(**create, namespace=place, name="other")
    assert cluster.can_i(**get, namespace="istio-system", name="mesh-env")
    assert not cluster.can_i(**get, namespace="istio-system")


ASKS: dict[str, tuple[str, str, Callable[[Caller, Cluster], object]]] = {
    "own settings": (
        "get configmaps mesh-env in namespace NS",
        "krun-configmaps-mesh-env",
        lambda caller, cluster: cluster.get_config_map(namespace=caller.namespace, name="mesh-env"),
    ),
    "tokens": ("create serviceaccounts/token default in namespace NS", "krun-token-default", mint),
    "the mesh's settings": (
        "get configmaps mesh-env in namespace istio-system",
        "krun-configmaps-mesh-env",
        lambda caller, cluster: cluster.get_config_map(namespace="istio-system", name="mesh-env"),
    ),
}


@pytest.mark.parametrize("missing", ASKS)
def test_without_any_one_of_its_permissions_the_commands_are_told_that_grant_it(caller: Caller, missing: str) -> None:
    """The commands are carried out, and then it works: nothing else was missing."""
    what, role, ask = ASKS[missing]
    what = what.replace("NS", caller.namespace)
    caller.kubernetes.apply(*without(manifest(caller), missing))
    cluster = caller.cluster()
    for name, (_, _, other) in ASKS.items():
        if name != missing:
            assert other(caller, cluster)
    error = caller.failure(lambda: ask(caller, cluster), Denied)
    assert error.exit_code == 77
    assert error.message.endswith(f"{caller.user} may not {what}")
    assert f"kubectl create role {role} " in error.hint
    with granted(caller.kubernetes, error.hint):
        assert ask(caller, cluster)


def without(objects: list[dict[str, Any]], missing: str) -> list[dict[str, Any]]:
    """The role but for one of its rules."""
    number = list(ASKS).index(missing)
    rules = [(item, rule) for item in objects if item["kind"] == "Role" for rule in item["rules"]]
    item, rule = rules[number]
    item["rules"] = [one for one in item["rules"] if one is not rule]
    return objects


@contextlib.contextmanager
def granted(kubernetes: Kubernetes, commands: str) -> Iterator[None]:
    """Do what the commands say, as kubectl would; take it back at the end."""
    made = [_object(shlex.split(command)) for command in commands.split(" && ")]
    kubernetes.apply(*made)
    yield
    for item in made:
        base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{item['metadata']['namespace']}"
        kubernetes.admin.delete(f"{base}/{item['kind'].lower()}s/{item['metadata']['name']}")


def _object(words: list[str]) -> dict[str, Any]:
    assert words[:2] == ["kubectl", "create"]
    flags = dict(word.removeprefix("--").split("=", 1) for word in words[4:])
    item: dict[str, Any] = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": words[3], "namespace": flags["namespace"]},
    }
    if words[2] == "role":
        rule = {"verbs": [flags["verb"]], "apiGroups": [""], "resources": [flags["resource"]]}
        return item | {"kind": "Role", "rules": [rule | {"resourceNames": [flags["resource-name"]]}]}
    group = "rbac.authorization.k8s.io"
    subject = {"apiGroup": group, "kind": "User", "name": flags["user"]}
    to = {"apiGroup": group, "kind": "Role", "name": flags["role"]}
    return item | {"kind": "RoleBinding", "roleRef": to, "subjects": [subject]}


def test_a_service_account_that_is_not_there_is_told_from_its_namespace(caller: Caller) -> None:
    caller.kubernetes.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": caller.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": caller.user}],
        }
    )
    cluster = caller.cluster()
    error = caller.failure(lambda: mint(caller, cluster, account="nobody"), Misconfigured)
    assert error.message.endswith(f"there is no service account nobody in namespace {caller.namespace}")
    error = caller.failure(
        lambda: cluster.mint_token(namespace="nowhere", account="default", audiences=["x"], seconds=600), Misconfigured
    )
    assert error.message.endswith("there is no namespace nowhere")
    assert cluster.get_config_map(namespace=caller.namespace, name="nothing") is None
    assert cluster.get_config_map(namespace="nowhere", name="nothing") is None
    assert cluster.get_secret(namespace=caller.namespace, name="nothing") is None
    caller.kubernetes.admin.delete(f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{caller.namespace}")


def test_a_token_in_a_file_may_be_replaced_between_requests(workload: Caller) -> None:
    path = workload.folder / "token"
    path.write_text("outside.expired", encoding="utf-8")
    cluster = workload.cluster(by_token_file(path))
    error = workload.failure(lambda: workload.reads(cluster), Denied)
    assert error.message.endswith(": users[name=test].user.tokenFile: not accepted (HTTP 401)")
    path.write_text(workload.token + "\n", encoding="utf-8")
    assert workload.reads(cluster)


def certificate(caller: Caller) -> Pair:
    pair = caller.kubernetes.certificate(caller.user)
    caller.secrets.append(pair.key.decode())
    return pair


def test_a_client_certificate_in_the_kubeconfig_is_accepted(workload: Caller) -> None:
    assert workload.reads(workload.cluster(by_certificate(certificate(workload))))


def test_client_certificates_in_files_are_accepted(workload: Caller) -> None:
    pair = certificate(workload)
    (workload.folder / "c.pem").write_bytes(pair.chain)
    (workload.folder / "k.pem").write_bytes(pair.key)
    assert workload.reads(workload.cluster({"client-certificate": "c.pem", "client-key": "k.pem"}))


def test_a_certificate_of_another_authority_is_not_accepted(workload: Caller) -> None:
    pair = Authority().workload(spiffe_id="spiffe://x")
    error = workload.failure(lambda: workload.reads(workload.cluster(by_certificate(pair))), Denied)
    assert "client-certificate-data: not accepted (HTTP 401)" in error.message
    assert "authority" in error.hint


def test_an_expired_client_certificate_is_told_by_its_date_and_no_request_is_made(workload: Caller) -> None:
    hour = datetime.timedelta(hours=1)
    pair = workload.kubernetes.server.clients.certificate(user=workload.user, life=-hour)
    cluster = workload.cluster(by_certificate(pair))
    error = workload.failure(lambda: workload.reads(cluster), Denied)
    day = (datetime.datetime.now(datetime.UTC) - hour).strftime("%Y-%m-%d %H:")
    assert f"client-certificate-data has expired on {day}" in error.message
    assert workload.web.journal == []


def plugin(caller: Caller, body: str, **more: Any) -> dict[str, Any]:
    """A user with a plugin of this code, which is given ``say(status)``."""
    path = caller.folder / "plugin"
    head = (
        f"#!{sys.executable}\nimport json, os, sys\n"
        "def say(**status):\n"
        f"    print(json.dumps({{'apiVersion': '{PLUGIN}', 'kind': 'ExecCredential', 'status': status}}))\n"
    )
    path.write_text(head + body, encoding="utf-8")
    path.chmod(0o755)
    return {"exec": {"apiVersion": PLUGIN, "command": "./plugin", "interactiveMode": "Never", **more}}


def test_a_plugins_token_is_accepted_and_it_is_told_of_the_cluster(workload: Caller) -> None:
    body = (
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        f"open('{workload.folder}/info', 'w').write(json.dumps(info))\n"
        "say(token=os.environ['TOKEN'])"
    )
    env = [{"name": "TOKEN", "value": workload.token}]
    assert workload.reads(workload.cluster(plugin(workload, body, env=env, provideClusterInfo=True)))
    told = json.loads((workload.folder / "info").read_text(encoding="utf-8"))["spec"]
    assert told["cluster"]["server"] == workload.kubernetes.url
    assert base64.b64decode(told["cluster"]["certificate-authority-data"]).strip() == workload.kubernetes.root.strip()


def test_a_plugins_certificate_is_accepted(workload: Caller) -> None:
    pair = certificate(workload)
    (workload.folder / "c.pem").write_bytes(pair.chain)
    (workload.folder / "k.pem").write_bytes(pair.key)
    body = "here = os.path.dirname(__file__)\nread = lambda name: open(f'{here}/{name}').read()\n"
    body += "say(clientCertificateData=read('c.pem'), clientKeyData=read('k.pem'))"
    assert workload.reads(workload.cluster(plugin(workload, body)))


def test_a_plugin_is_run_again_when_the_server_refuses_what_it_gave(workload: Caller) -> None:
    (workload.folder / "old").touch()
    old = f"'{workload.folder}/old'"
    body = f"if os.path.exists({old}):\n    os.remove({old})\n    say(token='outside.withdrawn')\n"
    body += "else: say(token=os.environ['TOKEN'])"
    assert workload.reads(workload.cluster(plugin(workload, body, env=[{"name": "TOKEN", "value": workload.token}])))


def test_a_plugin_that_fails_is_told_by_its_stderr(workload: Caller) -> None:
    body = "print(os.environ['TOKEN'])\nprint('sign in first;', os.environ['TOKEN'], file=sys.stderr)\nsys.exit(7)"
    user = plugin(workload, body, env=[{"name": "TOKEN", "value": workload.token}])
    error = workload.failure(lambda: workload.reads(workload.cluster(user)), Denied)
    assert error.message.endswith("users[name=test].user.exec: plugin ended with status 7: sign in first; ***")


def test_a_plugin_that_is_missing_is_told_by_its_own_hint(workload: Caller) -> None:
    user = plugin(workload, "", command="no-such-plugin", installHint="apt install it")
    error = workload.failure(lambda: workload.reads(workload.cluster(user)), Misconfigured)
    assert "no-such-plugin cannot be run: No such file" in error.message
    assert error.hint == "apt install it"


@pytest.mark.parametrize(
    "user",
    [
        {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "gke-gcloud-auth-plugin"}},
        {"auth-provider": {"name": "gcp"}},
    ],
)
def test_googles_plugin_is_our_own_token(workload: Caller, user: dict[str, Any]) -> None:
    cluster = workload.cluster(user)
    assert workload.reads(cluster)
    workload.google_token = "outside.unknown"
    assert "Google access token: not accepted" in workload.failure(lambda: workload.reads(cluster), Denied).message


def test_a_pod_calls_by_its_own_token(workload: Caller) -> None:
    host, port = workload.kubernetes.where()
    account = workload.kubernetes.service_account("app", namespace=workload.namespace)
    folder = workload.folder / "serviceaccount"
    folder.mkdir()
    token = workload.kubernetes.token("app", namespace=workload.namespace)
    workload.secrets.append(token)
    (folder / "token").write_text(token, encoding="utf-8")
    (folder / "ca.crt").write_bytes(workload.kubernetes.root)
    (folder / "namespace").write_text(workload.namespace, encoding="utf-8")
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)}
    target = incluster.load(environ, folder=str(folder))
    assert isinstance(target, Target)
    cluster = Cluster(web=workload.web, target=target)
    error = workload.failure(lambda: workload.reads(cluster), Denied)
    assert f"{account} may not get configmaps mesh-env in namespace {target.namespace}" in error.message
    assert f"--serviceaccount={workload.namespace}:app" in error.hint


def test_who_may_impersonate_acts_as_another(workload: Caller) -> None:
    pair = workload.kubernetes.certificate("boss", groups=("system:masters",))
    user = by_certificate(pair) | {"as": workload.user}
    cluster = workload.cluster(user)
    assert workload.reads(cluster)
    workload.failure(lambda: cluster.get_secret(namespace=workload.namespace, name="x"), Denied)


def test_a_name_other_than_the_urls_is_verified_when_it_is_named(workload: Caller) -> None:
    user = by_token(workload.token)
    assert workload.reads(workload.cluster(user, cluster={"tls-server-name": "kubernetes.default.svc"}))
    cluster = workload.cluster(user, cluster={"tls-server-name": "other.example"})
    assert "not trusted" in workload.failure(lambda: workload.reads(cluster), Unreachable).message


def test_a_wrong_authority_is_told_by_the_key_that_names_it(workload: Caller) -> None:
    cluster = workload.cluster(root=Authority().root)
    error = workload.failure(lambda: workload.reads(cluster), Unreachable)
    assert error.exit_code == 69
    assert workload.kubernetes.url in error.message
    assert "its certificate is not trusted" in error.message
    assert "clusters[name=test].cluster.certificate-authority-data: is that its" in error.hint
    assert workload.reads(workload.cluster(root=b"", cluster={"insecure-skip-tls-verify": True}))


def test_a_proxy_is_gone_through_and_one_that_refuses_is_told(workload: Caller, address: str) -> None:
    with connect_proxy(address) as proxy:
        cluster = workload.cluster(cluster={"proxy-url": f"http://{address}:{proxy.port}"})
        assert workload.reads(cluster)
        assert len(proxy.requests) == 1
    with connect_proxy(address, refuses="403 No way") as proxy:
        workload.secrets.append("word-of-proxy")
        cluster = workload.cluster(cluster={"proxy-url": f"http://me:word-of-proxy@{address}:{proxy.port}"})
        error = workload.failure(lambda: workload.reads(cluster), Unreachable)
        assert "the proxy refused" in error.message
        assert "proxy-url" in error.hint


def test_who_is_not_known_is_told_which_token(workload: Caller) -> None:
    error = workload.failure(lambda: workload.reads(workload.cluster(by_token("outside.unknown"))), Denied)
    assert "users[name=test].user.token: not accepted (HTTP 401)" in error.message
    cluster = workload.cluster({})
    assert (
        "no credentials: not accepted (HTTP 401)" in workload.failure(lambda: workload.reads(cluster), Denied).message
    )


def test_unknown_contexts_broken_files_and_unreadable_tokens_are_told_before_any_request(workload: Caller) -> None:
    user = by_token(workload.token)
    error = workload.failure(lambda: workload.target(user, context="prod"), Misconfigured)
    assert "there is no context 'prod'" in error.message
    assert error.hint == "known contexts: test"
    path = workload.write(user)
    text = path.read_text(encoding="utf-8")
    environ = {"KUBECONFIG": str(path)}
    path.write_text(text.replace("token: ", "token: ["), encoding="utf-8")
    error = workload.failure(lambda: kubeconfig.load(environ, google=workload.google), Malformed)
    assert error.message.startswith(f"{path}: line ")
    cluster = workload.cluster(by_token_file(workload.folder))
    assert "is not a file" in workload.failure(lambda: workload.reads(cluster), Misconfigured).message
    cluster = workload.cluster(by_token_file(workload.folder / "none"))
    assert (
        "none cannot be read: No such file" in workload.failure(lambda: workload.reads(cluster), Misconfigured).message
    )
    assert workload.web.journal == []


def test_the_ranges_of_services_and_pods_are_those_of_the_server(caller: Caller) -> None:
    name = caller.namespace
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    caller.kubernetes.apply(node | {"spec": {"podCIDR": "10.77.3.0/24", "podCIDRs": ["10.77.3.0/24"]}})
    cluster = caller.cluster()
    assert ranges(cluster).remarks == ("may not list servicecidrs.networking.k8s.io", "may not list nodes")
    rules = [
        {"apiGroups": ["networking.k8s.io"], "resources": ["servicecidrs"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]},
    ]
    group = "rbac.authorization.k8s.io"
    caller.kubernetes.apply(
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": group, "kind": "User", "name": caller.user}],
        },
    )
    found = ranges(cluster)
    assert found.remarks == ()
    assert found.services == ("10.96.0.0/16",)
    assert "10.77.3.0/24" in found.pods
    caller.kubernetes.admin.delete(f"/api/v1/nodes/{name}")
