"""Public requests through hboned, against Envoy doing the same, and against the application alone.

The application is an Envoy that answers by itself, so that it is not what is measured. h2load makes the load: HTTP/1.1,
HTTP/2 and gRPC (a message of five bytes, an answer of trailers alone). Every round takes all systems in turn; medians
over the rounds. ``python -m krun_testbed.bench_public`` runs it alone.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from krun_testbed import addresses, components, processes
from krun_testbed.processes import Running

Json = dict[str, Any]

TYPE = "type.googleapis.com/envoy"
APP, GRPC, PROXY, TUNNEL = 8080, 8081, 8090, 15009
ALONE, ENVOY, HBONED = "application alone", "Envoy", "hboned"
CLIENTS = 8
MESSAGE = bytes(5)  # a gRPC message of no bytes: its prefix
# How each kind is asked for; HTTP/2 with as many streams as a front opens at once, about.
KINDS = {
    "HTTP/1.1": ["--h1"],
    "HTTP/2": ["-m", "10"],
    "gRPC": ["-m", "10", "-H", "content-type: application/grpc", "-H", "te: trailers"],
}
RATE = re.compile(r"finished in [\d.]+m?s, ([\d.]+) req/s")
DONE = re.compile(r"(\d+) succeeded, (\d+) failed, (\d+) errored")


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One load: requests a second, the median request in milliseconds, the proxy's CPU for one in milliseconds."""

    rate: float
    median: float
    cpu: float


@dataclass(frozen=True, kw_only=True)
class System:
    """Where the load goes, and whose CPU is counted (None: nobody's)."""

    name: str
    port: int
    process: Running | None
    grpc_port: int = 0


def measure(system: System, kind: str, *, address: str, count: int, folder: Path) -> Measure:
    """Send so many requests of a kind."""
    log, message = folder / "log", folder / "message"
    message.write_bytes(MESSAGE)
    log.unlink(missing_ok=True)
    port = system.grpc_port if kind == "gRPC" and system.grpc_port else system.port
    argv = [components.program("h2load", package="nghttp2-client"), "-n", str(count), "-c", str(CLIENTS)]
    argv += ["--log-file", str(log), *KINDS[kind], *(["-d", str(message)] if kind == "gRPC" else [])]
    before = cpu(system)
    done = subprocess.run([*argv, f"http://{address}:{port}/"], capture_output=True, text=True, check=True)
    spent = cpu(system) - before
    rate, ended = RATE.search(done.stdout), DONE.search(done.stdout)
    if rate is None or ended is None or int(ended[1]) != count:
        raise click.ClickException(f"{system.name}, {kind}: not all requests succeeded\n{done.stdout}")
    # Start, status, microseconds: a request a line.
    times = [int(line.split("\t")[2]) for line in log.read_text().splitlines()]
    return Measure(rate=float(rate[1]), median=statistics.median(times) / 1000, cpu=spent / count * 1000)


def cpu(system: System) -> float:
    """Seconds of CPU that the proxy has used so far."""
    if system.process is None:
        return 0.0
    words = Path(f"/proc/{system.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def report(count: int, *, requests: int = 3000) -> str:
    """Measure ``count`` rounds, after one that is thrown away, and tell."""
    taken: dict[tuple[str, str], list[Measure]] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        running(Path(name)) as (address, systems),
        click.progressbar(range(count + 1), label="public requests", file=sys.stderr) as bar,
    ):
        for number in bar:
            for kind, system in itertools.product(KINDS, systems):
                found = measure(system, kind, address=address, count=requests, folder=Path(name))
                if number > 0:
                    taken.setdefault((kind, system.name), []).append(found)
    return table(taken)


