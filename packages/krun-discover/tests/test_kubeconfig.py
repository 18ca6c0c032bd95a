"""Kubeconfig files: which are read, which entry wins, what each is, and what is said of broken ones."""

from __future__ import annotations

import base64
import datetime
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from krun_discover import kube_credentials, kubeconfig
from krun_discover.errors import Denied, Failure, Malformed, Misconfigured
from krun_discover.exec_plugin import Exec
from krun_discover.issued import Token
from krun_discover.kube_credentials import Credentials, Proof
from krun_discover.kube_target import SYSTEM_ROOTS, Absent, Target
from krun_testbed.certificates import Authority, Pair

CANARY = "canary-6a1f"
SERVER = "https://api.example:6443"
GOOGLE = Token(value="google-token", expires=0, source="a test")


def google() -> Token:
    return GOOGLE


def text(
    *,
    cluster: Mapping[str, Any] | None = None,
    user: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    name: str = "a",
    **more: Any,
) -> str:
    """A kubeconfig of one context, as JSON."""
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": SERVER, **(cluster or {})}}],
        "users": [{"name": name, "user": dict(user or {})}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **(context or {})}}],
        "current-context": name,
    }
    return json.dumps({**whole, **more})


def load(*paths: Path, context: str = "", **environ: str) -> Target | Absent:
    named = {"KUBECONFIG": ":".join(str(path) for path in paths)} if paths else {}
    return kubeconfig.load({**named, **environ}, context=context, google=google)


def target(folder: Path, content: str, *, context: str = "") -> Target:
    """What a file of this content leads to; the canary is in no part that is shown."""
    path = folder / "config"
    path.write_text(content, encoding="utf-8")
    found = load(path, context=context)
    assert isinstance(found, Target)
    assert CANARY not in repr(found)
    return found


def refused(folder: Path, content: str | bytes, kind: type[Failure] = Malformed, *, context: str = "") -> str:
    """The message for a file of this content, and its hint; the canary is in neither."""
    path = folder / "config"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(kind) as caught:
        load(path, context=context)
    said = f"{caught.value.message} | {caught.value.hint}"
    assert CANARY not in said
    assert said.startswith(str(path)) or "KUBECONFIG" in said
    return said.removeprefix(str(path))


def proof(credentials: Credentials) -> Proof:
    found = credentials.proof(deadline=float("inf"))
    assert CANARY not in repr(found)
    return found


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.server(hosts=("api.example",))


def test_without_files_there_is_no_configuration(tmp_path: Path) -> None:
    assert load(HOME=str(tmp_path)) == Absent(reason="KUBECONFIG is not set, and ~/.kube/config is not there")
    assert isinstance(load(), Absent)
    assert isinstance(load(KUBECONFIG="", HOME=str(tmp_path)), Absent)


def test_the_file_below_home_is_read_when_the_variable_is_not_set(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube/config").write_text(text(), encoding="utf-8")
    found = load(HOME=str(tmp_path))
    assert isinstance(found, Target)
    assert found.server == SERVER
    assert found.source == f"kubeconfig {tmp_path}/.kube/config, context a"


def test_a_home_that_we_may_not_look_into_holds_no_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / ".kube").write_text("a file", encoding="utf-8")
    assert isinstance(load(HOME=str(tmp_path)), Absent)
    assert isinstance(load(HOME="/" + "x" * 5000), Absent)


@pytest.mark.loopback
@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
def test_another_users_home_holds_no_kubeconfig(tmp_path: Path) -> None:
    code = (
        "import os, sys; from krun_discover import kubeconfig\nos.setuid(65534)\n"
        "print(kubeconfig.load({'HOME': sys.argv[1]}, google=lambda: None).reason)"
    )
    (tmp_path / ".kube").mkdir(mode=0o700)
    (tmp_path / ".kube/config").write_text(text(), encoding="utf-8")
    tmp_path.chmod(0o700)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "~/.kube/config is not there" in done.stdout


