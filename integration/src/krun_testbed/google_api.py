"""Google's APIs as servers on loopback, as far as finding a cluster and getting tokens takes: who asked what is noted.

Each API is a server of its own, ``google.servers["container"]``, with its ``requests`` and ``faults``. A client gets
there by gcloud's overrides (``environment``), or by the true names and a proxy (``proxied``).
``python -m krun_testbed.google_api FILE`` runs all of it, with a cluster, to try things by hand.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from krun_testbed.addresses import loopback
from krun_testbed.certificates import Authority, write
from krun_testbed.components import Missing
from krun_testbed.google_api_container import Container, cluster
from krun_testbed.google_api_fleet import Fleet, membership
from krun_testbed.google_api_iam import Iam
from krun_testbed.google_api_kubernetes import ConnectGateway, DnsEndpoint, Upstream
from krun_testbed.google_api_messages import Api, Asked
from krun_testbed.google_api_metadata import metadata_server
from krun_testbed.google_api_oauth2 import OAuth2
from krun_testbed.google_api_projects import Project, Projects
from krun_testbed.google_api_proxy import Proxy
from krun_testbed.google_api_run import Run
from krun_testbed.google_api_server import ApiServer
from krun_testbed.google_api_sts import Sts
from krun_testbed.google_api_tokens import Accounts
from krun_testbed.google_tokens import Issuer
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes import running as kubernetes_running
from krun_testbed.kubernetes_server import PRIVATE, PUBLIC

PROJECT = Project(id="demo-project", number="123456789012")  # the same as the metadata server's
OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_"
REGIONS = ("us-central1", "us-east1", "europe-west1", "asia-east1")  # that certificates of regional names are good for
# The true names of each server; those with * only by a proxy.
NAMES = {
    "container": ("container.googleapis.com",),
    "gkehub": ("gkehub.googleapis.com",),
    "cloudresourcemanager": ("cloudresourcemanager.googleapis.com",),
    "iamcredentials": ("iamcredentials.googleapis.com",),
    "sts": ("sts.googleapis.com",),
    "connectgateway": ("connectgateway.googleapis.com", "*-connectgateway.googleapis.com"),
    "oauth2": ("oauth2.googleapis.com",),
    "dns": ("*.gke.goog",),
    "run": ("run.googleapis.com", "*-run.googleapis.com"),
}


@dataclass(frozen=True, kw_only=True)
class GoogleApi:
    """The servers that run, and what they know."""

    accounts: Accounts
    projects: Projects
    container: Container
    fleet: Fleet
    sts: Sts
    iam: Iam
    oauth2: OAuth2
    gateway: ConnectGateway
    dns: DnsEndpoint
    run: Run
    authority: Authority
    roots: Path  # the certificate authority as a file, for SSL_CERT_FILE
    servers: dict[str, ApiServer] = field(default_factory=dict)
    requests: list[Asked] = field(default_factory=list)  # of all servers, in order
    ending: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)  # what is taken back at the end

    @property
    def environment(self) -> dict[str, str]:
        """gcloud's overrides of each API's address, and whom to believe."""
        named = {f"{OVERRIDE}{name.upper()}": server.url for name, server in self.servers.items()}
        for name in ("dns", "oauth2"):
            del named[f"{OVERRIDE}{name.upper()}"]
        token_host = f"{self.servers['oauth2'].url}token"
        return named | {"CLOUDSDK_AUTH_TOKEN_HOST": token_host, "SSL_CERT_FILE": str(self.roots)}

    @contextlib.contextmanager
    def proxied(self, kubernetes: Kubernetes | None = None, *, address: str) -> Iterator[dict[str, str]]:
        """A proxy to all of them by their true names, and the variables that lead there, instead of ``environment``.

        With Kubernetes, also to the public and the private address that ``add`` gives its cluster.
        """
        routes = {f"{name}:443": server.where for server in self.servers.values() for name in NAMES[server.name]}
        if kubernetes:
            routes |= {f"{name}:443": kubernetes.where for name in (PUBLIC, PRIVATE)}
        with Proxy(address=address, routes=routes) as proxy:
            yield {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(self.roots)}

    def add(
        self,
        kubernetes: Kubernetes,
        name: str,
        *,
        project: Project = PROJECT,
        location: str = "us-central1",
        public: str = PUBLIC,
        private: str = "",
        fleet: str = "",
        **more: Any,
    ) -> dict[str, Any]:
        """Make a real API server a cluster of GKE, and return what the API says of it, which a test may change.

        It takes Google's tokens from now on, has a DNS endpoint, and STS takes the tokens of its service accounts.
        ``fleet``: the location of its membership, of the same name; empty for none. ``more``: fields of the API.
        """
        host = f"gke-{secrets.token_hex(16)}.{location}.gke.goog"
        made = cluster(
            name,
            project=project.id,
            location=location,
            root=kubernetes.root,
            public=public,
            private=private,
            dns=host,
            **more,
        )
        self.container.clusters.setdefault(project.id, []).append(made)
        upstream = Upstream(url=kubernetes.url, root=kubernetes.root)
        self.dns.clusters[host] = upstream
        self.dns.configs[host] = made["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]
        holders = kubernetes.server.reviewer.holders
        holders.append(self.accounts.holder)
        self.ending.callback(holders.remove, self.accounts.holder)
        pool = f"{project.id}.svc.id.goog"
        issuer = kubernetes.server.issuer

        def verify(token: str) -> str | None:
            status = kubernetes.review(token, audiences=(pool,))
            _, _, user = str(status.get("user", {}).get("username", "")).partition("system:serviceaccount:")
            return f"{pool}[{user.replace(':', '/')}]" if status.get("authenticated") and user else None

        self.sts.providers[f"identitynamespace:{pool}:{issuer}"] = verify
        if fleet:
            path = f"projects/{project.id}/locations/{location}/clusters/{name}"
            row = membership(name, project=project.id, location=fleet, cluster=path, issuer=issuer, pool=pool)
            self.fleet.memberships.setdefault(project.id, []).append(row)
            made["fleet"] = {"project": project.number, "membership": f"//gkehub.googleapis.com/{row['name']}"}
            gateway = f"projects/{project.number}/locations/{fleet}/gkeMemberships/{name}"
            self.gateway.clusters[gateway] = upstream
        return made


@contextlib.contextmanager
def running(
    *,
    address: str,
    directory: Path,
    authority: Authority | None = None,
    issuer: Issuer | None = None,
    projects: tuple[Project, ...] = (PROJECT,),
) -> Iterator[GoogleApi]:
    """All of them, until the block ends; the folder is for the file of the certificate authority."""
    authority = authority or Authority(name="google")
    roots = directory / "google-roots.pem"
    write(path=roots, content=authority.root)
    accounts = Accounts(issuer=issuer or Issuer())
    numbers = {project.number: project.id for project in projects}
    google = GoogleApi(
        accounts=accounts,
        projects=Projects(accounts=accounts, known=list(projects)),
        container=Container(accounts=accounts, numbers=numbers, clusters={project.id: [] for project in projects}),
        fleet=Fleet(accounts=accounts, numbers=numbers),
        sts=Sts(accounts=accounts),
        iam=Iam(accounts=accounts),
        oauth2=OAuth2(accounts=accounts),
        gateway=ConnectGateway(accounts=accounts),
        dns=DnsEndpoint(accounts=accounts),
        run=Run(accounts=accounts, numbers=numbers),
        authority=authority,
        roots=roots,
    )
    for name, api in _apis(google).items():
        certificate = authority.server(hosts=(address, *hosts(name)))
        server = ApiServer(name=name, api=api, address=address, certificate=certificate, requests=google.requests)
        google.servers[name] = server.start()
    try:
        with google.ending:
            yield google
    finally:
        # All at once: each needs a moment to notice.
        with ThreadPoolExecutor(max_workers=len(google.servers)) as pool:
            list(pool.map(ApiServer.stop, google.servers.values()))
    failures = [failure for server in google.servers.values() for failure in server.failures]
    if failures:
        raise AssertionError("\n".join(failures))


def hosts(name: str) -> tuple[str, ...]:
    """The names that a server's certificate is good for: in it, a wildcard stands for one whole label."""
    spelled = [pattern.replace("*.", f"*.{region}.") for pattern in NAMES[name] for region in REGIONS]
    return tuple(dict.fromkeys(each.replace("*-", f"{region}-") for each in spelled for region in REGIONS))


