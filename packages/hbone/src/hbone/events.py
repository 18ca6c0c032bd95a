"""What the tunnel's core reports of the bytes that it was given; each event names its stream by number.

None is frozen: that makes one three times as dear, and a tunnel has a dozen of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hbone.flow import Flow

Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(slots=True, kw_only=True)
class StreamOpened:
    """A client asks for something (server side only); ``fields`` are all of its headers, as they came."""

    stream: int
    method: str
    path: str
    fields: Fields = field(default=(), compare=False, repr=False)  # secrets may be among them
    # Its account, which is over already when what follows has ended it.
    flow: Flow = field(default_factory=lambda: Flow(number=0, window=0, allowed=0), compare=False, repr=False)


@dataclass(slots=True, kw_only=True)
class InformationReceived:
    """The server has said something before its answer (client side only; RFC 9110 §15.2)."""

    stream: int
    status: int
    fields: Fields = field(default=(), compare=False, repr=False)


@dataclass(slots=True, kw_only=True)
class ResponseReceived:
    """The server has answered (client side only)."""

    stream: int
    status: int
    fields: Fields = field(default=(), compare=False, repr=False)


@dataclass(slots=True, kw_only=True)
class TrailersReceived:
    """Fields that the peer sends after its payload; the end of the stream follows."""

    stream: int
    fields: Fields = field(default=(), compare=False, repr=False)


class DataReceived:
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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataReceived) and (self.stream, self.data) == (other.stream, other.data)

    def __hash__(self) -> int:
        return hash((self.stream, self.data))


@dataclass(slots=True, kw_only=True)
class StreamEnded:
    """The peer has sent all it had; our own direction goes on."""

    stream: int


@dataclass(slots=True, kw_only=True)
class StreamReset:
    """The stream is over in both directions; ``code`` is an error code of RFC 9113 §7."""

    stream: int
    code: int


@dataclass(slots=True, kw_only=True)
class WindowOpened:
    """There may be room to send again: on one stream, or with ``stream`` 0 on all."""

    stream: int


@dataclass(slots=True, kw_only=True)
class LimitChanged:
    """The peer has said how many streams it takes at once."""

    streams: int


@dataclass(slots=True, kw_only=True)
class DrainRequested:
    """The peer takes no new stream on this connection; streams up to ``last`` go on (RFC 9113 §6.8)."""

    last: int
    code: int


@dataclass(slots=True, kw_only=True)
class ConnectionEnded:
    """The peer broke the protocol: the connection is over, with all its streams."""

    reason: str


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