def test_a_variable_none_of_whose_files_is_there_is_no_silent_way_to_another_cluster(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"KUBECONFIG=.*no such file"):
        load(tmp_path / "x", tmp_path / "y", HOME=str(tmp_path))


def test_files_of_the_list_that_are_missing_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "b").write_text(text(), encoding="utf-8")
    assert isinstance(load(tmp_path / "a", tmp_path / "b"), Target)
    assert isinstance(load(KUBECONFIG=f"::{tmp_path}/b:"), Target)


def test_of_several_files_the_first_that_has_an_entry_wins_whole(tmp_path: Path) -> None:
    first = text(cluster={"server": "https://first"}, context={"namespace": "one"}, **{"current-context": ""})
    second = json.loads(text(cluster={"server": "https://second"}, user={"token": "second"}))
    second["users"].append({"name": "other", "user": {"token": "other"}})
    second["contexts"].append({"name": "b", "context": {"cluster": "a", "user": "other"}})
    (tmp_path / "1").write_text(first, encoding="utf-8")
    (tmp_path / "2").write_text(json.dumps(second), encoding="utf-8")
    a, b = load(tmp_path / "1", tmp_path / "2"), load(tmp_path / "1", tmp_path / "2", context="b")
    assert isinstance(a, Target)
    assert isinstance(b, Target)
    assert (a.server, a.namespace, proof(a.credentials)) == ("https://first", "one", Proof())
    assert (b.server, proof(b.credentials).headers) == ("https://first", {"Authorization": "Bearer other"})


def test_a_file_without_a_current_context_chooses_no_cluster(tmp_path: Path) -> None:
    path = tmp_path / "config"
    for content in ("", "{}", text(**{"current-context": ""}), "users: null\nclusters: ~\n"):
        path.write_text(content, encoding="utf-8")
        assert load(path) == Absent(reason=f"{path}: no current-context")


def test_an_unknown_context_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    assert refused(tmp_path, text(), Misconfigured, context="x") == ": there is no context 'x' | known contexts: a"
    several = text(contexts=[{"name": f"c{number}", "context": {}} for number in range(30)])
    assert refused(tmp_path, several, Misconfigured, context="x").endswith("c19 and 10 more")
    with pytest.raises(Misconfigured, match="context 'x': there is no kubeconfig"):
        load(context="x")


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"cluster": "x"}, ": contexts[name=a].context.cluster: there is no cluster 'x' | known clusters: a"),
        ({"user": "x"}, ": contexts[name=a].context.user: there is no user 'x' | known users: a"),
    ],
)
def test_what_a_context_names_must_be_there(tmp_path: Path, context: dict[str, str], said: str) -> None:
    assert refused(tmp_path, text(context=context), Misconfigured) == said


def test_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    content = text(user={"token": CANARY}, cluster={"server": f"{SERVER}/k8s/"}, context={"namespace": "demo"})
    by_json = target(tmp_path, content)
    by_yaml = target(tmp_path, yaml.safe_dump(json.loads(content)))
    assert by_json == by_yaml
    assert (by_json.server, by_json.namespace) == (f"{SERVER}/k8s", "demo")
    assert target(tmp_path, "\ufeff" + content) == by_json


def test_texts_that_look_like_numbers_and_dates_stay_texts(tmp_path: Path) -> None:
    content = yaml.safe_dump(json.loads(text())).replace("user: {}", "user:\n    token: 0x1F\n")
    content = content.replace("cluster: a\n    user: a", "cluster: a\n    user: a\n    namespace: 2026-13-45")
    found = target(tmp_path, content)
    assert proof(found.credentials).headers == {"Authorization": "Bearer 0x1F"}
    assert found.namespace == "2026-13-45"


