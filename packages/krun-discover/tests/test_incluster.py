"""The pod's own cluster, by its variables and its folder."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_discover import incluster, kube_find
from krun_discover.errors import Failure, Malformed, Misconfigured
from krun_discover.issued import Token
from krun_discover.kube_target import Absent, Target
from krun_discover.web import Web
from krun_testbed.certificates import Authority

CANARY = "canary-6a1f"
AUTHORITY = Authority()
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text(f"{CANARY}\n", encoding="utf-8")
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.root)
    (tmp_path / "namespace").write_text("demo", encoding="utf-8")
    return tmp_path


def test_a_pod_finds_its_own_cluster(folder: Path) -> None:
    found = incluster.load(POD, folder=str(folder))
    assert isinstance(found, Target)
    assert CANARY not in repr(found)
    assert (found.server, found.namespace, found.proxy) == ("https://10.0.0.1:443", "demo", "-")
    assert found.tls.roots.strip() == AUTHORITY.root.decode().strip()
    assert found.roots == str(folder / "ca.crt")
    for token in ("one", "two"):
        (folder / "token").write_text(token, encoding="utf-8")
        assert found.credentials.proof(deadline=0).headers == {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("host", "port", "server"),
    [
        ("fd00::1", "6443", "https://[fd00::1]:6443"),
        ("kubernetes.default.svc", "", "https://kubernetes.default.svc:443"),
    ],
)
def test_its_address_may_be_of_any_kind(folder: Path, host: str, port: str, server: str) -> None:
    found = incluster.load({"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}, folder=str(folder))
    assert isinstance(found, Target)
    assert found.server == server


def test_outside_of_a_pod_there_is_nothing(folder: Path) -> None:
    assert incluster.load({}, folder=str(folder)) == Absent(reason="KUBERNETES_SERVICE_HOST is not set")
    (folder / "token").unlink()
    found = incluster.load(POD, folder=str(folder))
    assert isinstance(found, Absent)
    assert "automountServiceAccountToken" in found.reason


@pytest.mark.parametrize(
    ("host", "port"), [("a b", "443"), ("a/b", "443"), ("x@y", "443"), ("10.0.0.1", "x"), ("a", "0")]
)
def test_an_address_that_is_none_is_refused(folder: Path, host: str, port: str) -> None:
    with pytest.raises(Misconfigured, match="not the address of a server"):
        incluster.load({"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}, folder=str(folder))


def test_roots_that_are_missing_or_none_are_told(folder: Path) -> None:
    (folder / "ca.crt").write_text("x", encoding="utf-8")
    with pytest.raises(Malformed, match=r"ca\.crt: there is no certificate in it"):
        incluster.load(POD, folder=str(folder))
    (folder / "ca.crt").unlink()
    with pytest.raises(Misconfigured, match=r"ca\.crt cannot be read: No such file"):
        incluster.load(POD, folder=str(folder))


def test_a_namespace_that_is_missing_or_odd_is_none(folder: Path) -> None:
    for content in (b"\xff", b"a\nb", b""):
        (folder / "namespace").write_bytes(content)
        found = incluster.load(POD, folder=str(folder))
        assert isinstance(found, Target)
        assert found.namespace == ""
    (folder / "namespace").unlink()
    assert isinstance(incluster.load(POD, folder=str(folder)), Target)


@given(host=st.text(), port=st.text())
def test_any_variables_are_a_server_nothing_or_a_failure(
    tmp_path_factory: pytest.TempPathFactory, host: str, port: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "token").write_text("x", encoding="utf-8")
    (folder / "ca.crt").write_bytes(AUTHORITY.root)
    try:
        found = incluster.load({"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}, folder=str(folder))
    except Misconfigured:
        return
    assert isinstance(found, Target) or not host


def no_google() -> Token:
    raise AssertionError("nobody asks for it")


def test_a_kubeconfig_comes_first_and_without_any_both_are_named(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "{current-context: a, clusters: [{name: a, cluster: {server: 'https://x'}}], "
        "contexts: [{name: a, context: {cluster: a}}]}",
        encoding="utf-8",
    )
    named = kube_find.configured({"KUBECONFIG": str(config), **POD}, google=no_google)
    assert isinstance(named, Target)
    assert named.server == "https://x"
    nowhere = {"NO_GCE_CHECK": "true", "PATH": "/nonexistent"}
    with pytest.raises(Failure, match=r"KUBECONFIG is not set.*KUBERNETES_SERVICE_HOST is not set") as caught:
        kube_find.home(nowhere, web=Web(deadline=time.monotonic() + 20, environ=nowhere))
    assert caught.value.exit_code == 78
