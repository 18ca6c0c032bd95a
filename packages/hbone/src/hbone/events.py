"""What the tunnel's core reports of the bytes that it was given; each event names its stream by number.

Plain classes: to make one of a frozen dataclass is three times as dear, and a tunnel has a dozen of them; and a
ProxyCommand waits for the import of what makes dataclasses.
"""

from __future__ import annotations

from hbone.flow import Flow

Fields = tuple[tuple[bytes, bytes], ...]


class _Event:
    """Equal when all else than headers and accounts is, and shown without them: there may be secrets in headers."""

    __slots__ = ()

    def _shown(self) -> dict[str, object]:
        slots: tuple[str, ...] = self.__slots__
        return {name: getattr(self, name) for name in slots if name not in ("fields", "flow")}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Event) and type(self) is type(other) and self._shown() == other._shown()

    def __hash__(self) -> int:
        return hash(tuple(self._shown().values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._shown().items())})"


class StreamOpened(_Event):
    """A client asks for something (server side only); ``fields`` are all of its headers, as they came."""

    __slots__ = ("fields", "flow", "method", "path", "stream")

    def __init__(self, *, stream: int, method: str, path: str, fields: Fields = (), flow: Flow | None = None) -> None:
        self.stream = stream
        self.method = method
        self.path = path
        self.fields = fields
        # Its account, which is over already when what follows has ended it.
        self.flow = Flow(number=0, window=0, allowed=0) if flow is None else flow


class InformationReceived(_Event):
    """The server has said something before its answer (client side only; RFC 9110 §15.2)."""

    __slots__ = ("fields", "status", "stream")

    def __init__(self, *, stream: int, status: int, fields: Fields = ()) -> None:
        self.stream = stream
        self.status = status
        self.fields = fields


class ResponseReceived(_Event):
    """The server has answered (client side only)."""

    __slots__ = ("fields", "status", "stream")

    def __init__(self, *, stream: int, status: int, fields: Fields = ()) -> None:
        self.stream = stream
        self.status = status
        self.fields = fields


class TrailersReceived(_Event):
    """Fields that the peer sends after its payload; the end of the stream follows."""

    __slots__ = ("fields", "stream")

    def __init__(self, *, stream: int, fields: Fields = ()) -> None:
        self.stream = stream
        self.fields = fields


class DataReceived(_Event):
    """Payload, in the pieces that it came in; the stream's window stays smaller by its length until it is acknowledged.

    The memory is used again for what is received next: who keeps any of it makes a copy.
    """

    __slots__ = ("pieces", "stream")

    def __init__(self, *, stream: int, pieces: list[memoryview]) -> None:
        self.stream = stream
        self.pieces = pieces

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    def _shown(self) -> dict[str, object]:
        return {"stream": self.stream, "data": self.data}


class StreamEnded(_Event):
    """The peer has sent all it had; our own direction goes on."""

    __slots__ = ("stream",)

    def __init__(self, *, stream: int) -> None:
        self.stream = stream


class StreamReset(_Event):
    """The stream is over in both directions; ``code`` is an error code of RFC 9113 §7."""

    __slots__ = ("code", "stream")

    def __init__(self, *, stream: int, code: int) -> None:
        self.stream = stream
        self.code = code


class WindowOpened(_Event):
    """There may be room to send again: on one stream, or with ``stream`` 0 on all."""

    __slots__ = ("stream",)

    def __init__(self, *, stream: int) -> None:
        self.stream = stream


class LimitChanged(_Event):
    """The peer has said how many streams it takes at once."""

    __slots__ = ("streams",)

    def __init__(self, *, streams: int) -> None:
        self.streams = streams


class DrainRequested(_Event):
    """The peer takes no new stream on this connection; streams up to ``last`` go on (RFC 9113 §6.8)."""

    __slots__ = ("code", "last")

    def __init__(self, *, last: int, code: int) -> None:
        self.last = last
        self.code = code


class ConnectionEnded(_Event):
    """The peer broke the protocol: the connection is over, with all its streams."""

    __slots__ = ("reason",)

    def __init__(self, *, reason: str) -> None:
        self.reason = reason


Event = (
    StreamOpened
    | InformationReceived
    | ResponseReceived
    | TrailersReceived
    | DataReceived
    | StreamEnded
    | StreamReset
    | WindowOpened
    | LimitChanged
    | DrainRequested
    | ConnectionEnded
)