def test_aliases_of_yaml_are_followed_and_its_tags_build_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(
        "current-context: &name a\nclusters: [{name: *name, cluster: {server: https://x}}]\n"
        "contexts: [{name: *name, context: {cluster: *name}}]\n"
        "extra: !!python/object/apply:os.abort []\n",
        encoding="utf-8",
    )
    found = load(path)
    assert isinstance(found, Target)
    assert found.server == "https://x"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b"[1, 2]", "not an object of clusters, contexts and users"),
        (b"just words", "not an object of clusters, contexts and users"),
        (b"a: 1\nb: [", "line 3, column 1"),
        (b"a: 1\n\tb: 1", "line 2, column 1"),
        (b"a: \x07", "characters that YAML does not allow"),
        (b"[" * 100_000, "maximum nesting depth"),
        (b'{"a":' * 100_000, "nest"),
        (b"a: 1\n---\nb: 2\n", "line 2, column 1"),
        (b"contexts: 1", "contexts: is no list"),
        (b"contexts: [1]", "contexts[0]: is no object"),
        (b"contexts: [{name: [1]}]", "contexts[0].name: is no text"),
        (b"contexts: [{name: a, context: 1}]", "contexts[0].context: is no object"),
        (b"current-context: {}", "current-context: is no text"),
        (b'{"current-context": "\\ud800"}', "current-context: is no text"),
        (b'{"current-context": "a\\u0000"}', "current-context: is no text"),
        (b'{"current-context": "a\\u001b[2J"}', "current-context: is not one line of text"),
    ],
)
def test_a_broken_file_is_named_with_the_key_or_the_line(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refused(tmp_path, content)


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({"server": ""}, "clusters[name=a].cluster.server: is missing"),
        ({"server": 1}, "clusters[name=a].cluster.server: is no text"),
        ({"server": "api.example"}, "server: is no URL of a server | write https://HOST:PORT"),
        ({"server": "ftp://api.example"}, "server: is no URL"),
        ({"server": "https://["}, "server: is no URL"),
        ({"server": "https://x:port"}, "server: is no URL"),
        ({"server": "https://x:0"}, "server: is no URL"),
        ({"server": "https://"}, "server: is no URL"),
        ({"server": "https://x/?a=b"}, "server: is no URL"),
        ({"server": "https://ö.example"}, "server: is no URL"),
        ({"server": f"https://me:{CANARY}@x"}, "server: holds a user's name"),
        ({"proxy-url": f"me:{CANARY}@proxy"}, "proxy-url: is no URL of a server | write http://HOST:PORT"),
        ({"certificate-authority-data": "§"}, "certificate-authority-data: is not base64"),
        ({"certificate-authority-data": "eHh4"}, "certificate-authority-data: there is no certificate in it"),
        ({"insecure-skip-tls-verify": "yes"}, "insecure-skip-tls-verify: is neither true nor false"),
    ],
)
def test_a_broken_cluster_is_named_with_its_key(tmp_path: Path, cluster: dict[str, Any], said: str) -> None:
    assert said in refused(tmp_path, text(cluster=cluster))


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ({"token": f"{CANARY} {CANARY}"}, "users[name=a].user.token: the token is not one word of ASCII"),
        ({"token": f"{CANARY}\r\nX: y"}, "users[name=a].user.token: the token is not one word of ASCII"),
        ({"token": {"value": CANARY}}, "users[name=a].user.token: is no text"),
        ({"client-certificate-data": "!"}, "client-certificate-data: is not base64"),
        ({"client-certificate-data": b64(CANARY.encode())}, "client-certificate: has no client-key beside it"),
        ({"client-key-data": b64(CANARY.encode())}, "client-key: has no client-certificate beside it"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1"}}, "users[name=a].user.exec.command: is missing"),
        ({"exec": {"command": "x", "apiVersion": "client.authentication.k8s.io/v1", "env": [1]}}, "exec.env[0]"),
        (
            {"exec": {"command": "x", "apiVersion": "client.authentication.k8s.io/v1", "env": [{"value": CANARY}]}},
            "exec.env[0].name: is no name of a variable",
        ),
        ({"exec": {"command": "x", "apiVersion": "client.authentication.k8s.io/v1", "args": [1]}}, "exec.args[0]"),
        (
            {"exec": {"command": "x", "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Maybe"}},
            "exec.interactiveMode: is none of Never, IfAvailable, Always",
        ),
    ],
)
def test_a_broken_user_is_named_with_its_key_and_without_its_values(
    tmp_path: Path, user: dict[str, Any], said: str
) -> None:
    assert said in refused(tmp_path, text(user=user))


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ({"exec": {"command": "x", "apiVersion": "client.authentication.k8s.io/v1alpha1"}}, "v1alpha1' is not support"),
        ({"auth-provider": {"name": "oidc", "config": {"id-token": CANARY}}}, "user.auth-provider.name: only gcp is"),
        ({"as": "x", "as-groups": ["a"]}, "as-groups: is not supported"),
    ],
)
def test_what_is_not_supported_is_said_and_not_passed_over(tmp_path: Path, user: dict[str, Any], said: str) -> None:
    assert said in refused(tmp_path, text(user=user), Misconfigured)


