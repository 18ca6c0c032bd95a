"""hgate as an admin has installed it in a mesh: by the manifests, with their rights, for users of single namespaces."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgate.declaration import MANAGER
from krun_testbed import (
    hgate_deployment,
    hgate_replica,
    hgate_roles,
    istiod,
    mesh_cluster,
    mesh_sockets,
    mesh_workload,
    processes,
)
from krun_testbed.hgate_replica import Replica
from krun_testbed.hgate_roles import Right
from krun_testbed.hgate_world import World
from krun_testbed.kubernetes_client import ApiError, Client
from krun_testbed.mesh_call import Answer
from krun_testbed.mesh_network import Place

SETTLED = 120.0  # seconds until what was declared is called; some two on a machine that has nothing else to do
POLICY = "hgate-policy"
SYSTEM = f"/api/v1/namespaces/{istiod.NAMESPACE}"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{istiod.NAMESPACE}/leases/hgate"
# What hgate writes, and what declares: each is looked through at the end, as namespaces of tests never go.
LISTS = (
    "/api/v1/services",
    "/api/v1/configmaps",
    "/apis/discovery.k8s.io/v1/endpointslices",
    "/apis/networking.istio.io/v1/workloadentries",
    "/apis/networking.istio.io/v1/destinationrules",
    "/apis/networking.istio.io/v1/virtualservices",
    "/apis/networking.istio.io/v1/serviceentries",
    "/apis/networking.istio.io/v1/sidecars",
    "/apis/security.istio.io/v1/peerauthentications",
)
OURS = {"app.kubernetes.io/managed-by": "hgate"}


@dataclass(kw_only=True)
class Installed:
    """It runs. ``address``: of its internal load balancer."""

    world: World
    address: str
    replicas: list[Replica] = field(default_factory=list)
    users: dict[str, Client] = field(default_factory=dict)

    @property
    def gate(self) -> Replica:
        """The one replica, or the first."""
        return self.replicas[0]

    def user(self, namespace: str) -> Client:
        """Somebody who has the role admin in a namespace, and nothing else."""
        if namespace not in self.users:
            kubernetes = self.world.cluster.kubernetes
            name = f"user-{secrets.token_hex(3)}@example.com"
            self.users[namespace] = hgate_roles.namespace_admin(kubernetes, name, namespace=namespace)
        return self.users[namespace]

    def policy(self, text: str) -> None:
        """What the admin allows, instead of what was allowed before."""
        self.world.cluster.kubernetes.config_map(POLICY, {"policy.yaml": text}, namespace=istiod.NAMESPACE)

    def objects(self, namespace: str) -> list[str]:
        """What hgate has written in a namespace: KIND/NAME, in order."""
        return sorted(f"{kind}/{item['metadata']['name']}" for kind, item in self._written(namespace))

    def told(self) -> str:
        """What the replicas said of late, but for details."""
        lines = [line for each in self.replicas for line in each.lines if line["severity"] != "DEBUG"]
        return "\n".join(map(str, lines[-30:]))

    def wait_until_gone(self, namespace: str) -> None:
        """Wait until nothing of hgate's is left in a namespace."""
        try:
            processes.wait_until(
                lambda: not self.objects(namespace), what="all is taken away", timeout=SETTLED, poll=0.2
            )
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.objects(namespace)}\n{self.told()}") from error

    def wait_until_written(self, namespace: str, *names: str) -> None:
        """Wait until there is something of hgate's for each of these services."""
        processes.wait_until(
            lambda: all(self.identities(namespace, name) for name in names),
            what=f"{', '.join(names)} is written",
            timeout=SETTLED,
            poll=0.2,
        )

    def identities(self, namespace: str, name: str) -> dict[str, str]:
        """Of the objects that are named after a service: which they are, as no other ever will be (their uid)."""
        return {
            f"{kind}/{item['metadata']['name']}": item["metadata"]["uid"]
            for kind, item in self._written(namespace)
            if name in item["metadata"]["name"]
        }

    def _written(self, namespace: str) -> Iterator[tuple[str, dict[str, Any]]]:
        selector = ",".join(f"{name}={value}" for name, value in OURS.items())
        for path in LISTS:
            base, _, resource = path.rpartition("/")
            asked = f"{base}/namespaces/{namespace}/{resource}?labelSelector={selector}"
            listed = self.world.cluster.kubernetes.admin.get(asked)
            for item in listed["items"]:
                yield listed["kind"].removesuffix("List"), item

    def events(self, namespace: str, *, name: str = "") -> list[dict[str, Any]]:
        """What hgate told in a namespace, or of one object's name."""
        listed = self.world.cluster.kubernetes.admin.get(f"/api/v1/namespaces/{namespace}/events")["items"]
        told = [event for event in listed if event.get("source", {}).get("component") == MANAGER]
        return [event for event in told if not name or event["involvedObject"]["name"] == name]

    def refusal(self, namespace: str, name: str) -> dict[str, Any]:
        """The event on an object that was refused; waited for."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            events = self.events(namespace, name=name)
            found[:] = [event for event in events if (event["type"], event["reason"]) == ("Warning", "Refused")]
            return bool(found)

        what = f"{namespace}/{name} is refused by an event"
        processes.wait_until(is_there, what=what, timeout=SETTLED, poll=0.2)
        return found[-1]

    def curl(self, place: Place, url: str, *arguments: str) -> Answer:
        """What a user of a place gets by curl, whose name server knows all services that there are now."""
        self.resolve()
        options = ["--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}"]
        command = mesh_workload.as_app("curl", *options, *arguments, url)
        done = place.run(*command)
        body, _, status = done.stdout.rpartition("\n")
        if done.returncode != 0:
            return Answer(status=0, headers={}, body=done.stderr.encode())
        return Answer(status=int(status), headers={}, body=body.encode())

    def reaches(self, place: Place, url: str, *, timeout: float = SETTLED) -> Answer:
        """The answer as soon as it is a good one: objects, endpoints and routes come one after the other."""
        answers = [self.curl(place, url)]

        def is_good() -> bool:
            for replica in self.replicas:
                if "Traceback" in replica.running.stderr or replica.running.ends(timeout=0):
                    raise AssertionError(f"{replica.name} is broken")
            answers[0] = self.curl(place, url)
            return answers[0].status == 200

        try:
            processes.wait_until(is_good, what=f"{url} answers", timeout=timeout, poll=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}: {answers[0].status} {answers[0].body!r}\n{self.told()}") from error
        return answers[0]

    def names_by_curl(self, place: Place, file: Path) -> list[str]:
        """Which application answered each request of a file for curl."""
        self.resolve()
        command = mesh_workload.as_app("curl", "--silent", "--config", str(file), "--write-out", "\n")
        lines = place.run(*command, timeout=240).stdout.splitlines()
        return [str(json.loads(line)["name"]) for line in lines if line]

    def hello(self, place: Place, name: str) -> bytes:
        """The first byte of what is answered to a TLS client that names this server name; nothing when it is let go."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client = context.wrap_bio(incoming, outgoing, server_hostname=name)
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        with (
            contextlib.suppress(ConnectionError),
            place.connect(self.address, hgate_replica.PORT) as connected,
        ):
            connected.sendall(outgoing.read())
            return connected.recv(1)
        return b""

    def resolve(self) -> None:
        """Let the cluster's name server know all services, as it would by watching them."""
        services = self.world.cluster.kubernetes.admin.get("/api/v1/services")["items"]
        for item in services:
            name, namespace = item["metadata"]["name"], item["metadata"]["namespace"]
            # The API server's own leads through a door of ours.
            if item["spec"].get("clusterIP", "None") != "None" and name != "kubernetes":
                self.world.cluster.names.names[f"{name}.{namespace}.{mesh_cluster.SUFFIX}"] = item["spec"]["clusterIP"]

    @contextlib.contextmanager
    def replica(
        self, *, address: str = "", env: Mapping[str, str] | None = None, until: str = hgate_replica.IS_READY
    ) -> Iterator[Replica]:
        """One more, ready."""
        cluster = self.world.cluster
        address = address or cluster.network.free()
        name = f"{hgate_deployment.NAME}-{len(self.replicas)}"
        container = hgate_deployment.container(pod=name, address=address)
        token = cluster.kubernetes.token(container.account, namespace=istiod.NAMESPACE)
        settings = {**container.env, **(env or {})}
        with self.world.gate(
            name=name, address=address, args=container.args, env=settings, token=token, user=container.user, until=until
        ) as made:
            self.replicas.append(made)
            try:
                yield made
            finally:
                self.replicas.remove(made)


