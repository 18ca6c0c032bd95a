"""Anything at all as a kubeconfig: a target, nothing, or a failure that names the file, and never another exception."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from krun_discover import kubeconfig
from krun_discover.errors import Failure
from krun_discover.issued import Token
from krun_discover.kube_target import Absent, Target

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["a", "https://x", "=", "eHh4"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def some(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """An object with some of these keys, and any values."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, VALUES))


def named(singular: str, inner: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.fixed_dictionaries({"name": st.just("a") | VALUES, singular: inner | VALUES}), max_size=3)


PLUGIN = some("command", "apiVersion", "args", "env", "installHint", "interactiveMode", "provideClusterInfo")
KUBECONFIGS = st.fixed_dictionaries(
    {
        "current-context": st.just("a") | VALUES,
        "contexts": named("context", some("cluster", "user", "namespace") | st.just({"cluster": "a", "user": "a"})),
        "clusters": named(
            "cluster",
            some(
                "certificate-authority-data",
                "certificate-authority",
                "proxy-url",
                "tls-server-name",
                "insecure-skip-tls-verify",
                "extensions",
            ).map(lambda cluster: {"server": "https://x", **cluster})
            | some("server"),
        ),
        "users": named(
            "user",
            some("token", "tokenFile", "username", "password", "client-certificate-data", "client-key-data", "as")
            | st.fixed_dictionaries({"exec": PLUGIN | VALUES, "auth-provider": VALUES}),
        ),
    }
)


def google() -> Token:
    raise AssertionError("nobody asks for it")


def read(folder: Path, data: bytes) -> None:
    """Any bytes are a target, nothing, or a failure that names the file."""
    path = folder / "config"
    path.write_bytes(data)
    found: Target | Absent | Failure
    try:
        found = kubeconfig.load({"KUBECONFIG": str(path)}, google=google)
    except Failure as error:
        found = error
    if isinstance(found, Failure):
        assert found.exit_code in (65, 78)
        assert str(path) in found.message
        assert found.hint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kubeconfig")


@given(data=st.binary())
def test_any_bytes_are_a_target_or_a_failure(folder: Path, data: bytes) -> None:
    read(folder, data)


@given(data=st.text(alphabet="{}[]:,&*!|>'\"%@#-?~ \n\tabnull0.<=").map(str.encode))
def test_any_yaml_is_a_target_or_a_failure(folder: Path, data: bytes) -> None:
    read(folder, data)


@given(whole=KUBECONFIGS)
@settings(max_examples=300)
def test_any_kubeconfig_of_any_values_is_a_target_or_a_failure(folder: Path, whole: dict[str, Any]) -> None:
    read(folder, json.dumps(whole).encode())


@given(whole=KUBECONFIGS, at=st.integers(min_value=0), piece=st.binary(max_size=3))
def test_a_kubeconfig_that_was_cut_or_overwritten_is_a_target_or_a_failure(
    folder: Path, whole: dict[str, Any], at: int, piece: bytes
) -> None:
    data = yaml.safe_dump(whole).encode()
    at %= len(data) + 1
    read(folder, data[:at] + piece + data[at + len(piece) :])
    read(folder, data[:at])