def test_proxies_that_are_not_supported_are_told_at_once(tmp_path: Path) -> None:
    said = refused(tmp_path, text(cluster={"proxy-url": f"socks5://me:{CANARY}@proxy:1080"}), Misconfigured)
    assert "clusters[name=a].cluster.proxy-url: only proxies of http://" in said


def test_files_that_cannot_be_read_are_named_with_the_key_that_names_them(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(text(cluster={"certificate-authority": "ca.pem"}), encoding="utf-8")
    with pytest.raises(Misconfigured, match=re.escape(f"certificate-authority: {tmp_path}/ca.pem cannot be read: No")):
        load(path)
    with pytest.raises(Misconfigured, match="is not a file"):
        load(tmp_path)


def test_a_token_goes_along(tmp_path: Path) -> None:
    found = target(tmp_path, text(user={"token": CANARY}))
    assert proof(found.credentials).headers == {"Authorization": f"Bearer {CANARY}"}
    assert not found.credentials.renew()


def test_a_token_file_is_read_anew_each_time_and_wins_over_the_token_beside_it(tmp_path: Path) -> None:
    found = target(tmp_path, text(user={"tokenFile": "t", "token": "old"}))
    for token in ("one", "two"):
        (tmp_path / "t").write_text(f"{token}\n", encoding="utf-8")
        assert proof(found.credentials).headers == {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (None, Misconfigured, "cannot be read: No such file"),
        (b"", Malformed, "the token is empty"),
        (CANARY.encode() + b"\xff", Malformed, "is not one word"),
        (CANARY.encode() + b" x", Malformed, "is not one word"),
        (b"x" * 70_000, Malformed, "longer than 65536 bytes"),
    ],
)
def test_a_token_file_that_is_none_is_named(
    tmp_path: Path, content: bytes | None, kind: type[Failure], said: str
) -> None:
    found = target(tmp_path, text(user={"tokenFile": "t"}))
    if content is not None:
        (tmp_path / "t").write_bytes(content)
    with pytest.raises(kind, match=said) as caught:
        proof(found.credentials)
    assert str(tmp_path / "t") in caught.value.message
    assert "users[name=a].user.tokenFile" in caught.value.message
    assert CANARY not in caught.value.message


def test_a_name_and_a_password_go_along(tmp_path: Path) -> None:
    found = target(tmp_path, text(user={"username": "me", "password": CANARY}))
    assert proof(found.credentials).headers == {"Authorization": f"Basic {b64(f'me:{CANARY}'.encode())}"}


def test_a_user_without_anything_sends_nothing(tmp_path: Path) -> None:
    assert proof(target(tmp_path, text()).credentials) == Proof()
    assert proof(target(tmp_path, text(context={"user": ""})).credentials) == Proof()


