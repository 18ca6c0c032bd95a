"""What may be taken of the config map ``mesh-env``: data from a cluster, not trusted code. Pure.

Whoever can write it could otherwise choose a loader's variable, a user id, a key, or open a port of the proxy.
"""

from __future__ import annotations

from collections.abc import Mapping

from krun_discover import address, contract
from krun_discover.environment import is_port, is_roots
from krun_discover.errors import Misconfigured
from krun_discover.record import Record
from krun_discover.resolve import NAME

NAME_OF_MAP = "mesh-env"
SYSTEM = "istio-system"  # where the whole mesh's is; the workload's namespace may have its own
VALUE_LIMIT = 4096  # characters
ROOTS_LIMIT = 256 * 1024
ADDRESSES = ("XDS_ADDR", "MCON_ADDR", "IMCON_ADDR", "KRUN_GATEWAY")
# As the original spelt them, which no shell can set.
SPELLINGS = {"startupProbe.http": "STARTUP_PROBE_HTTP", "startupProbe.tcp": "STARTUP_PROBE_TCP"}
MANAGED = "meshconfig.googleapis.com"
BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class Accepted(Record):
    """``dropped``: name and reason."""

    values: Mapping[str, str]
    dropped: tuple[tuple[str, str], ...]


def accept(data: Mapping[str, str]) -> Accepted:
    """Take what the contract marks for it, where the value is what it should be."""
    values: dict[str, str] = {}
    dropped: list[tuple[str, str]] = []
    for spelt in sorted(data):
        name = SPELLINGS.get(spelt, spelt)
        if reason := _objection(name, data[spelt]):
            dropped.append((spelt, reason))
        elif data[spelt].strip():
            values[name] = data[spelt].strip()
    if values.get("XDS_ADDR", "").startswith(MANAGED) and values.get("MESH_TENANT", "-") == "-":
        dropped.append(("XDS_ADDR", "a managed control plane needs MESH_TENANT"))
        del values["XDS_ADDR"]
    return Accepted(values=values, dropped=tuple(dropped))


def _objection(name: str, value: str) -> str:
    if not NAME.fullmatch(name) or not (name in contract.MESH_ENV or is_port(name) or is_roots(name)):
        return "not for a cluster to set"
    value = value.strip()
    if is_roots(name):
        return objection_to_roots(value)
    if len(value) > VALUE_LIMIT:
        return f"longer than {VALUE_LIMIT} characters"
    if not value.isprintable():
        return "not one line of text"
    if is_port(name):
        return _objection_to_port(value)
    if name in ADDRESSES and value not in ("", "-"):
        try:
            address.parse(value, what=name, default_port=contract.PORTS["ISTIOD"])
        except Misconfigured:
            return "not HOST:PORT"
    return ""


def objection_to_roots(value: str) -> str:
    """Why these are no root certificates to take; empty when they are."""
    if len(value) > ROOTS_LIMIT:
        return f"longer than {ROOTS_LIMIT} characters"
    blocks = value.replace("\\n", "\n").split(BEGIN)
    is_pem = not blocks[0].strip() and all(
        block.count(END) == 1 and not block.partition(END)[2].strip() for block in blocks[1:]
    )
    text = value.replace("\n", "").replace("\r", "").replace("\t", "")
    return "" if is_pem and text.isascii() and text.isprintable() else "not certificates in PEM"


def _objection_to_port(value: str) -> str:
    is_number = value.isascii() and value.isdecimal() and len(value) <= 5 and 1 <= int(value) <= 65535
    if not is_number:
        return "not a port"
    return "a port of the proxy" if int(value) in contract.OWN_PORTS else ""
