"""Google's two fronts of a cluster's API: the Connect gateway, and the DNS endpoint of GKE.

Both stand before a real kube-apiserver, and pass on what they let through with the caller's own token: the API server
knows Google's tokens by the reviewer that it asks (``kubernetes_tokens``), as GKE's does.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from krun_testbed.certificates import Authority
from krun_testbed.google_api_messages import Answer, Asked, denied, refused
from krun_testbed.google_api_server import ApiServer
from krun_testbed.google_api_tokens import NOBODY, Accounts
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_client import Client

GATEWAY = re.compile(r"(/v1/projects/(\d+)/locations/([^/]+)/(gkeMemberships|memberships)/([^/]+))(/.*)?")
HOPS = frozenset({"host", "connection", "content-length", "x-goog-user-project"})


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """A cluster's API server."""

    url: str
    root: bytes = field(repr=False)

    def forward(self, asked: Asked, *, target: str) -> Answer:
        """Ask it the same."""
        connection = Client(url=self.url, root=self.root).connection()
        headers = {name: value for name, value in asked.headers.items() if name not in HOPS}
        try:
            connection.request(asked.method, target, body=asked.body or None, headers=headers)
            response = connection.getresponse()
            return Answer(status=response.status, body=response.read(), headers=dict(response.getheaders()))
        except OSError as error:
            raise refused("UNAVAILABLE", "The cluster's API server does not answer.") from error
        finally:
            connection.close()


@contextlib.contextmanager
def front(kubernetes: Kubernetes, *, address: str, authority: Authority) -> Iterator[ApiServer]:
    """A front before a real API server that notes requests, and that can be slow, or refuse, or be somebody else.

    Its certificate is of ``authority``; callers come by a token, not by a client certificate.
    """
    upstream = Upstream(url=kubernetes.url, root=kubernetes.root)
    server = ApiServer(
        name="kubernetes",
        api=lambda asked: upstream.forward(asked, target=asked.target),
        address=address,
        certificate=authority.server(hosts=(address,)),
        requests=[],
    ).start()
    try:
        yield server
    finally:
        server.stop()


@dataclass(kw_only=True)
class ConnectGateway:
    """``clusters`` maps names of memberships (projects/NUMBER/locations/L/gkeMemberships/M) to API servers."""

    accounts: Accounts
    clusters: dict[str, Upstream] = field(default_factory=dict)

    def __call__(self, asked: Asked) -> Answer:
        """Answer one request."""
        found = GATEWAY.fullmatch(asked.path)
        if found is None:
            # A project's id in place of its number is one of these.
            raise refused("NOT_FOUND", "Requested entity was not found.")
        name = found[1].removeprefix("/v1/")
        self.accounts.caller(asked, permission=f"gkehub.gateway.{asked.method.lower()}", resource=name)
        upstream = self.clusters.get(name)
        if upstream is None:
            raise refused("NOT_FOUND", f"Resource '{name}' was not found")
        return upstream.forward(asked, target=asked.target.removeprefix(found[1]) or "/")


@dataclass(kw_only=True)
class DnsEndpoint:
    """``clusters`` maps host names (gke-….REGION.gke.goog) to API servers, ``configs`` to their dnsEndpointConfig."""

    accounts: Accounts
    clusters: dict[str, Upstream] = field(default_factory=dict)
    configs: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def __call__(self, asked: Asked) -> Answer:
        """Answer one request."""
        name = asked.headers.get("host", "").partition(":")[0]
        upstream = self.clusters.get(name)
        if upstream is None:
            raise refused("NOT_FOUND", "Requested entity was not found.")
        config = self.configs.get(name, {})
        if not config.get("allowExternalTraffic"):
            raise refused("PERMISSION_DENIED", "External traffic is not allowed to this endpoint.")
        is_google = asked.bearer in self.accounts.grants
        if not is_google and not config.get("enableK8sTokensViaDns"):
            raise refused("UNAUTHENTICATED", NOBODY, reason="ACCESS_TOKEN_TYPE_UNSUPPORTED")
        if is_google:
            self._check(asked, name=name)
        return upstream.forward(asked, target=asked.target)

    def _check(self, asked: Asked, *, name: str) -> None:
        if self.accounts.holder(asked.bearer) is None:
            raise refused("UNAUTHENTICATED", NOBODY, reason="ACCESS_TOKEN_EXPIRED")
        if not self.accounts.may(str(self.accounts.holder(asked.bearer)), "container.clusters.connect"):
            raise denied("container.clusters.connect", name)
