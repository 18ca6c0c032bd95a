"""The routes that TPROXY needs, and the address that Envoy calls from in IPv6: set, found again, taken away.

What Istio sets (tools/common/tproxy/run_linux.go), by netlink as there:

    ip rule add fwmark MARK lookup TABLE           packets with the mark are routed by a table of their own
    ip route add local default dev lo table TABLE  in which everything is delivered here
    ip address add ::6/128 dev lo                  with IPv6, whatever the mode

Ours carries a protocol number of its own, so that taking it away needs no memory of the settings; what Istio's tool
left has Istio's defaults, or the mark that a rule of ours sets.
"""

from __future__ import annotations

import _socket as socket  # without selectors and enum, which take longer to load than all of this to run
import errno
import struct
import sys
from _socket import AF_INET, AF_INET6

from krun_iptables import kernel_netlink as netlink
from krun_iptables.errors import Denied, Unreachable
from krun_iptables.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

# linux/rtnetlink.h, linux/fib_rules.h, linux/if_addr.h
NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DELETE_ROUTE, GET_ROUTE = 24, 25, 26
NEW_RULE, DELETE_RULE, GET_RULE = 32, 33, 34
ADDRESS_VALUE, ADDRESS_LOCAL = 1, 2
ROUTE_DEVICE, ROUTE_TABLE = 4, 15
RULE_PRIORITY, RULE_MARK, RULE_TABLE, RULE_MASK, RULE_PROTOCOL = 6, 10, 15, 16, 21
ADDRESS = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, interface
ROUTE = struct.Struct("=BBBBBBBBI")  # family, to, from, tos, table, protocol, scope, type, flags
RULE = struct.Struct("=BBBBBBBBI")  # family, to, from, tos, table, -, -, action, flags
BY_ATTRIBUTE = 252  # RT_TABLE_COMPAT: tables above 255 do not fit into the header
LOCAL, HOST, NOWHERE, TO_TABLE = 2, 254, 255, 1  # RTN_LOCAL, RT_SCOPE_*, FR_ACT_TO_TBL
KERNELS_OWN = (0, 253, 254, 255)  # unspecified, default, main, local
WHOLE = 0xFFFFFFFF
OURS = 133  # the protocol number of what we set
ISTIOS = (1337, 133)  # mark and table, by default
ENVOY = "::6"
HINT = "give the container NET_ADMIN, or use REDIRECT"


class Routes(Record):
    """What is to be set. ``mark`` None: no routes. ``ipv6``: both families, and Envoy's address."""

    mark: int | None = None
    table: int = 133
    ipv6: bool = False


NOTHING = Routes()


class Found(Record):
    """One routing rule that is ours, with the place it stands at."""

    family: int
    mark: int
    table: int
    priority: int = 0  # of a new one the kernel chooses it

    @property
    def text(self) -> str:
        """As ``ip rule`` takes it."""
        return f"fwmark {self.mark} lookup {self.table}"


class Standing(Record):
    """What of ours is there."""

    rules: tuple[Found, ...] = ()
    address: bool = False


def add(routes: Routes) -> None:
    """Set what is not there yet.

    Raises:
        Denied, Unreachable: the kernel will not have it; what was set before stays, and does nothing without rules.
    """
    if routes.ipv6:
        _add_address()
    if routes.mark is None:
        return
    for family in (AF_INET, AF_INET6) if routes.ipv6 else (AF_INET,):
        # Rules that differ in their place only are not the same to the kernel: it would take another one each time.
        there = {(found.mark, found.table) for found in _found(family, {routes.mark})}
        _add_rule(
            Found(family=family, mark=routes.mark, table=routes.table), is_there=(routes.mark, routes.table) in there
        )


def bring_back(was: Standing) -> None:
    """Leave what was there before. Raises Denied or Unreachable when the kernel will not have it."""
    there = standing(marks={rule.mark for rule in was.rules})
    remove(there, kept=was)
    for rule in was.rules:
        _add_rule(rule, is_there=rule in there.rules)
    if was.address and not there.address:
        _add_address()


def _add_address() -> None:
    _tell(f"address {ENVOY}/128 on lo", NEW_ADDRESS, _address(), unless=(errno.EEXIST,), flags=netlink.ADD)


def _add_rule(rule: Found, *, is_there: bool) -> None:
    there = (errno.EEXIST,)
    route = _route(rule.family, rule.table, protocol=OURS, scope=HOST)
    _tell(f"route of table {rule.table}", NEW_ROUTE, route, unless=there, flags=netlink.ADD)
    if not is_there:
        message = _rule(rule.family, rule.mark, rule.table, priority=rule.priority, protocol=OURS)
        _tell(f"rule {rule.text}", NEW_RULE, message, unless=there, flags=netlink.ADD)


def standing(*, marks: Collection[int] = ()) -> Standing:
    """What of ours is there; ``marks`` are those that rules of ours set."""
    rules = (*_found(AF_INET, marks), *_found(AF_INET6, marks))
    return Standing(rules=rules, address=_has_address())