@contextlib.contextmanager
def installed(
    world: World,
    *,
    policy: str = "",
    replicas: int = 1,
    without: Right | None = None,
    env: Mapping[str, str] | None = None,
    until: str = hgate_replica.IS_READY,
) -> Iterator[Installed]:
    """The manifests applied, and so many replicas.

    ``policy``: instead of the one that the manifests have; ``without``: what hgate may not; ``until``: what its log
    says when it has started.
    """
    cluster = world.cluster
    address = cluster.network.free()
    made = Installed(world=world, address=address)
    with contextlib.ExitStack() as stack:
        stack.callback(_sweep, made)
        hgate_deployment.install(cluster.kubernetes, public="203.0.113.42", internal=address, without=without)
        made.policy(policy or hgate_deployment.policy())
        if replicas == 1:
            # The load balancer keeps addresses as they are, and has one to choose from.
            stack.enter_context(made.replica(address=address, env=env, until=until))
        else:
            for _ in range(replicas):
                stack.enter_context(made.replica(env=env, until=until))
            stack.enter_context(_balancer(made))
        yield made
        for replica in made.replicas if without is None else ():
            assert not replica.said("not permitted"), replica.running.said()[-4000:]
            assert "Traceback" not in replica.running.stderr, replica.running.said()[-4000:]
            assert "eyJ" not in replica.running.said()  # how each token begins


