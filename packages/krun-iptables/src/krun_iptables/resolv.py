"""The DNS servers of ``/etc/resolv.conf``, as the library that Istio uses reads it."""

from __future__ import annotations

from krun_iptables.errors import Misconfigured
from krun_iptables.network import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_iptables.network import Address

PATH = "/etc/resolv.conf"


def servers(path: str = PATH) -> tuple[Address, ...]:
    """All of them, in order.

    Raises:
        Misconfigured: the file cannot be read.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - pathlib is slow to import
            return parse(file.read())
    except OSError as error:
        raise Misconfigured(
            f"{path}: {error.strerror}", hint="DNS servers are read there; --capture-all-dns needs none"
        ) from None


def parse(text: str) -> tuple[Address, ...]:
    """Lines that start otherwise, and what is no address, are passed over."""
    lines = (line.split() for line in text.split("\n"))
    found = (_address(words[1]) for words in lines if len(words) > 1 and words[0] == "nameserver")
    return tuple(one for one in found if one is not None)


def _address(text: str) -> Address | None:
    # The interface of a link-local server is nothing that a rule can hold.
    front, scoped, interface = text.partition("%")
    try:
        found = address(front)
    except ValueError:
        return None
    return found if not scoped or (found.version == 6 and interface) else None
