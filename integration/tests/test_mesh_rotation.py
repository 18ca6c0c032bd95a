"""Tokens, certificates and roots are renewed, and istiod comes and goes, while calls pass in both directions."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from krun_testbed import (
    istio_build,
    istiod,
    mesh_agent,
    mesh_call,
    mesh_cluster,
    mesh_gate,
    mesh_objects,
    mesh_pod,
    mesh_workload,
    processes,
)
from krun_testbed import kubernetes as kubernetes_api
from krun_testbed.certificates import write
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_gate import Gate
from krun_testbed.mesh_pod import Pod
from krun_testbed.mesh_workload import Workload

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(400)]

STATUS = 15019
ACCOUNT = "outside"
# Certificates live for a minute, and are renewed when a tenth of it is over: often, and with time to spare.
OFTEN = {"SECRET_TTL": "60s", "SECRET_GRACE_PERIOD_RATIO": "0.9", "SECRET_GRACE_PERIOD_RATIO_JITTER": "0.01"}
LONG = 90.0  # seconds, for what takes two renewals
# Seconds, for what an Envoy learns that had lost its control plane: it looks again 30 s later at the latest
# (SubscriptionFactory::RetryMaxDelayMs, jittered).
AGAIN = 30.0 + processes.WAIT


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A root that istiod signs with, and its key; PEM."""

    root: str
    key: str


def istiods_own(kubernetes: Kubernetes) -> Authority:
    """The one that istiod made for itself, as it keeps it."""
    data = kubernetes.admin.get(f"/api/v1/namespaces/{istiod.NAMESPACE}/secrets/istio-ca-secret")["data"]
    root, key = (base64.b64decode(data[name]).decode() for name in ("ca-cert.pem", "ca-key.pem"))
    return Authority(root=root, key=key)


def new_authority(name: str) -> Authority:
    """Another one."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Authority(root=made.public_bytes(serialization.Encoding.PEM).decode(), key=text.decode())


@dataclass(kw_only=True)
class Calls:
    """Calls in both directions, each on new connections, until the block ends; what failed of them."""

    directions: dict[str, Callable[[], str]]
    counts: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """While the block runs; at least twenty in each direction after it began, and none failed."""
        threads = [threading.Thread(target=self._repeat, args=(name,)) for name in self.directions]
        for thread in threads:
            thread.start()
        try:
            yield
            self.pass_by(20)
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()
        assert self.failures == []

    def pass_by(self, number: int) -> None:
        """Wait until so many more have passed in each direction."""
        wanted = {name: self.counts.get(name, 0) + number for name in self.directions}
        processes.wait_until(
            lambda: all(self.counts.get(name, 0) >= count for name, count in wanted.items()),
            what=f"{number} calls",
            timeout=LONG,
        )

    def _repeat(self, name: str) -> None:
        while not self._ended.wait(0.02):
            try:
                if problem := self.directions[name]():
                    self.failures.append(f"{name}: {problem}")
            except (OSError, ValueError, AssertionError) as error:
                self.failures.append(f"{name}: {error!r}")
            self.counts[name] = self.counts.get(name, 0) + 1


@dataclass(kw_only=True)
class World:
    """A mesh whose authority can be exchanged, a pod in it, and what the workload outside needs to be called."""

    cluster: Cluster
    namespace: str
    web: Pod
    gate: Gate
    authority: Authority

    @contextmanager
    def workload(self, **variables: str) -> Iterator[Workload]:
        env = {**OFTEN, **variables}
        with mesh_workload.workload(self.cluster, "a", namespace=self.namespace, account=ACCOUNT, env=env) as a:
            self.gate.lead(a.place, mesh_gate.server_name(a.host, 8080))
            mesh_agent.wait_for_config(a.place, "_15003")
            mesh_pod.wait_until_served(a.place, self.web.place.address)
            # The pod's proxy may have lost its istiod in a test before.
            self.cluster.settle(a.place, self.web.place, namespace=self.namespace, timeout=AGAIN)
            yield a

    def calls(self, a: Workload) -> Calls:
        """Outside to pod and pod to outside, by mutual TLS."""
        names = self.cluster.names.names
        outward, inward = names[self.web_host], names[a.host]

        def out() -> str:
            answer = a.call("http://web:8080/", to=outward)
            return "" if answer.status == 200 and answer.identities == (a.identity, self.web.identity) else str(answer)

        def into() -> str:
            answer = self.web.call("http://a:8080/", to=inward)
            return "" if answer.status == 200 and answer.identities == (self.web.identity, a.identity) else str(answer)

        return Calls(directions={"out": out, "in": into})

    @property
    def web_host(self) -> str:
        return f"web.{self.namespace}.svc.cluster.local"

    def sign(self, authority: Authority, *, roots: list[Authority]) -> None:
        """Have istiod start anew, sign with this authority, and tell of these roots."""
        bundle = "".join(root.root for root in roots)
        files = {
            "ca-cert.pem": authority.root,
            "ca-key.pem": authority.key,
            "cert-chain.pem": authority.root,
            "root-cert.pem": bundle,
        }
        self.cluster.istiod.stop()
        folder = self.cluster.istiod.folder / "etc/cacerts"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        self.cluster.istiod.start()
        self.authority = authority
        processes.wait_until(
            lambda: self.cluster.istiod.root(namespace=self.namespace) == bundle, what="the roots are told of"
        )
        # What the kubelet does for a pod.
        own = self.web.place.folder / "agent/var/run/secrets/istio/root-cert.pem"
        write(path=own, content=bundle.encode())
        os.chown(own, mesh_agent.USER, mesh_agent.USER)


@pytest.fixture(scope="module", params=istio_build.chosen())
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    # A cluster of its own: whoever shared it would see its authority change.
    with contextlib.ExitStack() as stack:
        kubernetes = stack.enter_context(kubernetes_api.running())
        version = istio_build.version_of(request.param)
        cluster = stack.enter_context(mesh_cluster.running(kubernetes, version=version))
        namespace = cluster.namespace()
        kubernetes.service_account(ACCOUNT, namespace=namespace)
        gate = stack.enter_context(cluster.gate())
        web = stack.enter_context(cluster.pod("web", namespace=namespace, environment=OFTEN))
        cluster.register("a", gate, namespace=namespace, account=ACCOUNT)
        cluster.apply(
            _new_connections(f"a.{namespace}.svc.cluster.local"),
            _new_connections(f"web.{namespace}.svc.cluster.local"),
            mesh_objects.strict(),
            namespace=namespace,
        )
        mesh_pod.wait_until_served(web.place, gate.address)
        yield World(cluster=cluster, namespace=namespace, web=web, gate=gate, authority=istiods_own(kubernetes))


def _new_connections(host: str) -> dict[str, Any]:
    """Each request on a connection of its own, and so with a handshake."""
    rule = mesh_objects.mutual(host)
    rule["spec"]["trafficPolicy"]["connectionPool"] = {"http": {"maxRequestsPerConnection": 1}}
    return rule


def state(a: Workload) -> dict[str, Any]:
    found: dict[str, Any] = mesh_call.admin(a.place, "/readyz", port=STATUS).json
    return found


def agent_of(a: Workload) -> int:
    """The workload's pilot-agent."""
    (pid,) = [pid for pid in processes.children(a.running.pid) if "/pilot-agent" in processes.program(pid)]
    return pid


