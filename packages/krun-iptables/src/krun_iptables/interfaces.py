"""The addresses of this machine's interfaces, and whether they make IPv6 worth rules."""

from __future__ import annotations

from krun_iptables.errors import Unreachable
from krun_iptables.network import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def addresses() -> tuple[Address, ...]:
    """Every address of every interface.

    Raises:
        Unreachable: the kernel does not tell.
    """
    # Late: with it comes the socket module, and not every run asks.
    from krun_iptables import kernel_netlink as netlink
    from krun_iptables.routes import ADDRESS, ADDRESS_LOCAL, ADDRESS_VALUE, GET_ADDRESS

    try:
        answers = netlink.ask(netlink.ROUTE, GET_ADDRESS, ADDRESS.pack(0, 0, 0, 0, 0))
    except OSError as error:
        raise Unreachable(f"the addresses of this machine's interfaces are not told: {error.strerror}") from None
    found: list[Address] = []
    for answer in answers:
        attributes = netlink.unpack(answer[ADDRESS.size :])
        value = attributes.get(ADDRESS_LOCAL) or attributes.get(ADDRESS_VALUE) or b""
        if len(value) in (4, 16):
            found.append(Address(packed=value))
    return tuple(found)


def usable(found: Iterable[Address]) -> set[int]:
    """Of which families there are addresses that others could call: no loopback, none of the link alone."""
    return {address.version for address in found if not (address.is_loopback or address.is_link_local)}
