"""Names of tunnels: reads what a user types, and knows what follows from it.

A ProxyCommand begins with this: so it is read by hand, and what takes long to import is imported where it is needed.
"""

from __future__ import annotations

PREFIX = "/_hbone/"
DEFAULT_PORTS = {"https": 443, "http": 80}
_WORD = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"
_IN_HOST, _IN_PATH = f"{_WORD}.-", f"{_WORD}.~/-"


class URL:
    """A tunnel: which host's, and which one of it."""

    __slots__ = ("host", "path", "port", "scheme")

    def __init__(self, *, scheme: str, host: str, port: int, path: str) -> None:
        self.scheme = scheme  # https, or http for HTTP/2 without TLS
        self.host = host
        self.port = port
        self.path = path

    @property
    def authority(self) -> str:
        """Host and port as a request names them: without the scheme's own port."""
        host = _bracketed(self.host)
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def audience(self) -> str:
        """What an ID token for this host is made for: no port, no path."""
        return f"https://{_bracketed(self.host)}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    def __repr__(self) -> str:
        return f"URL({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, URL) and self._all == other._all

    def __hash__(self) -> int:
        return hash(self._all)

    @property
    def _all(self) -> tuple[str, str, int, str]:
        return self.scheme, self.host, self.port, self.path


class Address:
    """A host and a port to dial."""

    __slots__ = ("host", "port")

    def __init__(self, *, host: str, port: int) -> None:
        self.host = host
        self.port = port

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent there stays on this machine, as far as the name says."""
        import ipaddress

        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"

    def __repr__(self) -> str:
        return f"Address({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and (self.host, self.port) == (other.host, other.port)

    def __hash__(self) -> int:
        return hash((self.host, self.port))


class Forward:
    """Where to listen, and which tunnel each connection there gets."""

    __slots__ = ("listen", "url")

    def __init__(self, *, listen: Address, url: URL) -> None:
        self.listen = listen
        self.url = url


def parse_url(text: str, *, default_path: str = "") -> URL:
    """Read ``https://HOST/_hbone/22``, ``http://HOST:PORT/_hbone/22``, ``HOST:443/_hbone/22``, or ``HOST:22``.

    The last is port 22 of the tunnel server at ``https://HOST``. A URL without a path means ``default_path``.

    Raises:
        ValueError: none of these.
    """
    if "://" not in text and "/" not in text:
        address = parse_address(text)
        return URL(scheme="https", host=address.host, port=443, path=f"{PREFIX}{address.port}")
    scheme, host, port, path = _split(text if "://" in text else f"https://{text}")
    path = default_path if path in ("", "/") and default_path else path
    if not path.startswith(PREFIX) or path == PREFIX or path.strip(_IN_PATH):
        raise ValueError(f"{text!r}: a tunnel's path is {PREFIX}PORT")
    return URL(scheme=scheme, host=_checked(host, text=text), port=port, path=path)


def parse_address(text: str) -> Address:
    """Read ``HOST:PORT`` or ``[IPv6]:PORT``.

    Raises:
        ValueError: not of that form.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets")
    if not (colon and _is_port(port)):
        raise ValueError(f"{text!r} is not HOST:PORT")
    return Address(host=_checked(host, text=text), port=int(port))


def parse_listen(text: str) -> Address:
    """Read ``PORT``, on 127.0.0.1, or ``ADDRESS:PORT``; port 0 is any that is free.

    Raises:
        ValueError: not of that form, or no IP address.
    """
    host, _, port = text.rpartition(":")
    any_port = port.isascii() and port.isdecimal() and not int(port)
    address = parse_address(f"{host or '127.0.0.1'}:{1 if any_port else port}")
    host = "127.0.0.1" if address.host == "localhost" else address.host
    import ipaddress

    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise ValueError(f"{text!r}: {host!r} is no IP address of this machine") from error
    return Address(host=host, port=0 if any_port else address.port)


def parse_forward(text: str, *, url: URL | None) -> Forward:
    """Read ``[ADDRESS:]PORT:TUNNEL``, where TUNNEL is what ``parse_url`` reads, or ``[ADDRESS:]PORT`` for ``url``.

    Raises:
        ValueError: not of that form, or there is no tunnel.
    """
    start = text.find("]") + 1 if text.startswith("[") else 0
    words = text[start:].split(":")
    # An address before the port is in brackets, or is no number.
    count = 2 if start or not (words[0].isascii() and words[0].isdecimal()) else 1
    listen, tunnel = text[:start] + ":".join(words[:count]), ":".join(words[count:])
    address = parse_listen(listen)
    if tunnel:
        return Forward(listen=address, url=parse_url(tunnel))
    if url is None or len(words) > count:
        raise ValueError(f"{text!r} names no tunnel: give [ADDRESS:]PORT:TUNNEL, or the tunnel's URL after all flags")
    return Forward(listen=address, url=url)


def _split(text: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and path, of which host and path are to be checked."""
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    end = min(at if (at := rest.find(mark)) >= 0 else len(rest) for mark in "/?#")
    place, rest = rest[:end], rest[end:]
    rest, _, fragment = rest.partition("#")
    path, _, query = rest.partition("?")
    user, is_named, place = place.rpartition("@")
    if place.startswith("["):
        host, _, port = place[1:].partition("]")
        is_split = not port or port[0] == ":"
        host, port = host if ":" in host else "", port[1:]
    else:
        host, _, port = place.partition(":")
        is_split = True
    if not is_split or (port and not (port.isascii() and port.isdecimal() and len(port) <= 9 and int(port) < 65536)):
        raise ValueError(f"{text!r}: its port is no number from 1 to 65535")
    if scheme not in DEFAULT_PORTS:
        raise ValueError(f"{text!r}: the scheme is https, or http for HTTP/2 without TLS")
    if user or is_named or query or fragment or (port and not int(port)):
        raise ValueError(f"{text!r}: a tunnel's URL is SCHEME://HOST[:PORT]{PREFIX}PORT and nothing more")
    return scheme, host, int(port) if port else DEFAULT_PORTS[scheme], path


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536


def _checked(host: str, *, text: str) -> str:
    if ":" in host:
        import ipaddress

        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError as error:
            raise ValueError(f"{text!r}: {host!r} is no IPv6 address") from error
    name = host.removesuffix(".")
    if not name or name.strip(_IN_HOST) or name[0] in ".-" or name[-1] in ".-":
        raise ValueError(f"{text!r}: {host!r} is no host name")
    return host.lower()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
