"""A real etcd and a real kube-apiserver, on a loopback address of their own, with nothing kept between runs.

There is no controller manager and no kubelet: what they make of an object (service accounts of a new namespace,
endpoints, pods that run) a test makes itself, and a namespace that is deleted never goes away.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from krun_testbed import components, kubernetes_build, processes
from krun_testbed.addresses import free_port, loopback
from krun_testbed.certificates import Authority, write
from krun_testbed.kubernetes_certificates import ADMINISTRATORS, ClientAuthority, signing_key
from krun_testbed.kubernetes_client import ApiError, Client
from krun_testbed.kubernetes_kubeconfig import by_token, kubeconfig
from krun_testbed.kubernetes_tokens import Reviewer

# As GKE names itself in the tokens that it signs.
ISSUER = "https://container.googleapis.com/v1/projects/demo-project/locations/us-central1/clusters/demo"
STARTUP = 60.0  # seconds; it takes about three on a machine that has nothing else to do
SERVICES = "10.96.0.0/16"
# Addresses of no machine (RFC 5737, and a private one): a proxy leads from there to where the server listens.
PUBLIC = "203.0.113.10"
PRIVATE = "10.128.0.10"
# For what the certificate of the server is good, beside its address.
HOSTS = ("kubernetes.default.svc", "localhost", PUBLIC, PRIVATE)


@dataclass(frozen=True, kw_only=True)
class Server:
    """The two that run, and what their callers need."""

    url: str
    root: bytes  # of the server's certificate
    admin: Client
    clients: ClientAuthority
    reviewer: Reviewer
    issuer: str
    etcd: processes.Running
    apiserver: processes.Running


@contextlib.contextmanager
def start(*, directory: Path, address: str = "", port: int = 0, issuer: str = ISSUER) -> Iterator[Server]:
    """Both, until the block ends; the folder is for certificates, keys and data. Missing when one cannot be had."""
    etcd, apiserver = components.program("etcd", package="etcd-server"), str(kubernetes_build.make())
    # Also when this process is killed, and cannot end them.
    bound = [components.program("setpriv", package="util-linux"), "--pdeathsig", "KILL"]
    address = address or loopback()
    port = port or free_port(address=address)
    authority, clients = Authority(name="kubernetes"), ClientAuthority()
    _write_secrets(directory, authority=authority, clients=clients, address=address)
    environment = {"HOME": str(directory), "PATH": "/usr/bin:/bin"}
    with contextlib.ExitStack() as stack:
        reviewer = stack.enter_context(Reviewer(address=address))
        review = kubeconfig(server=reviewer.url, root=b"", user=by_token("unused"))
        write(path=directory / "reviewer.yaml", content=review.encode())
        store = f"http://{address}:{free_port(address=address)}"
        argv = _etcd(etcd, directory=directory, url=store, peers=f"http://{address}:{free_port(address=address)}")
        kept = stack.enter_context(processes.start([*bound, *argv], env=environment, cwd=directory))
        argv = _apiserver(apiserver, directory=directory, store=store, address=address, port=port, issuer=issuer)
        served = stack.enter_context(processes.start([*bound, *argv], env=environment, cwd=directory))
        # Its state goes with the folder: nobody waits for its watches to be closed one by one.
        stack.callback(_end, served, kept)
        url = f"https://{address}:{port}"
        admin = Client(url=url, root=authority.root, certificate=directory / "admin.pem")
        _wait_until_ready(admin, served=served, kept=kept)
        yield Server(
            url=url,
            root=authority.root,
            admin=admin,
            clients=clients,
            reviewer=reviewer,
            issuer=issuer,
            etcd=kept,
            apiserver=served,
        )


def _write_secrets(directory: Path, *, authority: Authority, clients: ClientAuthority, address: str) -> None:
    pair = authority.server(hosts=(address, *HOSTS))
    admin = clients.certificate(user="admin", groups=(ADMINISTRATORS,))
    private, public = signing_key()
    files = {
        "server.pem": pair.chain,
        "server.key": pair.key,
        "clients.pem": clients.root,
        "admin.pem": admin.chain + admin.key,
        "accounts.key": private,
        "accounts.pub": public,
    }
    for name, content in files.items():
        write(path=directory / name, content=content)


def _etcd(program: str, *, directory: Path, url: str, peers: str) -> list[str]:
    return [
        program,
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--log-level=warn",
    ]


def _apiserver(program: str, *, directory: Path, store: str, address: str, port: int, issuer: str) -> list[str]:
    return [
        program,
        f"--etcd-servers={store}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={port}",
        f"--cert-dir={directory}",
        f"--tls-cert-file={directory / 'server.pem'}",
        f"--tls-private-key-file={directory / 'server.key'}",
        f"--client-ca-file={directory / 'clients.pem'}",
        f"--service-account-key-file={directory / 'accounts.pub'}",
        f"--service-account-signing-key-file={directory / 'accounts.key'}",
        f"--service-account-issuer={issuer}",
        f"--api-audiences={issuer},https://kubernetes.default.svc",
        f"--service-cluster-ip-range={SERVICES}",
        "--authorization-mode=RBAC",
        "--anonymous-auth=false",
        f"--authentication-token-webhook-config-file={directory / 'reviewer.yaml'}",
        "--authentication-token-webhook-version=v1",
        "--authentication-token-webhook-cache-ttl=10s",  # as long as the server remembers all tokens that were good
        # A pod of a test names a service account that no controller has made.
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",  # it would refuse a loopback address
        "--shutdown-delay-duration=0s",
    ]


def _wait_until_ready(admin: Client, *, served: processes.Running, kept: processes.Running) -> None:
    def is_ready() -> bool:
        for running in (served, kept):
            if running.ends(timeout=0):
                raise AssertionError(f"{running.process.args!r} ended\n{running.said()}")
        try:
            admin.get("/readyz")
            return bool(admin.get("/api/v1/namespaces/default"))
        except (ApiError, OSError, json.JSONDecodeError):
            return False

    processes.wait_until(is_ready, what="kube-apiserver is ready", timeout=STARTUP, poll=0.05)


def _end(*running: processes.Running) -> None:
    for each in running:
        if not each.ends(timeout=0):
            each.signal(signal.SIGKILL)
