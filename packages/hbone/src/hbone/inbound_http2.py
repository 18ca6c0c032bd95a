"""A request in one stream of an HTTP/2 connection."""

from __future__ import annotations

from collections.abc import Callable

from hbone import fields as field_rules
from hbone.events import Fields
from hbone.inbound import MAX_READY, Gone, Malformed
from hbone.message import Answer, Request
from hbone.offers import Refusal
from hbone.stream import Stream, StreamBroken, StreamStopped
from hbone.tunnel import INTERNAL_ERROR

PATIENCE = 5.0  # seconds that the rest of a request is read and dropped


class Http2Inbound:
    """The server's side of the stream."""

    def __init__(self, *, stream: Stream, request: Request) -> None:
        self.request = request
        self.trailers: Fields = ()
        self._stream = stream
        self._arrived = 0

    async def read(self) -> bytes:
        try:
            data = await self._stream.receive()
        except StreamBroken as error:
            raise Gone(str(error)) from error
        self._check(data)
        return data

    def ready(self) -> bytes | None:
        if not self._stream.peer_ended.is_set() or self._stream.arrived > MAX_READY:
            return None
        data = self._stream.take()
        for piece in (data, b"") if data else (b"",):
            self._check(piece)
        return data

    def _check(self, data: bytes) -> None:
        """Count what has come, and look at what ends it. Raises Malformed."""
        self._arrived += len(data)
        length = self.request.length
        if length is not None and (self._arrived > length or (not data and self._arrived < length)):
            raise Malformed("the body's length differs from its content-length")
        if not data:
            self.trailers = self._stream.trailers
            if not are_trailers(self.trailers):
                raise Malformed("a trailer is malformed")

    def acknowledge(self, count: int) -> None:
        self._stream.acknowledge(count)

    def when_gone(self, call: Callable[[float], None] | None) -> None:
        self._stream.gone = (lambda: call(0.0)) if call else None

    async def inform(self, answer: Answer) -> None:
        await self._stream.turn()
        self._stream.inform(_head(answer))

    async def answer(self, answer: Answer, data: bytes, *, ends: bool) -> None:
        await self._stream.turn()
        sent = self._stream.answer(_head(answer), data, ends=ends)
        if sent < len(data):
            await self.write(data[sent:])
            if ends:
                self._stream.end()

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except (StreamBroken, StreamStopped) as error:
            raise Gone(str(error)) from error

    async def end(self, trailers: Fields) -> None:
        self._stream.end(field_rules.lowered(trailers))

    def abort(self) -> None:
        self._stream.gone = None
        self._stream.reset(INTERNAL_ERROR)

    async def refuse(self, refusal: Refusal) -> None:
        await self._stream.turn()
        text = "" if self.request.method == b"HEAD" else refusal.text
        self._stream.respond(refusal.status, text, headers=refusal.headers)

    async def finish(self) -> None:
        self._stream.gone = None
        if not self._stream.peer_ended.is_set():
            await self._stream.discard(seconds=PATIENCE)


def are_trailers(fields: Fields) -> bool:
    """Whether they are well formed for HTTP/2: small letters, and no pseudo-headers."""
    return all(name == name.lower() for name, _ in fields) and field_rules.are_well_formed(fields)


def _head(answer: Answer) -> Fields:
    return ((b":status", b"%d" % answer.status), *field_rules.lowered(answer.fields))
