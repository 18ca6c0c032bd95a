"""Ends of a tunnel that are not ours, started: Envoy and Go on either side, haproxy between."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from krun_testbed import bench_tunnel_envoy, bench_tunnel_go, components, debian_packages, processes

HAPROXY = ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")
HAPROXY_CONFIG = """\
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout tunnel 300s
frontend front
  bind {address}:9000 {bind}
  default_backend hboned
backend hboned
  server one {address}:15009 proto h2
"""


@contextlib.contextmanager
def envoy(config: Mapping[str, Any], *, folder: Path, address: str, ports: Sequence[int]) -> Iterator[None]:
    """An Envoy of its own, listening."""
    file = folder / "envoy.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    argv = [components.envoy(), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    with processes.start(argv, env=processes.environment()):
        for port in ports:
            processes.wait_for_port(address, port)
        yield


def envoy_client(*, address: str, port: int, server: tuple[str, int], root: Path | None, method: str) -> dict[str, Any]:
    """Envoy that carries what comes to a port through ``/_hbone/15003``, or to HOST:15003 by CONNECT."""
    config = bench_tunnel_envoy.client(listeners={port: 15003}, address=address, server=server, root=root)
    if method == "CONNECT":
        proxy = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        proxy["tunneling_config"] = {"hostname": f"{server[0]}:15003"}
    return config


@contextlib.contextmanager
def go_server(address: str, *, port: int, pair: tuple[Path, Path] | None = None) -> Iterator[None]:
    """x/net/http2's server: each name is a port of the same address."""
    place = f"{address}:{port}"
    files = [str(file) for file in pair or ()]
    with processes.start([str(bench_tunnel_go.make()), "server", place, address, *files]):
        processes.wait_for_port(address, port)
        yield


@contextlib.contextmanager
def go_client(address: str, *, port: int, mode: str) -> Iterator[None]:
    """x/net/http2's client, ``mode`` h2c or tls: what comes to a port goes to 15003 behind the server at 15009."""
    argv = [str(bench_tunnel_go.make()), "client", f"{address}:15009", mode, f"{address}:{port}=15003"]
    with processes.start(argv):
        processes.wait_for_port(address, port)
        yield


@contextlib.contextmanager
def haproxy(address: str, *, folder: Path, certificate: Path | None = None) -> Iterator[None]:
    """haproxy at 9000 before hboned, HTTP/2 on both sides; with a certificate (chain and key in one file) by TLS."""
    program = debian_packages.program("haproxy", packages=HAPROXY)
    bind = f"ssl crt {certificate} alpn h2" if certificate else "proto h2"
    (folder / "haproxy.cfg").write_text(HAPROXY_CONFIG.format(address=address, bind=bind), encoding="utf-8")
    argv = [program.path, "-f", str(folder / "haproxy.cfg"), "-db"]
    with processes.start(argv, env=processes.environment(**program.environment)):
        processes.wait_for_port(address, 9000)
        yield
