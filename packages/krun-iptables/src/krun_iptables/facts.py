"""What a decision needs to know of the machine, each asked for only when it matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krun_iptables import owners

if TYPE_CHECKING:
    from typing import Protocol

    from krun_iptables.settings import Address

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

    def addresses(self) -> tuple[Address, ...]:
        """Of all interfaces. Raises Unreachable."""
        from krun_iptables import interfaces

        return interfaces.addresses()

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
