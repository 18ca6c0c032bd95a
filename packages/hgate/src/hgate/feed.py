"""What the control process and its workers tell each other: one JSON object a line over a socketpair, as messages.

Both ends are this package, but a worker that is being replaced may be older than what feeds it: a message of a kind
that is not known, or a field too many, is no fault.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hgate.routes import Identity, Key, Route

MAX_LINE = 4 * 1024 * 1024  # bytes: no end is a peer gone mad
ROUTES_A_LINE = 500


class FeedError(Exception):
    """The other end said something that is no message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """To a worker, first: how it serves."""

    hello_timeout: float = 10.0
    ca_file: str = ""
    connect_to: str = ""
    token_header: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Routes:
    """To a worker: routes that are new or other than before, and those that are gone; ``reset`` forgets all first."""

    reset: bool = False
    set: tuple[Route, ...] = ()
    remove: tuple[Key, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """To a worker: an ID token, until when it is good, and whose it is, for messages."""

    identity: Identity
    token: str = field(repr=False)
    expires: float
    email: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoToken:
    """To a worker: there is no ID token for it now, and why."""

    identity: Identity
    error: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """To a worker: see whether somebody waits to be accepted; who was to be woken for it may have died."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drain:
    """To a worker: take no new connection, and end when those that are open have ended; ``now``: end them."""

    now: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """From a worker: it accepts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """From a worker: a connection waits for this token; ``refused``: the one that it has was not accepted."""

    identity: Identity
    refused: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """From a worker: its numbers so far, when one has changed."""

    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Well:
    """From a worker, when it has nothing else to say for a while: it does not hang."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drained:
    """From a worker: the last connection has ended."""


Message = Settings | Routes | Token | NoToken | Look | Drain | Ready | Need | Counts | Well | Drained


def encode(message: Message) -> bytes:
    """A message as its line."""
    return json.dumps(_ENCODERS[type(message)](message), separators=(",", ":")).encode() + b"\n"


def lines(message: Message) -> Iterator[bytes]:
    """The same, but many routes as several lines, so that a worker serves between them."""
    if not isinstance(message, Routes) or len(message.set) <= ROUTES_A_LINE:
        yield encode(message)
        return
    first, rest = message.set[:ROUTES_A_LINE], message.set[ROUTES_A_LINE:]
    yield encode(Routes(reset=message.reset, set=first, remove=message.remove))
    for start in range(0, len(rest), ROUTES_A_LINE):
        yield encode(Routes(set=rest[start : start + ROUTES_A_LINE]))


class Decoder:
    """Fed with pieces as they come; gives messages."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take the next bytes; give the messages that are whole now.

        Raises:
            FeedError: a line that is too long, or no message.
        """
        self._rest += data
        *lines, rest = self._rest.split(b"\n")
        self._rest = bytearray(rest)
        if len(rest) > MAX_LINE:
            raise FeedError(f"a line of more than {MAX_LINE} bytes")
        for line in lines:
            message = decode(bytes(line))
            if message is not None:
                yield message


def decode(line: bytes) -> Message | None:
    """A line's message; ``None`` when its kind is not known.

    Raises:
        FeedError: it is none.
    """
    try:
        values = json.loads(line)
        decoder = _DECODERS.get(values["kind"])
        return decoder(values) if decoder else None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        # What the line holds may be a token: it is not shown.
        raise FeedError(f"a line of {len(line)} bytes is no message: {type(error).__name__}") from None


def _identity_out(identity: Identity | None) -> dict[str, str] | None:
    return None if identity is None else {"audience": identity.audience, "account": identity.account}


def _identity_in(values: Mapping[str, Any]) -> Identity:
    return Identity(audience=str(values["audience"]), account=str(values.get("account") or ""))


def _route_out(route: Route) -> list[object]:
    return [*route.key, route.url, _identity_out(route.identity)]


def _route_in(values: list[Any]) -> Route:
    service, namespace, port, subset, url, identity = values[:6]
    return Route(
        service=str(service),
        namespace=str(namespace),
        port=int(port),
        subset=str(subset),
        url=str(url),
        identity=_identity_in(identity) if identity else None,
    )


def _routes_in(values: Mapping[str, Any]) -> Routes:
    removed = tuple((str(key[0]), str(key[1]), int(key[2]), str(key[3])) for key in values.get("remove", ()))
    given = tuple(_route_in(route) for route in values.get("set", ()))
    return Routes(reset=bool(values.get("reset")), set=given, remove=removed)


def _token_in(values: Mapping[str, Any]) -> Token | NoToken:
    identity = _identity_in(values)
    if "error" in values:
        return NoToken(identity=identity, error=str(values["error"]), hint=str(values.get("hint", "")))
    return Token(
        identity=identity,
        token=str(values["token"]),
        expires=float(values["expires"]),
        email=str(values.get("email", "")),
    )


def _settings_in(values: Mapping[str, Any]) -> Settings:
    return Settings(
        hello_timeout=float(values["hello_timeout"]),
        ca_file=str(values["ca_file"]),
        connect_to=str(values["connect_to"]),
        token_header=str(values["token_header"]),
    )


_ENCODERS: dict[type[Any], Callable[[Any], dict[str, object]]] = {
    Settings: lambda it: {
        "kind": "settings",
        "hello_timeout": it.hello_timeout,
        "ca_file": it.ca_file,
        "connect_to": it.connect_to,
        "token_header": it.token_header,
    },
    Routes: lambda it: {
        "kind": "routes",
        "reset": it.reset,
        "set": [_route_out(route) for route in it.set],
        "remove": [list(key) for key in it.remove],
    },
    Token: lambda it: {
        "kind": "token",
        "audience": it.identity.audience,
        "account": it.identity.account,
        "token": it.token,
        "expires": it.expires,
        "email": it.email,
    },
    NoToken: lambda it: {
        "kind": "token",
        "audience": it.identity.audience,
        "account": it.identity.account,
        "error": it.error,
        "hint": it.hint,
    },
    Look: lambda _: {"kind": "look"},
    Drain: lambda it: {"kind": "drain", "now": it.now},
    Ready: lambda _: {"kind": "ready"},
    Need: lambda it: {
        "kind": "need",
        "audience": it.identity.audience,
        "account": it.identity.account,
        "refused": it.refused,
    },
    Counts: lambda it: {"kind": "counts", "values": dict(it.values)},
    Well: lambda _: {"kind": "well"},
    Drained: lambda _: {"kind": "drained"},
}

_DECODERS: dict[str, Callable[[Mapping[str, Any]], Message]] = {
    "settings": _settings_in,
    "routes": _routes_in,
    "token": _token_in,
    "look": lambda _: Look(),
    "drain": lambda values: Drain(now=bool(values.get("now"))),
    "ready": lambda _: Ready(),
    "need": lambda values: Need(identity=_identity_in(values), refused=bool(values.get("refused"))),
    "counts": lambda values: Counts(values={str(key): float(value) for key, value in values["values"].items()}),
    "well": lambda _: Well(),
    "drained": lambda _: Drained(),
}
