"""What is to be intercepted, in Istio's model: values only; the texts they come from are read in ``reading``.

A list keeps its order and its doubles, as Istio's own does (tools/common/config/types.go).
"""

from __future__ import annotations

from krun_iptables.contract import FOREIGN_PROBE, FOREIGN_TUNNEL, PORTS
from krun_iptables.network import network
from krun_iptables.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from krun_iptables.network import Address, Network

# Istio's own (tools/common/config/config.go, DefaultConfig).
ENVOY_PORT = PORTS["ENVOY_CAPTURED_OUT"]
INBOUND_CAPTURE_PORT = PORTS["ENVOY_CAPTURED_IN"]
INBOUND_TUNNEL_PORT = FOREIGN_TUNNEL
PROBE_PORT = FOREIGN_PROBE
PROBE_TIMEOUT = 5.0
TPROXY_MARK = 1337
TPROXY_TABLE = 133
PROXY_ID = "1337"
LOOPBACK = network("127.0.0.1/32")


class Settings(Record):
    """Every setting of ``istio-iptables``, with its defaults; users and groups are numbers, or names that exist."""

    # Ports of the proxy.
    envoy_port: int = ENVOY_PORT
    inbound_capture_port: int = INBOUND_CAPTURE_PORT
    inbound_tunnel_port: int = INBOUND_TUNNEL_PORT
    # Who the proxy is.
    proxy_uids: tuple[str, ...] = (PROXY_ID,)
    proxy_gids: tuple[str, ...] = (PROXY_ID,)
    # What comes in.
    mode: Literal["REDIRECT", "TPROXY"] = "REDIRECT"
    all_inbound_ports: bool = False
    inbound_ports: tuple[int, ...] = ()
    inbound_exclude_ports: tuple[int, ...] = ()  # of all_inbound_ports
    tproxy_mark: int = TPROXY_MARK
    tproxy_table: int = TPROXY_TABLE
    # Istio leads the proxy's calls to its own workload to the inbound port, also when nothing else that comes in is.
    inbound_is_optional: bool = False  # not then
    # What goes out.
    all_outbound: bool = False
    outbound_ranges: tuple[Network, ...] = ()
    names_loopback: bool = False  # one was written with an address of loopback, as 127.0.0.1/0
    outbound_exclude_ranges: tuple[Network, ...] = ()
    outbound_ports: tuple[int, ...] = ()  # whatever the address
    outbound_exclude_ports: tuple[int, ...] = ()
    all_groups: bool = True
    groups: tuple[str, ...] = ()  # the only ones that are intercepted, unless all_groups
    exclude_groups: tuple[str, ...] = ()  # of all_groups
    loopback: Network = LOOPBACK
    # Of both.
    exclude_interfaces: tuple[str, ...] = ()
    virtual_interfaces: tuple[str, ...] = ()  # what comes in there is as if it went out
    drop_invalid: bool = False
    ipv6: bool = False
    dual_stack: bool = False
    # DNS.
    redirect_dns: bool = False
    capture_all_dns: bool = False
    dns_servers: tuple[Address, ...] = ()  # of both families, in resolv.conf's order
    # How it is done.
    dry_run: bool = False
    dry_run_file: str = ""
    native_nftables: bool = False
    force_iptables_binary: Literal["", "legacy", "nft"] = ""
    network_namespace: str = ""
    cni_mode: bool = False
    skip_rule_apply: bool = False
    cleanup_only: bool = False
    reconcile: bool = False
    force_apply: bool = False
    run_validation: bool = False
    probe_port: int = PROBE_PORT
    probe_timeout: float = PROBE_TIMEOUT  # seconds

    @property
    def captures_inbound(self) -> bool:
        """Whether what comes in is intercepted at all."""
        return self.all_inbound_ports or bool(self.inbound_ports)

    @property
    def is_tproxy(self) -> bool:
        """Whether what comes in keeps its source address."""
        return self.mode == "TPROXY"

    @property
    def captures_dns(self) -> bool:
        """Whether DNS is led to the agent: Istio leaves it alone where there is no server to tell it by."""
        return self.redirect_dns and (self.capture_all_dns or bool(self.dns_servers))

    @property
    def captures_loopback(self) -> bool:
        """Whether a range of loopback is named to be intercepted."""
        return self.names_loopback or any(is_loopback(network.network_address) for network in self.outbound_ranges)

    def servers(self, family: int) -> tuple[Address, ...]:
        """DNS servers of one family."""
        return tuple(server for server in self.dns_servers if server.version == family)

    def as_json(self) -> dict[str, object]:
        """The settings as JSON values."""
        return {name: _json(value) for name, value in zip(self._fields, self._values(), strict=True)}


def is_loopback(address: Address) -> bool:
    """As Istio decides it (SeparateV4V6)."""
    return address.unmapped.is_loopback


def _json(value: object) -> object:
    if isinstance(value, tuple):
        return [_json(one) for one in value]
    return value if isinstance(value, (bool, int, float, str)) else str(value)
