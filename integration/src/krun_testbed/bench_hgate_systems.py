"""The gates that are compared: hgate, haproxy, nginx and Envoy, raw and through HTTP/2, by the name in a hello."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from krun_testbed import bench_hgate_proxies, bench_tunnel_envoy, debian_packages, load_generator, processes
from krun_testbed.bench_tunnel_systems import SERVER, Place, envoy, envoy_server, hboned
from krun_testbed.load_systems import System, direct
from krun_testbed.processes import Running

GATE = 15442
ROLES = ("echo", "sink", "source")
HAPROXY = ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")
NGINX = ("nginx", "libnginx-mod-stream")
WORKERS = 2  # as many as the others have threads

Maker = Callable[[Place], AbstractContextManager[System]]


def server_name(role: str) -> str:
    """As a sidecar asks for one of the servers."""
    return f"outbound_.8080_._.{role}.bench.svc.cluster.local"


def targets(place: Place) -> dict[str, tuple[str, int]]:
    ports = dict(zip(ROLES, place.servers.ports, strict=True))
    return {server_name(role): (place.servers.address, port) for role, port in ports.items()}


def hellos(folder: Path) -> dict[str, Path]:
    """The hello of each server's name, as files."""
    found = {}
    for role in ROLES:
        found[role] = folder / f"hello-{role}"
        found[role].write_bytes(load_generator.hello(server_name(role)))
    return found


def system(place: Place, name: str, *running: Running) -> System:
    try:
        processes.wait_for_port(place.address, GATE)
    except AssertionError as error:
        raise AssertionError(f"{name}: {running[0].said()}") from error
    at = f"{place.address}:{GATE}"
    return System(name=name, echo=at, sink=at, source=at, running=running, hellos=hellos(place.folder))


@contextlib.contextmanager
def hgate(place: Place, routes: Mapping[str, str], **variables: str) -> Iterator[Running]:
    """hgate with static routes: services of the namespace bench."""
    argv = ["hgate", "--listen", f"{place.address}:{GATE}", "--workers", str(WORKERS)]
    text = " ".join(f"{role}.bench={url}" for role, url in routes.items())
    env = processes.environment(KRUN_ROUTES=text, KRUN_LOG_LEVEL="error", **variables)
    with processes.start(argv, env=env) as running:
        yield running


def hgate_raw(name: str) -> Maker:
    @contextlib.contextmanager
    def make(place: Place) -> Iterator[System]:
        ports = dict(zip(ROLES, place.servers.ports, strict=True))
        routes = {role: f"tcp://{place.servers.address}:{port}" for role, port in ports.items()}
        with hgate(place, routes) as running:
            yield system(place, name, running)

    return make


def hgate_tunnels(
    name: str, server: Callable[..., AbstractContextManager[Running]], *, is_tls: bool, is_counted: bool = True
) -> Maker:
    """hgate before a server of tunnels, whose CPU and memory count with it, or not."""

    @contextlib.contextmanager
    def make(place: Place) -> Iterator[System]:
        host = bench_tunnel_envoy.NAME if is_tls else place.address
        scheme = "https" if is_tls else "http"
        ports = dict(zip(ROLES, place.servers.ports, strict=True))
        routes = {role: f"{scheme}://{host}:{SERVER}/_hbone/{port}" for role, port in ports.items()}
        variables = {"KRUN_CA_FILE": str(place.root), "KRUN_CONNECT_TO": f"{place.address}:{SERVER}"}
        with server(place, is_tls=is_tls) as behind:
            processes.wait_for_port(place.address, SERVER)
            with hgate(place, routes, **(variables if is_tls else {})) as running:
                yield system(place, name, running, *([behind] if is_counted else []))

    return make


def haproxy(name: str, *, is_spliced: bool) -> Maker:
    @contextlib.contextmanager
    def make(place: Place) -> Iterator[System]:
        program = debian_packages.program("haproxy", packages=HAPROXY)
        path = place.folder / "haproxy.cfg"
        text = bench_hgate_proxies.haproxy(targets(place), address=place.address, port=GATE, is_spliced=is_spliced)
        path.write_text(text, encoding="utf-8")
        env = processes.environment(**program.environment)
        with processes.start([program.path, "-db", "-f", str(path)], env=env) as running:
            yield system(place, name, running)

    return make


@contextlib.contextmanager
def nginx(place: Place) -> Iterator[System]:
    program = debian_packages.program("nginx", packages=NGINX)
    module = Path(program.path).parents[1] / "lib" / "nginx" / "modules" / "ngx_stream_module.so"
    path = place.folder / "nginx.conf"
    text = bench_hgate_proxies.nginx(
        targets(place), address=place.address, port=GATE, folder=place.folder, module=module
    )
    path.write_text(text, encoding="utf-8")
    argv = [program.path, "-p", str(place.folder), "-e", "stderr", "-c", str(path)]
    with processes.start(argv, env=processes.environment(**program.environment)) as running:
        yield system(place, "nginx", running)


@contextlib.contextmanager
def envoy_raw(place: Place) -> Iterator[System]:
    config = bench_hgate_proxies.envoy(targets(place), address=place.address, port=GATE)
    with envoy(place, "names", config) as running:
        yield system(place, "envoy", running)


def envoy_tunnels(name: str, *, is_tls: bool) -> Maker:
    """An Envoy that does what hgate does, and one behind it for hboned."""

    @contextlib.contextmanager
    def make(place: Place) -> Iterator[System]:
        server = (place.address, SERVER)
        cluster = bench_tunnel_envoy.http2_cluster(server, root=place.root if is_tls else None)
        config = bench_hgate_proxies.envoy_tunnels(
            targets(place), address=place.address, port=GATE, server=server, cluster=cluster
        )
        with ExitStack() as stack:
            behind = stack.enter_context(envoy_server(place, is_tls=is_tls))
            processes.wait_for_port(place.address, SERVER)
            yield system(place, name, stack.enter_context(envoy(place, "names", config)), behind)

    return make


@contextlib.contextmanager
def _direct(place: Place) -> Iterator[System]:
    with direct(place.servers) as found:
        yield found


SYSTEMS: dict[str, Maker] = {
    "direct": _direct,
    "haproxy": haproxy("haproxy", is_spliced=False),
    "haproxy splice": haproxy("haproxy splice", is_spliced=True),
    "nginx": nginx,
    "envoy": envoy_raw,
    "hgate": hgate_raw("hgate"),
    "envoy h2c": envoy_tunnels("envoy h2c", is_tls=False),
    "hgate h2c": hgate_tunnels("hgate h2c", hboned, is_tls=False),
    "hgate-envoy h2c": hgate_tunnels("hgate-envoy h2c", envoy_server, is_tls=False),
    "envoy tls": envoy_tunnels("envoy tls", is_tls=True),
    "hgate tls": hgate_tunnels("hgate tls", hboned, is_tls=True),
    "hgate-envoy tls": hgate_tunnels("hgate-envoy tls", envoy_server, is_tls=True),
}
