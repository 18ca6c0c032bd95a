"""Others that lead TLS connections on by the server name, unopened: haproxy, nginx and Envoy, as configurations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from krun_testbed.bench_tunnel_envoy import Json, forward, listener, static_cluster, tcp

TYPE = "type.googleapis.com/envoy.extensions"
Targets = Mapping[str, tuple[str, int]]  # server names, and where they lead

HAPROXY = """\
global
    nbthread 2
    maxconn 4000
defaults
    mode tcp
    maxconn 4000
    timeout connect 5s
    timeout client 1h
    timeout server 1h
{options}
frontend names
    bind {address}:{port}
    tcp-request inspect-delay 5s
    tcp-request content accept if {{ req.ssl_hello_type 1 }}
{uses}
"""
NGINX = """\
daemon off;
worker_processes 2;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log stderr error;
load_module {module};
events {{ worker_connections 9000; }}
stream {{
    map_hash_bucket_size 128;
    map $ssl_preread_server_name $place {{
{places}
    }}
    server {{
        listen {address}:{port} backlog=4096;
        ssl_preread on;
        tcp_nodelay on;
        proxy_timeout 1h;
        proxy_pass $place;
    }}
}}
"""


def haproxy(targets: Targets, *, address: str, port: int, is_spliced: bool) -> str:
    uses, backends = [], []
    for number, (name, (host, target)) in enumerate(targets.items()):
        uses.append(f"    use_backend place{number} if {{ req.ssl_sni -i {name} }}")
        backends.append(f"backend place{number}\n    server only {host}:{target}\n")
    options = "    option splice-auto" if is_spliced else ""
    return HAPROXY.format(address=address, port=port, options=options, uses="\n".join(uses)) + "\n".join(backends)


def nginx(targets: Targets, *, address: str, port: int, folder: Path, module: Path) -> str:
    places = "\n".join(f"        {name} {host}:{target};" for name, (host, target) in targets.items())
    return NGINX.format(address=address, port=port, folder=folder, module=module, places=places)


def envoy(targets: Targets, *, address: str, port: int) -> Json:
    """Bytes led on as they are."""
    chains = [(name, tcp(name)) for name in targets]
    clusters = [static_cluster(name, host, target) for name, (host, target) in targets.items()]
    return {"static_resources": {"listeners": [_by_name(address, port, chains)], "clusters": clusters}}


def envoy_tunnels(targets: Targets, *, address: str, port: int, server: tuple[str, int], cluster: Json) -> Json:
    """Bytes led on through a POST each, as hgate does."""
    chains = [(name, forward(target, server)) for name, (_, target) in targets.items()]
    return {"static_resources": {"listeners": [_by_name(address, port, chains)], "clusters": [cluster]}}


def _by_name(address: str, port: int, chains: list[tuple[str, Json]]) -> Json:
    place = listener(address, port, [[filter_] for _, filter_ in chains])
    for (name, _), chain in zip(chains, place["filter_chains"], strict=True):
        chain["filter_chain_match"] = {"server_names": [name]}
    kind = f"{TYPE}.filters.listener.tls_inspector.v3.TlsInspector"
    place["listener_filters"] = [
        {"name": "envoy.filters.listener.tls_inspector", "typed_config": {"@type": kind}},
    ]
    return place