def file(pid: int, name: str) -> str:
    """A file of an agent, below its working directory."""
    try:
        return Path(f"/proc/{pid}/cwd/{name}").read_text(encoding="utf-8")
    except OSError:
        return ""


def certificate(a: Workload) -> str:
    """The workload's certificates, which the agent writes when they are new."""
    return file(agent_of(a), "certs/cert-chain.pem")


def renewed(a: Workload, *, times: int = 1) -> None:
    """Wait until the workload's certificate has been renewed so often."""
    seen = {certificate(a)}

    def is_done() -> bool:
        seen.add(certificate(a))
        return len(seen - {""}) > times

    processes.wait_until(is_done, what="new certificates", timeout=LONG)


def signer(pem: str) -> str:
    """Who signed the first certificate; nothing when there is none."""
    if not pem:
        return ""
    leaf = x509.load_pem_x509_certificates(pem.encode())[0]
    return str(leaf.issuer.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)[0].value)


def is_taken(token: str, *, cluster: Cluster) -> bool:
    """Whether the API server, whom istiod asks, takes a token for good; it remembers for ten seconds that it did."""
    path, kind = "/apis/authentication.k8s.io/v1/tokenreviews", "authentication.k8s.io/v1"
    spec = {"token": token, "audiences": [istiod.AUDIENCE]}
    asked = {"apiVersion": kind, "kind": "TokenReview", "spec": spec}
    answer = cluster.kubernetes.admin.request("POST", path, asked)
    return bool(answer["status"].get("authenticated"))


def trusted(place_call: Callable[[str], mesh_call.Answer]) -> int:
    """How many roots an Envoy takes its peers' certificates by, as it tells."""
    found = json.loads(place_call("/certs").body)["certificates"]
    return max(len(entry.get("ca_cert", [])) for entry in found)


