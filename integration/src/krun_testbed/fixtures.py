"""Fixtures of every package's tests: loopback addresses, a certificate authority, the parts of the testbed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from krun_testbed import google_api, istio_build, mesh_cluster
from krun_testbed import kubernetes as kubernetes_api
from krun_testbed.addresses import free_port, loopback
from krun_testbed.certificates import Authority
from krun_testbed.cloudrun import CloudRun, Service
from krun_testbed.google_api import GoogleApi
from krun_testbed.google_tokens import Issuer
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.metadata import MetadataServer

# `make soak` asks for the long form. No deadline: a slow machine is no failure.
hypothesis.settings.register_profile("short", max_examples=100, deadline=None)
hypothesis.settings.register_profile("soak", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


def pytest_configure() -> None:
    """Take the signals back that a shell ignores for what it runs in the background.

    Ignored ones are inherited by every command of the tests, and a shell script cannot even trap them (POSIX, trap).
    """
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture
def address() -> str:
    """A loopback address of this test alone."""
    return loopback()


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The root that the parts of a test trust."""
    return Authority()


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    """Who signs the ID tokens that the front of ``cloud_run`` takes."""
    return Issuer()


@pytest.fixture
def metadata_server(address: str) -> Iterator[MetadataServer]:
    """A metadata server as Cloud Run has it, which runs and notes what it is asked."""
    with MetadataServer(address=address) as running:
        yield running


@pytest.fixture(scope="session")
def cloud_run(issuer: Issuer, authority: Authority) -> Callable[..., CloudRun]:
    """Makes Cloud Run's front for some services, on an address of its own; ``with`` starts and stops it."""

    def make(*services: Service, request_timeout: float = 300.0, directory: Path | None = None) -> CloudRun:
        host = loopback()
        return CloudRun(
            services=services,
            issuer=issuer,
            authority=authority,
            listen=(host, free_port(address=host)),
            request_timeout=request_timeout,
            directory=directory,
        )

    return make


@pytest.fixture(scope="session")
def kubernetes() -> Iterator[Kubernetes]:
    """A real Kubernetes API, one for all tests of a worker: each test takes a namespace of its own."""
    with kubernetes_api.running() as running:
        yield running


@pytest.fixture(scope="session", params=istio_build.chosen())
def cluster(request: pytest.FixtureRequest, kubernetes: Kubernetes) -> Iterator[Cluster]:
    """A mesh of a real istiod, one for all tests of a worker: each test takes a namespace of its own."""
    with mesh_cluster.running(kubernetes, version=istio_build.version_of(request.param)) as running:
        yield running


@pytest.fixture
def google(authority: Authority, issuer: Issuer, tmp_path: Path) -> Iterator[GoogleApi]:
    """Google's APIs, with one project that has no clusters; ``google.add(kubernetes, NAME)`` makes one of it."""
    with google_api.running(address=loopback(), directory=tmp_path, authority=authority, issuer=issuer) as running:
        yield running


@pytest.fixture
def namespace(kubernetes: Kubernetes) -> str:
    """A namespace of this test alone, with its service account ``default``."""
    return kubernetes.namespace()
