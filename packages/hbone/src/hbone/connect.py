"""A CONNECT as the POST that asks for the same: Envoy and Istio open tunnels so where no serverless front is."""

from __future__ import annotations

from hbone.events import StreamOpened
from hbone.urls import PREFIX

METHOD = "CONNECT"


def as_post(event: StreamOpened) -> StreamOpened:
    """The same request by POST; whatever is no CONNECT to HOST:PORT (RFC 9113 §8.5) stays what it is.

    Only the port counts: by which name or address this server is reached is nothing that it knows.
    """
    if event.method != METHOD:
        return event
    pseudo = tuple(field for field in event.fields if field[0].startswith(b":"))
    if len(pseudo) != 2 or {name for name, _ in pseudo} != {b":method", b":authority"}:
        return event  # with a scheme or a path it is malformed, with :protocol one of another kind (RFC 8441)
    authority = dict(pseudo)[b":authority"]
    host, _, port = authority.rpartition(b":")
    if not (host and port.isdigit()):
        return event
    path = f"{PREFIX}{port.decode()}"
    asked = ((b":method", b"POST"), (b":scheme", b"http"), (b":authority", authority), (b":path", path.encode()))
    return StreamOpened(
        stream=event.stream,
        method="POST",
        path=path,
        fields=(*asked, *(field for field in event.fields if field not in pseudo)),
        flow=event.flow,
    )
