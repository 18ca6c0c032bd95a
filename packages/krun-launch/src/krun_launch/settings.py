"""The numbers and addresses that krun-launch itself needs, out of the environment: checked, with their defaults."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping

from krun_launch.contract import PORTS
from krun_launch.errors import Misconfigured
from krun_launch.record import Record

DEFAULT_CERTS = "/var/run/secrets/workload-spiffe-credentials"
"""Where GKE mounts workload certificates, and where the original looks."""

# How the application is spoken to: gRPC by HTTP/2 and all else by HTTP/1.1, or all by one of them.
AUTO, HTTP1, H2C = "auto", "http1", "h2c"
APP_PROTOCOLS = (AUTO, HTTP1, H2C)


class Settings(Record):
    """Times in seconds; ``port`` is hboned's, ``app_port`` the application's."""

    loopback: str
    bind: str
    port: int
    app_port: int
    public: str
    app_protocol: str
    status_port: int
    ready_timeout: float
    app_timeout: float
    grace: float
    drain: float
    restarts: int = 0

    @property
    def kill_after(self) -> float:
        """Seconds after the signal at which what is left is killed: just before the platform does it."""
        return max(self.grace - 0.5, self.grace / 2)


def settings(env: Mapping[str, str]) -> Settings:
    """Read them.

    Raises:
        Misconfigured: one is no number or address, or two contradict each other; the message names the variables.
    """
    loopback = _address(env, "KRUN_LOOPBACK", default="127.0.0.1")
    grace = seconds(env, "KRUN_GRACE", default=10.0)
    drain = seconds(env, "KRUN_DRAIN", default=min(4.0, grace / 2))
    if drain >= grace > 0:
        raise Misconfigured(
            f"KRUN_DRAIN={drain:g} and KRUN_GRACE={grace:g}: waiting for requests is a part of the whole end",
            hint="make KRUN_DRAIN less than KRUN_GRACE",
        )
    return Settings(
        loopback=loopback,
        bind=_address(env, "KRUN_BIND", default="0.0.0.0" if env.get("K_SERVICE") else loopback),
        port=port(env, "PORT", default=PORTS["HBONE_H2C"]),
        app_port=port(env, "PORT_http", default=PORTS["APP"]),
        public=one_of(env, "KRUN_PUBLIC", "app", "none"),
        app_protocol=one_of(env, "KRUN_APP_PROTOCOL", *APP_PROTOCOLS),
        status_port=port(env, "KRUN_STATUS_PORT", default=PORTS["STATUS"]),
        ready_timeout=seconds(env, "KRUN_READY_TIMEOUT", default=30.0),
        app_timeout=seconds(env, "KRUN_APP_TIMEOUT", default=240.0),
        grace=grace,
        drain=drain,
        restarts=_count(env, "KRUN_RESTARTS", most=1000),
    )


def names_control_plane(env: Mapping[str, str]) -> bool:
    """Tell whether there may be a control plane: named, or in the agent's own configuration."""
    address = env.get("XDS_ADDR") or ""
    return address != "-" if address else bool(env.get("PROXY_CONFIG"))


def seconds(env: Mapping[str, str], name: str, *, default: float) -> float:
    """A length of time, in seconds; fractions are fine."""
    text = env.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 86400:
        raise Misconfigured(f"{name}={text!r}: not a number of seconds between 0 and 86400")
    return value


def _count(env: Mapping[str, str], name: str, *, most: int) -> int:
    text = env.get(name) or "0"
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and int(text) <= most):
        raise Misconfigured(f"{name}={text[:20]!r}: not a number from 0 to {most}")
    return int(text)


def one_of(env: Mapping[str, str], name: str, *words: str) -> str:
    """One of the words; the first is the default."""
    text = env.get(name) or words[0]
    if text not in words:
        raise Misconfigured(f"{name}={text[:20]!r}: not one of {', '.join(words)}")
    return text


def port(env: Mapping[str, str], name: str, *, default: int) -> int:
    """A TCP port number."""
    text = env.get(name) or str(default)
    if not is_port(text):
        raise Misconfigured(f"{name}={text[:20]!r}: not a port number", hint="a number from 1 to 65535")
    return int(text)


def is_port(text: str) -> bool:
    """Tell whether a text is a TCP port number: isdecimal() takes digits of all scripts, int() only some thousands."""
    return text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536


def _address(env: Mapping[str, str], name: str, *, default: str) -> str:
    text = env.get(name) or default
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise Misconfigured(f"{name}={text!r}: not an IPv4 address", hint=f"leave it out for {default}") from None
