"""Which request leads to which local port: decides, never dials."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hbone.contract import FOREIGN_PORTS, PORTS
from hbone.errors import Misconfigured
from hbone.urls import PREFIX

FAMILY = "PORT_"
DEFAULT = str(PORTS["ENVOY_MTLS"])
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An answer other than 200."""

    status: int
    text: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Offers:
    """Offered names and the local ports they lead to."""

    ports: Mapping[str, int]

    def find(self, *, method: str, path: str) -> int | Refusal:
        """The local port that a request asks for, or why there is none.

        A path counts as it was sent: what is encoded, doubled or has dots in it names no port.
        """
        name = path.removeprefix(PREFIX)
        if name == path or not _NAME.fullmatch(name):
            return Refusal(status=404, text="no such path; tunnels are at /_hbone/PORT\n")
        if name not in self.ports:
            return Refusal(status=404, text=f"port {name} is not offered\n")
        if method != "POST":
            return Refusal(status=405, text="a tunnel is opened by POST\n", headers=(("allow", "POST"),))
        return self.ports[name]


def offers(*, offer: str, environment: Mapping[str, str], own_port: int) -> Offers:
    """Read ``PORT`` or ``PORT=TARGETPORT`` by comma, and the variables ``PORT_name=PORT``.

    Raises:
        Misconfigured: not of that form, a port that is never offered, or a name with two targets.
    """
    pairs = [_pair(word.strip()) for word in offer.split(",") if word.strip()]
    pairs += [
        (name.removeprefix(FAMILY), _port(value, where=name))
        for name, value in environment.items()
        if name.startswith(FAMILY) and value and _NAME.fullmatch(name.removeprefix(FAMILY))
    ]
    ports: dict[str, int] = {}
    for name, port in pairs:
        _check(name=name, port=port, own_port=own_port)
        if ports.setdefault(name, port) != port:
            raise Misconfigured(f"{name} is offered twice, as {ports[name]} and as {port}", hint="keep one")
    return Offers(ports=ports)


def _pair(word: str) -> tuple[str, int]:
    name, given, target = word.partition("=")
    port = _port(name, where=f"offer {word!r}")
    return str(port), (_port(target, where=f"offer {word!r}") if given else port)


def _port(text: str, *, where: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536):
        raise Misconfigured(
            f"{where}: {text!r} is no port", hint="a port is 1 to 65535; an offer is PORT or PORT=TARGETPORT"
        )
    return int(text)


def _check(*, name: str, port: int, own_port: int) -> None:
    foreign = FOREIGN_PORTS & {port, int(name) if name.isdecimal() else 0}
    if foreign:
        raise Misconfigured(
            f"port {min(foreign)} (offered as {name}) is never offered: it is Envoy's or the agent's own",
            hint="offer 15003 for the mesh, or a port of the application",
        )
    if port == own_port:
        raise Misconfigured(f"port {port} (offered as {name}) is hboned's own", hint="offer a port behind it")
