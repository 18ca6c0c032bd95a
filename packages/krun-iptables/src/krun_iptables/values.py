"""One text to one value, or to the failure that names the flag or the variable, and the entry."""

from __future__ import annotations

from krun_iptables import network as ranges
from krun_iptables.choice import wrong
from krun_iptables.settings import is_loopback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from krun_iptables.arguments import Given
    from krun_iptables.network import Network

EVERYTHING = "*"
LARGEST_PORT = 65535
# The kernel's own bound: the last one means "no id".
LARGEST_ID = 2**32 - 2
LONGEST_LENGTH = 3  # digits of a range's length
LONGEST_NAME = 15  # of an interface, IFNAMSIZ - 1
SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
PORTS_HINT = "ports from 1 to 65535 by comma, as 8080,8081"
RANGES_HINT = "ranges by comma, as 10.0.0.0/8,2001:db8::/32"


def entries(text: str) -> list[str]:
    """Split at commas; empty entries are left out, as Istio leaves them, and blanks around one are nothing."""
    return [entry for part in text.split(",") if (entry := part.strip())]


def number(given: Given, text: str, *, most: int, least: int = 1, what: str, hint: str) -> int:
    """Read a decimal number. With a nought in front iptables would read an octal one."""
    # isdecimal takes digits of other scripts too, which int() reads and iptables does not.
    is_plain = text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and str(int(text)) == text
    if not is_plain or not least <= int(text) <= most:
        raise wrong(given, f"is no {what}", hint=hint, entry=text)
    return int(text)


def port(given: Given) -> int:
    """Read one port."""
    return number(given, given.text.strip(), most=LARGEST_PORT, what="port", hint="a port from 1 to 65535")


def ports(given: Given, *, star: bool = False) -> tuple[int, ...]:
    """Read ports by comma; ``star`` where a star alone means all of them."""
    hint = PORTS_HINT + ("; * alone is every port" if star else "")
    found = entries(given.text)
    return tuple(number(given, entry, most=LARGEST_PORT, what="port", hint=hint) for entry in found)


def networks(given: Given, *, hint: str = RANGES_HINT) -> tuple[Network, ...]:
    """Read ranges by comma."""
    return tuple(network(given, entry, hint=hint) for entry in entries(given.text))


def names_loopback(text: str) -> bool:
    """Tell whether a range of this list is written with an address of loopback, which Istio goes by."""
    return any(is_loopback(ranges.address(entry.partition("/")[0])) for entry in entries(text))


def network(given: Given, text: str, *, hint: str = RANGES_HINT) -> Network:
    """Read one range, written as ADDRESS/LENGTH; by krun's names no bit may be set behind the length."""
    address, slash, length = text.partition("/")
    is_length = length.isdecimal() and len(length) <= LONGEST_LENGTH and str(int(length)) == length
    if not slash or not address or not is_length or "%" in address:
        raise wrong(given, "is no range: ADDRESS/LENGTH is one", hint=hint, entry=text)
    try:
        found = ranges.network(text)
    except ValueError as error:
        raise wrong(given, f"is no range: {error}", hint=hint, entry=text) from None
    # What Istio's tool takes here, iptables and nft mask.
    if given.is_own and ranges.address(address) != found.network_address:
        raise wrong(given, f"is no range: it has bits behind its length, {found} has none", hint=hint, entry=text)
    return found


def loopback(given: Given) -> Network:
    """Read the range that is loopback (Istio's ValidateIPv4LoopbackCidr)."""
    hint = "a range within 127.0.0.0/8, as 127.0.0.1/32"
    text = given.text.strip()
    found = network(given, text, hint=hint)
    if found.version == 6 or found.prefixlen < 8 or not is_loopback(found.network_address):
        raise wrong(given, "is not within 127.0.0.0/8", hint=hint, entry=text)
    return found


def owners(given: Given, *, find: Callable[[str], int | None], what: str) -> tuple[str, ...]:
    """Read users or groups by comma: numbers, or names that this machine has."""
    hint = f"numbers, or names of {what}s that are there, by comma"
    return tuple(_owner(given, entry, find=find, what=what, hint=hint) for entry in entries(given.text))


def _owner(given: Given, text: str, *, find: Callable[[str], int | None], what: str, hint: str) -> str:
    if text.isascii() and text.isdecimal():
        return str(number(given, text, least=0, most=LARGEST_ID, what=f"{what}'s number", hint=hint))
    # What no name can be would be read otherwise by iptables or nft: 1-5, "a b", -x.
    if not _is_word(text, also="._-$@") or text.startswith("-") or text[0].isdigit() or find(text) is None:
        raise wrong(given, f"is no {what} of this machine", hint=hint, entry=text)
    return text


def interfaces(given: Given) -> tuple[str, ...]:
    """Read names of interfaces by comma; a plus at the end is every name that begins so, as iptables has it."""
    hint = f"names by comma, as eth0,eth1, of {LONGEST_NAME} signs at most"
    found = entries(given.text)
    for name in found:
        stem = name.removesuffix("+")
        if len(name) > LONGEST_NAME or not _is_word(stem, also="._-@:~%=") or name.startswith("-"):
            raise wrong(given, "is no interface's name", hint=hint, entry=name)
    return tuple(found)


def _is_word(text: str, *, also: str) -> bool:
    return text.isascii() and bool(text) and all(sign.isalnum() or sign in also for sign in text)


def one_of(given: Given, values: Iterable[str]) -> str:
    """Read a word."""
    known = list(values)
    if given.text not in known:
        raise wrong(given, f"is not one of {', '.join(filter(None, known))}", hint="letters count as they are")
    return given.text


def seconds(given: Given) -> float:
    """Read a time as Go writes it, 1m30s, into seconds."""
    rest, total = given.text.strip(), 0.0
    while rest:
        amount = _leading(rest, "0123456789.")
        unit = _leading(rest[len(amount) :], "hmsunµμ")
        # 5ms is not 5 m and s: units end where the next number begins.
        if unit not in SECONDS or not amount.replace(".", "", 1).isdecimal():
            total = 0.0
            break
        total += float(amount) * SECONDS[unit]
        rest = rest[len(amount) + len(unit) :]
    if not 0 < total <= 3600:
        raise wrong(given, "is no time up to an hour", hint="a number with its unit, as 5s, 500ms or 1m30s")
    return total


def _leading(text: str, signs: str) -> str:
    return text[: len(text) - len(text.lstrip(signs))]
