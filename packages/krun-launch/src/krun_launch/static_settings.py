"""What static mode must know, out of the environment alone (docs/environment.md)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path

from krun_launch import workload
from krun_launch.contract import PORTS
from krun_launch.errors import Misconfigured
from krun_launch.record import Record
from krun_launch.settings import APP_PROTOCOLS, one_of

# What is read here: contract.py declares it for the package.
READS = frozenset(
    {
        "ENVOY_LOG_LEVEL",
        "KRUN_APP_PROTOCOL",
        "KRUN_GATEWAY",
        "KRUN_LOOPBACK",
        "KRUN_MESH_NAMESPACES",
        "MCON_ADDR",
        "MESH",
        "PORT_*",
        "PROJECT_ID",
        "TRUST_DOMAIN",
        "WORKLOAD_NAME",
        "WORKLOAD_NAMESPACE",
    }
)

ADMIN_PORT = PORTS["ENVOY_ADMIN"]
MTLS_PORT = PORTS["ENVOY_MTLS"]
PROXY_PORT = PORTS["ENVOY_HTTP_PROXY"]
# Where the mesh's own gateway takes mTLS by SNI; Istio's number.
PASSTHROUGH_PORT = 15443

HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?")
LOG_LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")


class StaticSettings(Record):
    """Static mode's settings, checked: every field can be written into Envoy's bootstrap as it is."""

    run_dir: Path
    loopback: str
    namespace: str
    name: str
    trust_domain: str
    gateway_host: str
    gateway_port: int
    mesh_namespaces: tuple[str, ...]
    app_port: int
    grpc_port: int
    app_protocol: str
    is_captured: bool


def settings(env: Mapping[str, str], *, run_dir: Path, is_captured: bool = False) -> StaticSettings:
    """Read the settings; an empty variable counts as not set.

    Raises Misconfigured (78) when one is missing or wrong, or when two contradict each other.
    """
    namespace = workload.namespace(env)
    gateway_host, gateway_port = _gateway(env)
    app_port = workload.port_of(env, "PORT_http", default=PORTS["APP"])
    result = StaticSettings(
        run_dir=run_dir,
        loopback=_loopback(env),
        namespace=namespace,
        name=workload.name(env, default=namespace),
        trust_domain=workload.trust_domain(env),
        gateway_host=gateway_host,
        gateway_port=gateway_port,
        mesh_namespaces=_mesh_namespaces(env, own=namespace),
        app_port=app_port,
        grpc_port=workload.port_of(env, "PORT_grpc", default=app_port),
        app_protocol=one_of(env, "KRUN_APP_PROTOCOL", *APP_PROTOCOLS),
        is_captured=is_captured,
    )
    _check_ports(result)
    return result


def _loopback(env: Mapping[str, str]) -> str:
    text = env.get("KRUN_LOOPBACK") or "127.0.0.1"
    try:
        # No IPv6: our own ports are dialled and checked in one family.
        address = ipaddress.IPv4Address(text)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise Misconfigured(
            f"KRUN_LOOPBACK: {text!r} is not a loopback address",
            hint="use an address of 127.0.0.0/8: what listens there must not be reached from outside",
        )
    return str(address)


def _mesh_namespaces(env: Mapping[str, str], *, own: str) -> tuple[str, ...]:
    words = [word.strip() for word in (env.get("KRUN_MESH_NAMESPACES") or "").split(",")]
    names = {own, *filter(None, words)}
    for name in sorted(names):
        if not workload.LABEL.fullmatch(name):
            raise Misconfigured(
                f"KRUN_MESH_NAMESPACES: {name!r} is not a namespace", hint="names by comma: KRUN_MESH_NAMESPACES=web,db"
            )
    return tuple(sorted(names))


def _gateway(env: Mapping[str, str]) -> tuple[str, int]:
    """The SNI gateway: KRUN_GATEWAY, else what MESH=static: names, else the mesh connector's public address."""
    if text := env.get("KRUN_GATEWAY"):
        return _host_port("KRUN_GATEWAY", text)
    mesh = env.get("MESH") or ""
    if mesh.startswith("static:"):
        # The same default as krun-discover's.
        return _host_port("MESH", mesh.removeprefix("static:"), default=PASSTHROUGH_PORT)
    if host := env.get("MCON_ADDR"):
        return _host("MCON_ADDR", host), PASSTHROUGH_PORT
    raise Misconfigured(
        "static mode: no gateway is known: KRUN_GATEWAY is not set",
        hint="set KRUN_GATEWAY=HOST:PORT or MESH=static:HOST:PORT to the SNI gateway of the mesh",
    )


def _host_port(variable: str, text: str, *, default: int | None = None) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    has_port = colon and not text.endswith("]")
    if not has_port and default is not None:
        return _host(variable, text), default
    if not has_port:
        raise Misconfigured(f"{variable}: {text!r} has no port", hint="HOST:PORT, or [IPV6]:PORT")
    return _host(variable, host), workload.port(variable, port)


def _host(variable: str, text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        if not HOST.fullmatch(text):
            raise Misconfigured(
                f"{variable}: {text!r} is neither a host name nor an IP address", hint="HOST:PORT, or [IPV6]:PORT"
            ) from None
    return text


def log_level(env: Mapping[str, str]) -> str:
    """Envoy's own log level, which it would refuse in its words, and too late."""
    text = env.get("ENVOY_LOG_LEVEL") or "warning"
    if text not in LOG_LEVELS:
        raise Misconfigured(f"ENVOY_LOG_LEVEL={text!r}: no log level of Envoy", hint=f"one of {', '.join(LOG_LEVELS)}")
    return text


def _check_ports(settings: StaticSettings) -> None:
    """Refuse ports that Envoy would listen on and dial, or share with the application."""
    own = {ADMIN_PORT: "Envoy's admin interface", MTLS_PORT: "Envoy's mTLS port", PROXY_PORT: "Envoy's HTTP proxy"}
    for variable, port in (("PORT_http", settings.app_port), ("PORT_grpc", settings.grpc_port)):
        if port in own:
            raise Misconfigured(f"{variable}: {port} is {own[port]}", hint="let the application listen on another port")
    if settings.gateway_host == settings.loopback and settings.gateway_port in (
        *own,
        settings.app_port,
        settings.grpc_port,
    ):
        raise Misconfigured(
            f"the gateway {settings.gateway_host}:{settings.gateway_port} is this workload itself",
            hint="KRUN_GATEWAY is the address of the mesh's gateway; KRUN_LOOPBACK is where this workload listens",
        )