def _apis(google: GoogleApi) -> dict[str, Api]:
    return {
        "container": google.container,
        "gkehub": google.fleet,
        "cloudresourcemanager": google.projects,
        "iamcredentials": google.iam,
        "sts": google.sts,
        "connectgateway": google.gateway,
        "oauth2": google.oauth2,
        "dns": google.dns,
        "run": google.run,
    }


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def main(file: Path) -> None:
    """Serve Google's APIs, a metadata server and a real Kubernetes API as a cluster of GKE, until SIGTERM.

    FILE gets the environment that leads there, for ``env $(cat FILE) COMMAND``.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: ended.set())
    address = loopback()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="krun-google-")))
        try:
            cluster = stack.enter_context(kubernetes_running())
        except Missing as error:
            raise click.ClickException(str(error)) from error
        google = stack.enter_context(running(address=address, directory=folder))
        google.add(cluster, "demo", fleet="global")
        proxy = stack.enter_context(google.proxied(cluster, address=address))
        metadata = stack.enter_context(metadata_server(google.accounts, address=address))
        environment = proxy | {"GCE_METADATA_HOST": metadata.address}
        write(path=file, content="".join(f"{name}={value}\n" for name, value in environment.items()).encode())
        sys.stderr.write(f"krun_testbed.google_api: ready environment={file} kubeconfig={cluster.kubeconfig}\n")
        sys.stderr.flush()
        ended.wait()


if __name__ == "__main__":
    main()
