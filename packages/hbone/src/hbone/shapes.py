"""Header blocks of the few shapes that decide a stream's state, which is all that h2 is shown of headers."""

from __future__ import annotations

from hbone import blocks

# What h2 is shown in place of headers, and what it is told to send: the shape decides the stream's state.
Shape = tuple[tuple[bytes, bytes], ...]
REQUEST: Shape = ((b":method", b"GET"),)
INFORMATION: Shape = ((b":status", b"103"),)
ANSWER: Shape = ((b":status", b"200"),)
TRAILERS: Shape = ((b"t", b"t"),)
SHOWN = {shape: blocks.write(shape) for shape in (REQUEST, INFORMATION, ANSWER, TRAILERS)}
