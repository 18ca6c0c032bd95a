"""Cloud Run's front in a place of its own, at 443 under the true names of its services, and what it noted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from krun_testbed import components, processes
from krun_testbed.certificates import Authority, write
from krun_testbed.cloudrun_envoy import Backend, bootstrap
from krun_testbed.cloudrun_envoy import Front as Settings
from krun_testbed.google_tokens import Issuer
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_network import Place

NUMBER = "123456789012"  # of the project whose services these are
REGION = "us-central1"
HASH = "icq63pqnqq"
CODE = "uc"  # of the region, in names with a hash
PORT = 15009  # of the containers
LIMIT = 300.0  # seconds for a request


@dataclass(kw_only=True)
class Front:
    """The front that runs. ``backends`` may change: ``start`` again serves the new ones, and cuts who is connected."""

    place: Place
    cluster: Cluster
    authority: Authority
    issuer: Issuer
    limit: float  # seconds for a request
    connection_life: float = 0.0  # seconds until a connection must be replaced by another; 0: for ever
    backends: list[Backend] = field(default_factory=list)
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)

    def start(self) -> None:
        """Serve what is in ``backends``, by names that the cluster's name server knows from now on."""
        self.stop()
        folder = self.place.folder
        hosts = tuple(backend.host for backend in self.backends)
        pair = self.authority.server(hosts=hosts or ("localhost",))
        write(path=folder / "front.pem", content=pair.chain)
        write(path=folder / "front.key", content=pair.key)
        settings = Settings(
            listen=(self.place.address, 443),
            certificate=str(folder / "front.pem"),
            key=str(folder / "front.key"),
            jwks=self.issuer.jwks(),
            request_timeout=self.limit,
            log=str(folder / "requests"),
            connection_life=self.connection_life,
        )
        write(path=folder / "envoy.json", content=json.dumps(bootstrap(settings, tuple(self.backends))).encode())
        argv = [components.envoy(), "-c", str(folder / "envoy.json"), "--disable-hot-restart", "--concurrency", "1"]
        argv += ["--log-level", "warning", "--file-flush-interval-msec", "20"]
        bound = [components.program("setpriv", package="util-linux"), "--pdeathsig", "KILL"]
        running = self._running.enter_context(processes.start(self.place.inside([*bound, *argv])))

        def listens() -> bool:
            if running.ends(timeout=0):
                raise AssertionError(f"the front ended\n{running.said()[-4000:]}")
            return self.place.listens(self.place.address, 443)

        processes.wait_until(listens, what="the front listens", timeout=60)
        for host in hosts:
            self.cluster.names.names[host] = self.place.address

    def stop(self) -> None:
        """End it: connections are cut, new ones refused."""
        self._running.close()

    def add(self, name: str, instance: Place, *, host: str = "", **options: Any) -> str:
        """A service whose one instance is in a place, instead of one of the same host.

        The answer is its host: ``NAME-NUMBER.REGION.run.app`` unless it is given.
        """
        host = host or deterministic(name)
        options.setdefault("allow_unauthenticated", False)
        made = Backend(name=f"{name} {host}", host=host, address=instance.address, port=PORT, **options)
        self.backends = [*(each for each in self.backends if each.host != host), made]
        return host

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Those that have ended, in that order: host, path, status, details, email, duration_ms, connection."""
        path = self.place.folder / "requests"
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0] if path.exists() else ""
        return [json.loads(line) for line in whole.splitlines()]

    def noted(self, count: int = 1, *, timeout: float = processes.WAIT) -> list[dict[str, Any]]:
        """The same, when there are at least so many: the front hears of an end a moment later."""
        what = f"{count} requests have ended at the front"
        processes.wait_until(lambda: len(self.requests) >= count, what=what, timeout=timeout)
        return self.requests


def deterministic(name: str, *, number: str = NUMBER, region: str = REGION) -> str:
    """The host of a service by its project's number."""
    return f"{name}-{number}.{region}.run.app"


def hashed(name: str, *, digest: str = HASH, code: str = CODE) -> str:
    """The older host of a service, by what only Google knows of project and region."""
    return f"{name}-{digest}-{code}.a.run.app"


@contextlib.contextmanager
def front(cluster: Cluster, *, authority: Authority, issuer: Issuer, limit: float = LIMIT) -> Iterator[Front]:
    """A front without services, not started; ``limit`` is the request timeout of all of them."""
    with cluster.network.place(name="front") as place:
        made = Front(place=place, cluster=cluster, authority=authority, issuer=issuer, limit=limit)
        try:
            yield made
        finally:
            made.stop()
            for backend in made.backends:
                cluster.names.names.pop(backend.host, None)
