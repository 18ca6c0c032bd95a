"""The tunnels that are compared: ours, Envoy's, OpenSSH's, Go's, pairs of ours with an Envoy, and bare relays.

Each has a loopback address of its own, the same three ports on it, and two ends as processes of their own.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from krun_testbed import (
    addresses,
    bench_tunnel_copied,
    bench_tunnel_envoy,
    bench_tunnel_go,
    bench_tunnel_ssh,
    components,
    load_generator,
    processes,
)
from krun_testbed.certificates import Authority, write
from krun_testbed.load_generator import Servers
from krun_testbed.load_systems import System, direct
from krun_testbed.processes import Running

ECHO, SINK, SOURCE = 21001, 21002, 21003  # where the client's end listens
SERVER = 15009


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one system runs: its address, its folder, and what all of them share."""

    address: str
    folder: Path
    servers: Servers
    pair: tuple[Path, Path]  # the server's certificate and key
    root: Path

    @property
    def forwards(self) -> dict[int, int]:
        """The client's end's ports, and the servers that they lead to."""
        return dict(zip((ECHO, SINK, SOURCE), self.servers.ports, strict=True))

    def system(self, name: str, *running: Running) -> System:
        for port in self.forwards:
            processes.wait_for_port(self.address, port)
        echo, sink, source = (f"{self.address}:{port}" for port in self.forwards)
        return System(name=name, echo=echo, sink=sink, source=source, running=running)


Maker = Callable[[Place], AbstractContextManager[System]]


@contextlib.contextmanager
def place(folder: Path) -> Iterator[Callable[[str], Place]]:
    """The servers behind all systems; what it gives makes a place for one of them."""
    authority = Authority()
    pair = authority.server(hosts=(bench_tunnel_envoy.NAME,))
    paths = {"chain.pem": pair.chain, "key.pem": pair.key, "root.pem": authority.root}
    for name, content in paths.items():
        write(path=folder / name, content=content)

    with load_generator.servers(address=addresses.loopback(), folder=folder) as servers:

        def make(name: str) -> Place:
            own = folder / name.replace(" ", "-")
            own.mkdir()
            return Place(
                address=addresses.loopback(),
                folder=own,
                servers=servers,
                pair=(folder / "chain.pem", folder / "key.pem"),
                root=folder / "root.pem",
            )

        yield make


def start(
    stack: ExitStack, names: Iterable[str], makers: Mapping[str, Maker], *, places: Callable[[str], Place]
) -> tuple[dict[str, System], list[str]]:
    """Start these systems; a line for each that is left out, as this machine does not have it."""
    running: dict[str, System] = {}
    left_out: list[str] = []
    for name in names:
        try:
            running[name] = stack.enter_context(makers[name](places(name)))
        except components.Missing as missing:
            left_out.append(f"{name}: left out: {missing}")
    return running, left_out


def envoy(place: Place, name: str, config: bench_tunnel_envoy.Json) -> AbstractContextManager[Running]:
    """An Envoy with two workers, as one has two cores."""
    path = place.folder / f"{name}.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return processes.start(
        [components.envoy(), "-c", str(path), "--disable-hot-restart", "--concurrency", "2", "--log-level", "error"]
    )


def envoy_server(place: Place, *, is_tls: bool) -> AbstractContextManager[Running]:
    targets = [(place.servers.address, port) for port in place.servers.ports]
    pair = place.pair if is_tls else None
    return envoy(
        place, "server", bench_tunnel_envoy.server(address=place.address, port=SERVER, targets=targets, pair=pair)
    )


def envoy_client(place: Place, *, is_tls: bool) -> AbstractContextManager[Running]:
    root = place.root if is_tls else None
    server = (place.address, SERVER)
    return envoy(
        place,
        "client",
        bench_tunnel_envoy.client(listeners=place.forwards, address=place.address, server=server, root=root),
    )


def hboned(place: Place, *, is_tls: bool, is_copied: bool = False) -> AbstractContextManager[Running]:
    argv = ["hboned", "--port", str(SERVER), "--bind", place.address, "--loopback", place.servers.address]
    argv += ["--offer", ",".join(map(str, place.servers.ports))]
    if is_tls:
        argv += ["--tls-cert", str(place.pair[0]), "--tls-key", str(place.pair[1])]
    argv = bench_tunnel_copied.argv(argv) if is_copied else argv
    return processes.start(argv, env=processes.environment(KRUN_LOG_LEVEL="error"))


def hbone_url(place: Place, port: int, *, is_tls: bool) -> str:
    host = bench_tunnel_envoy.NAME if is_tls else place.address
    return f"{'https' if is_tls else 'http'}://{host}:{SERVER}/_hbone/{port}"


def hbone_environment(place: Place) -> Mapping[str, str]:
    return processes.environment(
        KRUN_LOG_LEVEL="error", KRUN_CA_FILE=str(place.root), KRUN_CONNECT_TO=f"{place.address}:{SERVER}"
    )


