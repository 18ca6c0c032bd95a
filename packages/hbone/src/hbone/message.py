"""Requests and answers as they go to the application and come from it, whatever version of HTTP carries them."""

from __future__ import annotations

from dataclasses import dataclass

from hbone.events import Fields


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request that is in order; its fields are without those that say how it is framed, or for one hop only."""

    method: bytes
    path: bytes  # as it came, with its query
    authority: bytes
    scheme: bytes = b"http"
    fields: Fields = ()
    length: int | None = None  # of the body, when that is known before
    has_body: bool = False
    has_trailers: bool = False  # it announces some
    takes_trailers: bool = False
    is_websocket: bool = False
    is_grpc: bool = False
    version: str = "2"
    is_last: bool = False  # of its HTTP/1.1 connection

    @property
    def can_repeat(self) -> bool:
        """Whether sending it twice does no more than sending it once (RFC 9110 §9.2.2), and it is all here."""
        return self.method in REPEATABLE and not self.has_body


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer's head, or an information before it; fields as the application wrote them, but those for one hop."""

    status: int
    fields: Fields = ()
    reason: bytes = b""
    ends: bool = False  # nothing follows at all
    length: int | None = None
    has_trailers: bool = False

    @property
    def is_information(self) -> bool:
        return self.status < 200

    def has_body(self, method: bytes) -> bool:
        """Whether an answer of this status has a body, however short (RFC 9110 §6.4.1)."""
        return method != b"HEAD" and self.status not in (204, 304)


REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