def test_a_certificate_in_the_file_is_used_from_memory(tmp_path: Path, pair: Pair) -> None:
    user = {"client-certificate-data": b64(pair.chain), "client-key-data": b64(pair.key), "token": CANARY}
    found = proof(target(tmp_path, text(user=user)).credentials)
    assert Path(found.certificate).read_bytes() == pair.chain
    assert Path(found.key).read_bytes() == pair.key
    assert found.certificate.startswith("/proc/self/fd/")
    assert found.headers == {"Authorization": f"Bearer {CANARY}"}


def test_certificate_files_are_relative_to_the_kubeconfig(tmp_path: Path, pair: Pair) -> None:
    (tmp_path / "c.pem").write_bytes(pair.chain)
    (tmp_path / "k.pem").write_bytes(pair.key)
    user = {"client-certificate": "c.pem", "client-key": str(tmp_path / "k.pem")}
    found = proof(target(tmp_path, text(user=user)).credentials)
    assert (found.certificate, found.key) == (str(tmp_path / "c.pem"), str(tmp_path / "k.pem"))


def test_an_expired_certificate_is_told_by_its_date_before_any_request(tmp_path: Path, authority: Authority) -> None:
    pair = authority.workload(spiffe_id="spiffe://x", life=-datetime.timedelta(hours=1))
    user = {"client-certificate-data": b64(pair.chain), "client-key-data": b64(pair.key)}
    found = target(tmp_path, text(user=user))
    ended = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)).strftime("%Y-%m-%d %H:")
    with pytest.raises(Denied, match=rf"client-certificate-data has expired on {ended}"):
        proof(found.credentials)


def test_a_certificate_of_tomorrow_is_told_too(tmp_path: Path, authority: Authority) -> None:
    day = datetime.timedelta(days=1)
    pair = authority.workload(spiffe_id="spiffe://x", life=2 * day, age=-day)
    user = {"client-certificate-data": b64(pair.chain), "client-key-data": b64(pair.key)}
    with pytest.raises(Denied, match="is not valid before"):
        proof(target(tmp_path, text(user=user)).credentials)


def test_a_key_of_another_certificate_is_told_with_the_key_that_holds_it(tmp_path: Path, authority: Authority) -> None:
    one, other = (authority.server(hosts=("x",)) for _ in range(2))
    user = {"client-certificate-data": b64(one.chain), "client-key-data": b64(other.key)}
    with pytest.raises(Misconfigured, match="client-certificate-data and its key cannot be used: KEY_VALUES_MISMATCH"):
        proof(target(tmp_path, text(user=user)).credentials)


@pytest.mark.parametrize("command", ["gke-gcloud-auth-plugin", "/opt/google/bin/gke-gcloud-auth-plugin"])
def test_googles_plugin_is_not_run_as_its_token_is_at_hand(tmp_path: Path, command: str) -> None:
    plugin = {"command": command, "apiVersion": "client.authentication.k8s.io/v1beta1", "provideClusterInfo": True}
    found = target(tmp_path, text(user={"exec": plugin}))
    assert isinstance(found.credentials, kube_credentials.Google)
    assert proof(found.credentials).headers == {"Authorization": "Bearer google-token"}
    assert "google-token" not in repr(found)


def test_googles_plugin_is_run_when_its_arguments_ask_for_more(tmp_path: Path) -> None:
    plugin = {"command": "gke-gcloud-auth-plugin", "apiVersion": "client.authentication.k8s.io/v1beta1"}
    own = {"exec": plugin | {"args": ["--use_application_default_credentials"]}}
    assert isinstance(target(tmp_path, text(user=own)).credentials, kube_credentials.Google)
    more = {"exec": plugin | {"args": ["--impersonate_service_account=x"]}}
    assert isinstance(target(tmp_path, text(user=more)).credentials, Exec)


def test_the_old_provider_for_google_is_the_same(tmp_path: Path) -> None:
    user = {"auth-provider": {"name": "gcp", "config": {"access-token": CANARY}}}
    assert proof(target(tmp_path, text(user=user)).credentials).headers == {"Authorization": "Bearer google-token"}