def table(taken: dict[tuple[str, str], list[Measure]]) -> str:
    """Medians, and the medians of the per-round ratios to Envoy."""
    lines = [f"{'':<30}{'req/s':>9}{'p50 ms':>9}{'CPU ms':>9}   ratio to Envoy: req/s, p50, CPU"]
    for (kind, name), found in taken.items():
        peer = taken[kind, ENVOY]
        own = [statistics.median(getattr(one, field) for one in found) for field in ("rate", "median", "cpu")]
        line = f"{kind + ', ' + name:<30}{own[0]:>9.0f}{own[1]:>9.2f}{own[2]:>9.3f}"
        ratios = [
            statistics.median(getattr(a, field) / getattr(b, field) for a, b in zip(found, peer, strict=True))
            for field in (("rate", "median") if name == ALONE else ("rate", "median", "cpu"))
        ]
        lines.append(line + "   " + " ".join(f"{ratio:>7.2f}" for ratio in ratios))
    return "\n".join(lines)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[tuple[str, list[System]]]:
    """The application, Envoy before it, and hboned before it."""
    address = addresses.loopback()
    with contextlib.ExitStack() as stack:
        for name, config in (("app", application(address)), ("proxy", proxy(address))):
            (folder / f"{name}.json").write_text(json.dumps(config))
        envoys = [
            stack.enter_context(
                processes.start(
                    [
                        *(components.envoy(), "-c", str(folder / f"{name}.json"), "--disable-hot-restart"),
                        *("--concurrency", "1", "--log-level", "error"),
                    ]
                )
            )
            for name in ("app", "proxy")
        ]
        env = processes.environment(PORT_http=str(APP), PORT_grpc=str(GRPC), KRUN_LOG_LEVEL="error")
        argv = ["hboned", "--port", str(TUNNEL), "--bind", address, "--loopback", address, "--public", "app"]
        hboned = stack.enter_context(processes.start(argv, env=env))
        for port in (APP, GRPC, PROXY, TUNNEL):
            processes.wait_for_port(address, port)
        yield (
            address,
            [
                System(name=ALONE, port=APP, grpc_port=GRPC, process=None),
                System(name=ENVOY, port=PROXY, process=envoys[1]),
                System(name=HBONED, port=TUNNEL, process=hboned),
            ],
        )


def application(address: str) -> Json:
    """An Envoy that answers: one port for HTTP, one for gRPC."""
    plain: Json = {"status": 200, "body": {"inline_string": "hello\n"}}
    http: Json = {"match": {"prefix": "/"}, "direct_response": plain}
    grpc: Json = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200},
        "response_headers_to_add": [
            {"header": {"key": "content-type", "value": "application/grpc"}},
            {"header": {"key": "grpc-status", "value": "0"}},
        ],
    }
    return {"static_resources": {"listeners": [listener(address, APP, [http]), listener(address, GRPC, [grpc])]}}


def proxy(address: str) -> Json:
    """An Envoy that does what hboned does: gRPC by HTTP/2, all else by HTTP/1.1."""
    routes: list[Json] = [
        {"match": {"prefix": "/", "grpc": {}}, "route": {"cluster": "grpc", "timeout": "0s"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "0s"}},
    ]
    clusters = [
        cluster("app", address, APP, options="http_protocol_options"),
        cluster("grpc", address, GRPC, options="http2_protocol_options"),
    ]
    return {"static_resources": {"listeners": [listener(address, PROXY, routes)], "clusters": clusters}}


def listener(address: str, port: int, routes: list[Json]) -> Json:
    manager = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"}}
        ],
    }
    return {
        "address": socket(address, port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def cluster(name: str, address: str, port: int, *, options: str) -> Json:
    kind = f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions"
    endpoint = {"endpoint": {"address": socket(address, port)}}
    return {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": kind,
                "explicit_http_config": {options: {}},
            }
        },
    }


def socket(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}


@click.command()
@click.option("--rounds", "count", default=5, show_default=True, help="How often each system is measured.")
@click.option("--requests", default=3000, show_default=True, help="Requests of each kind in each round.")
def main(count: int, requests: int) -> None:
    """Measure public requests: the application alone, through Envoy, through hboned."""
    click.echo(report(count, requests=requests))


if __name__ == "__main__":
    main()