def remove(there: Standing, *, but: Routes = NOTHING, kept: Standing | None = None) -> bool:
    """Take away what is there, but for what is wanted, or was there before. True: there was some.

    Raises:
        Denied, Unreachable: the kernel will not have it.
    """
    kept = Standing() if kept is None else kept
    removed = False
    for rule in there.rules:
        is_wanted = (rule.mark, rule.table) == (but.mark, but.table) and (rule.family == AF_INET or but.ipv6)
        if is_wanted or rule in kept.rules:
            continue
        message = _rule(rule.family, rule.mark, rule.table, priority=rule.priority)
        _tell(f"rule {rule.text}", DELETE_RULE, message, unless=(errno.ENOENT,))
        # Another mark may lead to the same table.
        needs = but.mark is not None and but.table == rule.table and (rule.family == AF_INET or but.ipv6)
        if not needs and not any((one.family, one.table) == (rule.family, rule.table) for one in kept.rules):
            route = _route(rule.family, rule.table)
            _tell(f"route of table {rule.table}", DELETE_ROUTE, route, unless=(errno.ESRCH, errno.ENOENT))
        removed = True
    if there.address and not but.ipv6 and not kept.address:
        _tell(f"address {ENVOY}/128 on lo", DELETE_ADDRESS, _address(), unless=(errno.EADDRNOTAVAIL,))
        removed = True
    return removed


def _tell(what: str, kind: int, body: bytes, *, unless: tuple[int, ...], flags: int = 0) -> None:
    """The kernel's refusals as failures, but for the one that says that it is so already."""
    try:
        netlink.tell(kind, body, flags=flags)
    except OSError as error:
        if error.errno in unless:
            return
        refusal = Denied if error.errno in (errno.EPERM, errno.EACCES) else Unreachable
        raise refusal(f"{what}: {error.strerror}", hint=HINT) from None


def _found(family: int, marks: Collection[int]) -> list[Found]:
    """The rules that are ours: by our number, or as Istio's tool leaves them."""
    found: list[Found] = []
    for body in _listed(GET_RULE, RULE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
        header = RULE.unpack_from(body)
        numbers = {
            kind: int.from_bytes(value, sys.byteorder) for kind, value in netlink.unpack(body[RULE.size :]).items()
        }
        mark, table = numbers.get(RULE_MARK, 0), numbers.get(RULE_TABLE, header[4])
        if header[0] != family or header[7] != TO_TABLE or table in KERNELS_OWN or not mark:
            continue
        if numbers.get(RULE_MASK, WHOLE) != WHOLE or not _is_delivered(family, table):
            continue
        if numbers.get(RULE_PROTOCOL) == OURS or (mark, table) == ISTIOS or mark in marks:
            found.append(Found(family=family, mark=mark, table=table, priority=numbers.get(RULE_PRIORITY, 0)))
    return found


def _is_delivered(family: int, table: int) -> bool:
    """Whether everything that this table routes is delivered here; or nothing is left in it."""
    whole = (LOCAL, 0, _loopback().to_bytes(4, sys.byteorder))
    routes: set[tuple[int, int, bytes]] = set()
    for body in _listed(GET_ROUTE, ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
        header, attributes = ROUTE.unpack_from(body), netlink.unpack(body[ROUTE.size :])
        its_table = int.from_bytes(attributes.get(ROUTE_TABLE, bytes([header[4]])), sys.byteorder)
        if its_table == table:
            routes.add((header[7], header[1], attributes.get(ROUTE_DEVICE, b"")))
    return routes <= {whole}


def _has_address() -> bool:
    wanted = socket.inet_pton(AF_INET6, ENVOY)
    for body in _listed(GET_ADDRESS, ADDRESS.pack(AF_INET6, 0, 0, 0, 0)):
        if ADDRESS.unpack_from(body)[4] == _loopback():
            attributes = netlink.unpack(body[ADDRESS.size :])
            if wanted in (attributes.get(ADDRESS_VALUE), attributes.get(ADDRESS_LOCAL)):
                return True
    return False


def _listed(kind: int, body: bytes) -> list[bytes]:
    try:
        return netlink.ask(netlink.ROUTE, kind, body)
    except OSError:
        return []  # a family, or rules, that this kernel does not have: nothing of ours is there


def _address() -> bytes:
    value = socket.inet_pton(AF_INET6, ENVOY)
    return ADDRESS.pack(AF_INET6, 128, 0, 0, _loopback()) + netlink.pack({ADDRESS_LOCAL: value, ADDRESS_VALUE: value})


def _route(family: int, table: int, *, protocol: int = 0, scope: int = NOWHERE) -> bytes:
    """Without the last two it is any that is there."""
    header = ROUTE.pack(family, 0, 0, 0, _small(table), protocol, scope, LOCAL, 0)
    return header + netlink.pack({ROUTE_DEVICE: _number(_loopback()), ROUTE_TABLE: _number(table)})


def _rule(family: int, mark: int, table: int, *, priority: int = 0, protocol: int = 0) -> bytes:
    attributes = {RULE_MARK: _number(mark), RULE_TABLE: _number(table)}
    attributes |= {RULE_PRIORITY: _number(priority)} if priority else {}
    attributes |= {RULE_PROTOCOL: bytes([protocol])} if protocol else {}
    return RULE.pack(family, 0, 0, 0, _small(table), 0, 0, TO_TABLE, 0) + netlink.pack(attributes)


def _small(table: int) -> int:
    return table if table < 256 else BY_ATTRIBUTE


def _number(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def _loopback() -> int:
    try:
        return socket.if_nametoindex("lo")
    except OSError as error:
        raise Unreachable(f"interface lo: {error.strerror}") from None
