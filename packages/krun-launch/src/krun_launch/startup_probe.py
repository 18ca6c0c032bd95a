"""What is asked to see that a part is up, and what the user wants to have asked of the application."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from krun_launch.errors import Misconfigured
from krun_launch.record import Record
from krun_launch.settings import Settings, is_port


class Probe(Record):
    """What shows that a part is up: a TCP connection, or with a path an HTTP answer of 200 to 399."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}{self.path}" if self.path else f"{self.host}:{self.port}"


def app_probe(env: Mapping[str, str], *, settings: Settings) -> Probe:
    """What is asked to see that the application is up.

    Raises:
        Misconfigured: both probes are set, or one is not what it should be.
    """
    tcp, http = env.get("STARTUP_PROBE_TCP", ""), env.get("STARTUP_PROBE_HTTP", "")
    if tcp and http:
        raise Misconfigured("STARTUP_PROBE_TCP and STARTUP_PROBE_HTTP: both are set", hint="keep one")
    if tcp:
        host, port = _host_port("STARTUP_PROBE_TCP", tcp, host=settings.loopback, port=settings.app_port)
        return Probe(host=host, port=port)
    if not http:
        return Probe(host=settings.loopback, port=settings.app_port)
    if http.startswith("/"):
        authority, path = "", http
    elif http.startswith("http://"):
        authority, _, rest = http.removeprefix("http://").partition("/")
        path = "/" + rest
    else:
        raise Misconfigured(f"STARTUP_PROBE_HTTP={http!r}: neither a path (/healthy) nor an http:// URL")
    if not path.isascii() or not path.isprintable() or " " in path:
        raise Misconfigured(f"STARTUP_PROBE_HTTP={http!r}: the path holds characters that HTTP does not allow")
    host, port = settings.loopback, settings.app_port
    if authority:
        given = authority if ":" in authority else f"{authority}:80"
        host, port = _host_port("STARTUP_PROBE_HTTP", given, host=host, port=port)
    return Probe(host=host, port=port, path=path)


def _host_port(variable: str, text: str, *, host: str, port: int) -> tuple[str, int]:
    given_host, _, given_port = text.rpartition(":")
    if not is_port(given_port):
        raise Misconfigured(f"{variable}={text!r}: no port number in it")
    given_host = {"": host, "localhost": "127.0.0.1"}.get(given_host, given_host)
    try:
        # No other names: looking one up could take seconds in which signals wait.
        return str(ipaddress.IPv4Address(given_host)), int(given_port)
    except ValueError:
        raise Misconfigured(f"{variable}={text!r}: the host is neither localhost nor an IPv4 address") from None