def hbone(place: Place, *, is_tls: bool, is_copied: bool = False) -> AbstractContextManager[Running]:
    """One process, and one connection for all its ports."""
    argv = ["hbone"]
    for port, target in place.forwards.items():
        argv += ["-L", f"{place.address}:{port}:{hbone_url(place, target, is_tls=is_tls)}"]
    argv = bench_tunnel_copied.argv(argv) if is_copied else argv
    return processes.start(argv, env=hbone_environment(place))


def ours(name: str, *, is_tls: bool, is_copied: bool = False) -> Maker:
    @contextlib.contextmanager
    def make(place: Place) -> Iterator[System]:
        with hboned(place, is_tls=is_tls, is_copied=is_copied) as server:
            processes.wait_for_port(place.address, SERVER)
            with hbone(place, is_tls=is_tls, is_copied=is_copied) as client:
                yield place.system(name, server, client)

    return make


def envoys(name: str, *, is_tls: bool) -> Maker:
    @contextlib.contextmanager
    def make(place: Place) -> Iterator[System]:
        with envoy_server(place, is_tls=is_tls) as server:
            processes.wait_for_port(place.address, SERVER)
            with envoy_client(place, is_tls=is_tls) as client:
                yield place.system(name, server, client)

    return make


def hbone_to_envoy(name: str, *, is_tls: bool) -> Maker:
    @contextlib.contextmanager
    def make(place: Place) -> Iterator[System]:
        with envoy_server(place, is_tls=is_tls) as server:
            processes.wait_for_port(place.address, SERVER)
            with hbone(place, is_tls=is_tls) as client:
                yield place.system(name, server, client)

    return make


def envoy_to_hboned(name: str, *, is_tls: bool) -> Maker:
    @contextlib.contextmanager
    def make(place: Place) -> Iterator[System]:
        with hboned(place, is_tls=is_tls) as server:
            processes.wait_for_port(place.address, SERVER)
            with envoy_client(place, is_tls=is_tls) as client:
                yield place.system(name, server, client)

    return make


def go(name: str, *, is_tls: bool) -> Maker:
    @contextlib.contextmanager
    def make(place: Place) -> Iterator[System]:
        binary = str(bench_tunnel_go.make())
        at = f"{place.address}:{SERVER}"
        pair = [str(path) for path in place.pair] if is_tls else []
        env = processes.environment(GOMAXPROCS="2")
        with processes.start([binary, "server", at, place.servers.address, *pair], env=env) as server:
            processes.wait_for_port(place.address, SERVER)
            forwards = [f"{place.address}:{port}={target}" for port, target in place.forwards.items()]
            argv = [binary, "client", at, "tls" if is_tls else "h2c", *forwards]
            with processes.start(argv, env=env) as client:
                yield place.system(name, server, client)

    return make


def ssh(name: str, *flags: str) -> Maker:
    @contextlib.contextmanager
    def make(place: Place) -> Iterator[System]:
        forwards = {port: (place.servers.address, target) for port, target in place.forwards.items()}
        with (
            bench_tunnel_ssh.server(address=place.address, folder=place.folder / "ssh") as server,
            bench_tunnel_ssh.client(server, address=place.address, forwards=forwards, flags=flags) as client,
        ):
            yield place.system(name, server.running, client)

    return make


def relays(name: str, kind: str) -> Maker:
    """Two bare relays in a row: what a tunnel is when it does nothing but carry."""

    @contextlib.contextmanager
    def make(place: Place) -> Iterator[System]:
        binary = str(load_generator.make())
        with ExitStack() as stack:
            running = []
            for port, target in place.forwards.items():
                hops = (f"{place.address}:{port + 100}", f"{place.servers.address}:{target}")
                for at, to in (hops, (f"{place.address}:{port}", hops[0])):
                    running.append(stack.enter_context(processes.start([binary, "relay", at, to, kind])))
            yield place.system(name, *running)

    return make


@contextlib.contextmanager
def _direct(place: Place) -> Iterator[System]:
    with direct(place.servers) as system:
        yield system


SYSTEMS: dict[str, Maker] = {
    "direct": _direct,
    "relays": relays("relays", "copy"),
    "relays splice": relays("relays splice", "splice"),
    "envoy h2c": envoys("envoy h2c", is_tls=False),
    "envoy tls": envoys("envoy tls", is_tls=True),
    "go h2c": go("go h2c", is_tls=False),
    "go tls": go("go tls", is_tls=True),
    "ssh": ssh("ssh"),
    "ssh gcm": ssh("ssh gcm", "-c", "aes128-gcm@openssh.com"),
    "hbone h2c": ours("hbone h2c", is_tls=False),
    "hbone h2c copied": ours("hbone h2c copied", is_tls=False, is_copied=True),
    "hbone tls": ours("hbone tls", is_tls=True),
    "hbone-envoy h2c": hbone_to_envoy("hbone-envoy h2c", is_tls=False),
    "hbone-envoy tls": hbone_to_envoy("hbone-envoy tls", is_tls=True),
    "envoy-hboned h2c": envoy_to_hboned("envoy-hboned h2c", is_tls=False),
    "envoy-hboned tls": envoy_to_hboned("envoy-hboned tls", is_tls=True),
}