@contextlib.contextmanager
def _balancer(made: Installed) -> Iterator[None]:
    """Connections to the address go to one replica after the other, of those that are there."""
    cluster = made.world.cluster
    cluster.network.own(made.address)
    turns = itertools.count()

    def serve(connected: socket.socket) -> None:
        there = [each for each in made.replicas if not each.running.ends(timeout=0)]
        chosen = there[next(turns) % len(there)]
        with cluster.network.hub.connect(chosen.place.address, hgate_replica.PORT) as onward:
            mesh_sockets.relay(connected, onward)

    with mesh_sockets.serving(cluster.network.hub.listener(made.address, hgate_replica.PORT), serve):
        yield


def _sweep(made: Installed) -> None:
    """Take away all that hgate wrote, all that declared something to it, and itself."""
    admin = made.world.cluster.kubernetes.admin
    for path in LISTS:
        for item in admin.get(path)["items"]:
            if _is_of_hgate(item, address=made.address):
                _delete(admin, item["metadata"], path)
    for item in reversed(hgate_deployment.manifests()):
        if item["kind"] != "Namespace":
            with contextlib.suppress(ApiError):
                admin.delete(admin.path_of(item, namespace=istiod.NAMESPACE))
    for path in (
        f"{SYSTEM}/configmaps/mesh-env",
        f"/apis/coordination.k8s.io/v1/namespaces/{istiod.NAMESPACE}/leases/hgate",
    ):
        with contextlib.suppress(ApiError):
            admin.delete(path)


def _is_of_hgate(item: Mapping[str, Any], *, address: str) -> bool:
    """Tell whether it is: by its label, or by what is said in it to hgate at this address."""
    metadata = item["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    return (
        OURS.items() <= labels.items()
        or any(name.startswith("hgate.krun/") for name in annotations)
        or (metadata["name"] == "hgate" and "data" in item)
        or item.get("spec", {}).get("address") == address  # an entry by hand; others are of other gates
    )


def _delete(admin: Client, metadata: Mapping[str, Any], path: str) -> None:
    base, _, resource = path.rpartition("/")
    with contextlib.suppress(ApiError):
        admin.delete(f"{base}/namespaces/{metadata['namespace']}/{resource}/{metadata['name']}")
