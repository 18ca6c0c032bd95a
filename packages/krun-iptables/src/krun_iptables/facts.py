"""What a decision needs to know of the machine, each asked for only when it matters."""

from __future__ import annotations

from krun_iptables import owners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from krun_iptables.network import Address

    class Facts(Protocol):
        """The machine, or a test's idea of one."""

        def addresses(self) -> tuple[Address, ...]:
            """Of all interfaces."""

        def servers(self) -> tuple[Address, ...]:
            """Of DNS."""

        def uid(self, name: str) -> int | None:
            """Of a user."""

        def gid(self, name: str) -> int | None:
            """Of a group."""


class Machine:
    """The one that we are on."""

    def __init__(self) -> None:
        self._addresses: tuple[Address, ...] | None = None

    def addresses(self) -> tuple[Address, ...]:
        """Of all interfaces, as they were when this was asked first. Raises Unreachable."""
        from krun_iptables import interfaces

        if self._addresses is None:
            self._addresses = interfaces.addresses()
        return self._addresses

    def servers(self) -> tuple[Address, ...]:
        """Of DNS. Raises Misconfigured."""
        from krun_iptables import resolv

        return resolv.servers()

    def uid(self, name: str) -> int | None:
        """Of a user."""
        return owners.uid(name)

    def gid(self, name: str) -> int | None:
        """Of a group."""
        return owners.gid(name)