def test_another_plugin_is_known_by_its_file_and_user(tmp_path: Path) -> None:
    plugin = {
        "command": "./plugin",
        "apiVersion": "client.authentication.k8s.io/v1",
        "args": [CANARY],
        "env": [{"name": "X", "value": CANARY}],
    }
    found = target(tmp_path, text(user={"exec": plugin})).credentials
    assert isinstance(found, Exec)
    assert found.title == f"{tmp_path}/config: users[name=a].user.exec, credential plugin plugin"


def test_to_act_as_another_user_is_passed_on(tmp_path: Path) -> None:
    found = target(tmp_path, text(user={"token": CANARY, "as": "system:serviceaccount:demo:default"}))
    assert proof(found.credentials).headers == {
        "Authorization": f"Bearer {CANARY}",
        "Impersonate-User": "system:serviceaccount:demo:default",
    }


def test_the_clusters_own_authority_verifies_it(tmp_path: Path, authority: Authority) -> None:
    by_data = target(
        tmp_path, text(cluster={"certificate-authority-data": b64(b"# comment \xc3\xb6\n" + authority.root)})
    )
    (tmp_path / "ca.pem").write_bytes(authority.root)
    by_file = target(tmp_path, text(cluster={"certificate-authority": "ca.pem", "tls-server-name": "kubernetes"}))
    assert by_data.tls.roots.strip() == authority.root.decode().strip()
    assert by_file.tls.roots == by_data.tls.roots
    assert by_file.tls.server_name == "kubernetes"
    assert by_data.roots == f"{tmp_path}/config: clusters[name=a].cluster.certificate-authority-data"
    assert target(tmp_path, text()).roots == SYSTEM_ROOTS


@pytest.mark.parametrize(
    "server",
    [
        "https://gke-1234.us-central1.gke.goog",
        "https://connectgateway.googleapis.com/v1/projects/1/locations/global/gkeMemberships/m",
        "https://europe-west1-connectgateway.googleapis.com/v1/projects/1/locations/europe-west1/gkeMemberships/m",
    ],
)
def test_servers_of_google_are_verified_by_the_systems_roots_whatever_the_file_says(
    tmp_path: Path, authority: Authority, server: str
) -> None:
    for more in ({"certificate-authority-data": b64(authority.root)}, {"insecure-skip-tls-verify": True}):
        found = target(tmp_path, text(cluster={"server": server, **more}))
        assert (found.tls.roots, found.tls.insecure, found.roots) == ("", False, SYSTEM_ROOTS)


@pytest.mark.parametrize("server", ["https://gke.goog.example", "https://x.googleapis.com", "https://10.0.0.1"])
def test_other_servers_are_not(tmp_path: Path, authority: Authority, server: str) -> None:
    roots = {"certificate-authority-data": b64(authority.root)}
    assert target(tmp_path, text(cluster={"server": server, **roots})).tls.roots


def test_verifying_can_be_switched_off_but_not_while_an_authority_is_named(
    tmp_path: Path, authority: Authority
) -> None:
    assert target(tmp_path, text(cluster={"insecure-skip-tls-verify": True})).tls.insecure
    both = {"insecure-skip-tls-verify": True, "certificate-authority-data": b64(authority.root)}
    assert "contradicts" in refused(tmp_path, text(cluster=both), Misconfigured)


def test_a_proxy_is_kept_and_its_password_is_not_shown(tmp_path: Path) -> None:
    proxy = f"http://me:{CANARY}@proxy.example:3128"
    assert target(tmp_path, text(cluster={"proxy-url": proxy})).proxy == proxy


def test_a_context_that_was_renamed_is_known_by_its_cluster(tmp_path: Path) -> None:
    whole = json.loads(text(name="gke_p_l_c"))
    whole["contexts"][0]["name"] = whole["current-context"] = "prod"
    found = target(tmp_path, json.dumps(whole))
    assert (found.project, found.location, found.cluster) == ("p", "l", "c")
