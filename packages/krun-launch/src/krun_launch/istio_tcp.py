"""TCP services of the mesh on local ports (KRUN_TCP): for programs that know no proxy, where nothing is captured."""

from __future__ import annotations

import re

from krun_launch import workload
from krun_launch.envoy_tls import Json, socket_address, typed
from krun_launch.errors import Misconfigured
from krun_launch.istio_settings import IstioSettings, TcpService
from krun_launch.plan import Port

VARIABLE = "KRUN_TCP"
TCP_PROXY = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
ENTRY = re.compile(r"([^=:]*)=([^=:]*):([^=:]*)")
HOST = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.?")
# Where Istio has its ports, and we have ours.
OURS = range(15000, 15000 + 100)


def parse(text: str, *, namespace: str) -> tuple[TcpService, ...]:
    """Read ``PORT=SERVICE:PORT`` by comma. Services are named as in the mesh: ``cache``, ``cache.demo``, all of it.

    A name with a dot at its end is taken as it is: a host of a ServiceEntry that looks like NAME.NAMESPACE.

    Raises:
        Misconfigured: an entry is none, or two want the same port.
    """
    services = [_service(word, namespace=namespace) for word in (part.strip() for part in text.split(",")) if word]
    for port in {service.port for service in services}:
        if sum(service.port == port for service in services) > 1:
            raise Misconfigured(f"{VARIABLE}: port {port} is there twice", hint="one local port leads to one service")
    return tuple(services)


def ports(settings: IstioSettings) -> tuple[Port, ...]:
    """The local ports, which must be free at the start.

    Raises:
        Misconfigured: one is the application's own.
    """
    for service in settings.tcp_services:
        if service.port in (settings.app_port, settings.grpc_port):
            raise _taken(service.port, whose="where the application listens")
    return tuple(
        Port(
            name=f"{service.host}:{service.target_port}", host=settings.loopback, number=service.port, variable=VARIABLE
        )
        for service in settings.tcp_services
    )


def cluster(host: str, *, port: int) -> str:
    """What istiod calls the cluster of a service's port."""
    return f"outbound|{port}||{host}"


def listeners(settings: IstioSettings) -> list[Json]:
    """A listener for each. Nothing waits for a first byte: a server may speak first."""
    return [_listener(service, settings=settings) for service in settings.tcp_services]


def _service(word: str, *, namespace: str) -> TcpService:
    found = ENTRY.fullmatch(word)
    if found is None:
        raise Misconfigured(f"{VARIABLE}: {word[:80]!r} is not PORT=SERVICE:PORT", hint="such as 6379=cache.demo:6379")
    port = workload.port(VARIABLE, found[1])
    if port in OURS:
        raise _taken(port, whose="one of Envoy's, of the agent's or of krun's")
    host = found[2].lower()
    if not HOST.fullmatch(host):
        raise Misconfigured(f"{VARIABLE}: {found[2][:80]!r} is not the name of a service", hint="such as cache.demo")
    return TcpService(port=port, host=_whole(host, namespace=namespace), target_port=workload.port(VARIABLE, found[3]))


def _taken(port: int, *, whose: str) -> Misconfigured:
    return Misconfigured(f"{VARIABLE}: port {port} is {whose}", hint="take another local port for the service")


def _whole(host: str, *, namespace: str) -> str:
    """The name as istiod has it."""
    match host.split("."):
        case [*_, ""]:
            return host.removesuffix(".")
        case [_]:
            return f"{host}.{namespace}.svc.cluster.local"
        case [_, _]:
            return f"{host}.svc.cluster.local"
        case [_, _, "svc"]:
            return f"{host}.cluster.local"
        case _:
            return host


def _listener(service: TcpService, *, settings: IstioSettings) -> Json:
    # No end for a quiet connection: the application has not asked for one.
    proxy = typed(
        "envoy.filters.network.tcp_proxy",
        kind=TCP_PROXY,
        stat_prefix=f"krun_tcp_{service.port}",
        cluster=cluster(service.host, port=service.target_port),
        idle_timeout="0s",
    )
    return {
        "name": f"krun_tcp_{service.port}",
        "traffic_direction": "OUTBOUND",
        **socket_address(settings.loopback, service.port),
        "filter_chains": [{"filters": [proxy]}],
    }
