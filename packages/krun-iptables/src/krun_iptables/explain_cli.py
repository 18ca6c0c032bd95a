"""The command line of ``krun-iptables explain``."""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal

import click

from krun_iptables import explain_owner, flags, rules
from krun_iptables.explain import explain
from krun_iptables.explain_text import as_json, lines
from krun_iptables.packet import LOOPBACK, Packet

if TYPE_CHECKING:
    from collections.abc import Callable

    from krun_iptables.packet import Address
    from krun_iptables.settings import Settings

USUAL_INTERFACE = "eth0"  # of containers, where the kernel knows no way
EPILOG = """\b
Examples:
  krun-iptables explain 10.0.0.1:443
  krun-iptables explain '[2001:db8::1]:443' --uid 1337 --all
  krun-iptables explain 10.0.0.10:53 --protocol udp --redirect-dns
  krun-iptables explain --inbound 8080 --istio-inbound-ports '*'
  krun-iptables explain 10.0.0.1:443 --format json | jq -r .decision
"""


class _Target(click.ParamType[tuple["Address", int]]):
    """ADDRESS:PORT, with IPv6 in brackets."""

    name = "target"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Address, int]:
        """Read it; an address is not looked up: rules know none by name."""
        host, _, port = str(value).rpartition(":")
        try:
            bare = host.startswith("[") == host.endswith("]")
            address = _unmapped(ip_address(host[1:-1] if host.startswith("[") and bare else host))
            if ":" in host and not host.startswith("["):
                raise ValueError(value)
        except ValueError:
            self.fail(f"{value!r} is no ADDRESS:PORT, as 10.0.0.1:443 or [2001:db8::1]:443", param, ctx)
        return address, _port(port, self, param, ctx)


class _Port(click.ParamType[int]):
    """A port."""

    name = "port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        return _port(str(value), self, param, ctx)


class _Address(click.ParamType["Address"]):
    """An IP address."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Read it."""
        try:
            return _unmapped(ip_address(str(value)))
        except ValueError:
            self.fail(f"{value!r} is no address", param, ctx)


class _Owner(click.ParamType[tuple[str, ...]]):
    """A user or a group: its number and its name."""

    name = "owner"

    def __init__(self, read: Callable[[str], tuple[str, ...]]) -> None:
        self.read = read

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Look it up."""
        try:
            return self.read(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _unmapped(address: Address) -> Address:
    """A socket of IPv6 that calls ::ffff:10.0.0.1 sends packets of IPv4."""
    return getattr(address, "ipv4_mapped", None) or address


def _port(text: str, kind: click.ParamType[object], param: click.Parameter | None, ctx: click.Context | None) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535):
        kind.fail(f"{text!r} is no port from 1 to 65535", param, ctx)
    return int(text)


@click.command(
    "explain", epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80}
)
@click.argument("target", type=_Target(), required=False)
@click.option("--inbound", type=_Port(), metavar="NUMBER", help="Instead: what comes in to this port.")
@click.option("--protocol", type=click.Choice(("tcp", "udp")), default="tcp", show_default=True, help="Which protocol.")
@click.option("--uid", type=_Owner(explain_owner.user), metavar="USER", help="Whose it is; you, if not given.")
@click.option("--gid", type=_Owner(explain_owner.group), metavar="GROUP", help="Of which group; yours.")
@click.option("--from", "source", type=_Address(), metavar="ADDRESS", help="Its source; what the kernel would take.")
@click.option("--interface", default="", metavar="NAME", help="By which it comes or goes; the kernel's, else eth0.")
@click.option(
    "--state",
    type=click.Choice(("new", "established", "invalid")),
    default="new",
    show_default=True,
    help="Conntrack's.",
)
@click.option("--all", "all_steps", is_flag=True, help="Show also rules that were looked at and do not fit.")
@click.option("--format", "style", type=click.Choice(("text", "json")), default="text", show_default=True)
@flags.of_settings
def command(
    *,
    target: tuple[Address, int] | None,
    inbound: int | None,
    protocol: Literal["tcp", "udp"],
    uid: tuple[str, ...] | None,
    gid: tuple[str, ...] | None,
    source: Address | None,
    interface: str,
    state: str,
    all_steps: bool,
    style: str,
    **given: object,
) -> None:
    """Say what becomes of a connection to TARGET, an ADDRESS:PORT, and which rule decides.

    The rules are those that the settings give, by the flags and variables of krun-iptables; the kernel's are not read.
    They are walked as the kernel would: raw, mangle, nat. It is the first packet of a connection that is explained:
    what follows it goes the same way.
    """
    settings = flags.settings(given, os.environ)
    if (target is None) == (inbound is None):
        raise click.UsageError("give a TARGET, or --inbound PORT: one of them")
    if inbound is not None and (uid or gid):
        raise click.UsageError("--inbound: what comes in has no --uid and no --gid")
    if target is not None:
        packet, local = _leaving(target, source=source, interface=interface)
        packet = packet.but(
            uids=uid or explain_owner.user(str(os.geteuid())), gids=gid or explain_owner.group(str(os.getegid()))
        )
    else:
        assert inbound is not None  # noqa: S101 - one of both is given
        packet, local = _arriving(inbound, source=source, interface=interface, settings=settings), False
    packet = packet.but(protocol=protocol, state=state.upper())
    found = explain(rules.rules(settings), packet, local=local)
    if style == "json":
        import json

        click.echo(json.dumps(as_json(found)))
    else:
        click.echo("\n".join(lines(found, all_steps=all_steps)))


def _leaving(target: tuple[Address, int], *, source: Address | None, interface: str) -> tuple[Packet, bool]:
    """The packet to a target, and whether it stays on this machine."""
    from krun_iptables import explain_route

    address, port = target
    if source is not None and source.version != address.version:
        raise click.UsageError(f"--from {source} and {address} are of different families")
    route = explain_route.find(address)
    if route is None:
        local = address.is_loopback
        by = interface or (LOOPBACK if local else USUAL_INTERFACE)
        return Packet(destination=address, port=port, source=source, out_interface=by), local
    by = interface or route.interface or USUAL_INTERFACE
    local = by == LOOPBACK
    return Packet(destination=address, port=port, source=source or route.source, out_interface=by), local


def _arriving(port: int, *, source: Address | None, interface: str, settings: Settings) -> Packet:
    """A packet from somewhere else to this machine; IPv6 when its source is."""
    from krun_iptables import explain_route

    peer = source or ip_address("192.0.2.1")
    route = explain_route.find(peer)
    here = route.source if route else ip_address("192.0.2.2" if peer.version == 4 else "2001:db8::2")
    if settings.ipv6 is False and peer.version == 6:
        click.echo("IPv6 is off on this machine: no rule of IPv6 is made", err=True)
    by = interface or (route.interface if route else "") or USUAL_INTERFACE
    return Packet(destination=here, port=port, source=peer, in_interface=by)