def test_certificates_and_tokens_are_renewed_under_load_and_old_tokens_are_needed_no_more(world: World) -> None:
    with world.workload(KRUN_TOKEN_REFRESH="1") as a:
        calls = world.calls(a)
        with calls.under_way():
            renewed(a)
            # Of an account that was made anew, the tokens so far are none.
            old = file(agent_of(a), "var/run/secrets/tokens/istio-token")
            admin = world.cluster.kubernetes.admin
            admin.delete(f"/api/v1/namespaces/{world.namespace}/serviceaccounts/{ACCOUNT}")
            world.cluster.kubernetes.service_account(ACCOUNT, namespace=world.namespace)
            processes.wait_until(lambda: not is_taken(old, cluster=world.cluster), what="the old token is none")
            renewed(a, times=2)
        assert min(calls.counts.values()) > 100
        told = state(a)
        assert told["credentials"]["token"]["age"] < 60
        assert told["ready"] is True


def test_roots_are_exchanged_under_load_the_old_and_the_new_overlapping(world: World) -> None:
    first, second = world.authority, new_authority("second")
    with world.workload() as a:
        pod = world.web.place
        calls = world.calls(a)

        def have(*authorities: Authority) -> bool:
            """Whether all know exactly these roots: both proxies, and who calls istiod from outside."""
            count = len(authorities)
            known = file(agent_of(a), "var/run/secrets/istio/root-cert.pem")
            return (
                all(authority.root.strip() in known for authority in authorities)
                and known.count("BEGIN CERTIFICATE") == count
                and trusted(lambda path: mesh_call.admin(a.place, path)) == count
                and trusted(lambda path: mesh_call.admin(pod, path)) == count
            )

        with calls.under_way():
            world.sign(first, roots=[first, second])
            processes.wait_until(lambda: have(first, second), what="both roots are known", timeout=LONG)
            world.sign(second, roots=[first, second])
            processes.wait_until(
                lambda: signer(certificate(a)) == "second", what="certificates of the second", timeout=LONG
            )
            renewed(a, times=2)  # and of the pod, whose are as old
            world.sign(second, roots=[second])
            processes.wait_until(lambda: have(second), what="the second root alone is known", timeout=LONG)
            renewed(a)
        assert min(calls.counts.values()) > 100


def test_istiod_that_goes_is_missed_by_nobody_and_renews_when_it_comes_back(world: World) -> None:
    with world.workload(KRUN_TOKEN_REFRESH="1") as a:
        calls = world.calls(a)
        with calls.under_way():
            world.cluster.istiod.stop()
            seen = state(a)["tasks"]["token"]["succeeded"]
            # A renewal of the certificate is due, and fails.
            calls.pass_by(200)
            processes.wait_until(
                lambda: state(a)["tasks"]["token"]["succeeded"] >= seen + 2, what="new tokens", timeout=LONG
            )
            assert state(a)["ready"] is True
            before = certificate(a)
            world.cluster.istiod.start()
            processes.wait_until(lambda: certificate(a) not in ("", before), what="a new certificate", timeout=LONG)
            # What was applied meanwhile arrives.
            world.cluster.settle(a.place, world.web.place, namespace=world.namespace, timeout=mesh_cluster.BACK)


def test_istiod_that_is_not_there_at_the_start_is_told_in_time(world: World) -> None:
    world.cluster.istiod.stop()
    try:
        with world.cluster.network.place(name="a") as place:
            place.resolver(mesh_cluster.OUTSIDE_RESOLVER)
            env = mesh_workload.environment(world.cluster, place, name="a", namespace=world.namespace, account=ACCOUNT)
            argv = ["--", *mesh_workload.application("a")]
            env |= {"KRUN_READY_TIMEOUT": "15"}
            with mesh_workload.started(place, argv, env=env) as running:
                assert running.wait(timeout=60) in (69, 75)
                error = running.stderr.splitlines()[-2]
                assert error.startswith(f"krun-launch: error: the control plane {istiod.INSIDE}:{istiod.XDS} ")
                assert running.stderr.splitlines()[-1].startswith("hint: ")
                assert "app listens" not in running.stdout
    finally:
        world.cluster.istiod.start()


def test_agent_that_is_frozen_stops_neither_calls_nor_tokens(world: World) -> None:
    with world.workload(KRUN_TOKEN_REFRESH="1") as a:
        calls = world.calls(a)
        pid = agent_of(a)
        with calls.under_way():
            os.kill(pid, signal.SIGSTOP)
            seen = state(a)["tasks"]["token"]["succeeded"]
            calls.pass_by(100)
            processes.wait_until(
                lambda: state(a)["tasks"]["token"]["succeeded"] >= seen + 2, what="new tokens", timeout=LONG
            )
            before = certificate(a)
            os.kill(pid, signal.SIGCONT)
            processes.wait_until(lambda: certificate(a) not in ("", before), what="a new certificate", timeout=LONG)
