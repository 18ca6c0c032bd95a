"""The tunnel's core beside the library h2: the same frames, and the same verdict, but for differences with reasons."""

from __future__ import annotations

import itertools
import os
import random
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import h2.config
import h2.connection
import h2.exceptions

from hbone.tunnel import Connection
from krun_testbed import tables
from krun_testbed.scripted import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    field,
    frame,
    reset,
)

SEQUENCES = 100_000 if os.environ.get("KRUN_SOAK") else 1_000
PROTOCOL, FRAME_SIZE, STREAM_CLOSED, COMPRESSION = 1, 6, 5, 9
HEAD = field(b":method", b"POST") + field(b":scheme", b"http") + field(b":path", b"/x") + field(b":authority", b"b")
OPEN, ENDED, RESET, NEW, SERVERS = 1, 3, 5, 7, 2  # streams
BEFORE = (
    PREFACE
    + frame(SETTINGS)
    + frame(HEADERS, stream=OPEN, payload=HEAD, flags=END_HEADERS)
    + frame(HEADERS, stream=ENDED, payload=HEAD, flags=END_HEADERS | END_STREAM)
    + frame(HEADERS, stream=RESET, payload=HEAD, flags=END_HEADERS)
    + reset(RESET, 8)
)
LATER = frame(PING, payload=bytes(8))
ZERO = bytes(4)
PAYLOADS = (
    b"", b"\0", ZERO, struct.pack(">I", 1), struct.pack(">I", 2**31 - 1), bytes(5), bytes(6), bytes(8), HEAD,
    field(b"x", b"y"), b"\xff" * 5,
)  # fmt: skip
KINDS = (*range(10), 0xFA)
FLAGS = (0, END_STREAM, END_HEADERS, END_HEADERS | END_STREAM, PADDED, 0x20)
Verdict = tuple[str, int]  # "ok", "stream" or "connection", and an error code


def all_frames() -> Iterable[bytes]:
    for kind, stream, flags, payload in itertools.product(
        KINDS, (0, OPEN, SERVERS, ENDED, RESET, NEW), FLAGS, PAYLOADS
    ):
        yield frame(kind, stream=stream, flags=flags, payload=payload)


def verdict(said: bytes) -> Verdict:
    """What the frames say that answer."""
    found: Verdict = ("ok", 0)
    while said:
        end = 9 + int.from_bytes(said[:3], "big")
        if said[3] == GOAWAY:
            return "connection", int.from_bytes(said[13:17], "big")
        if said[3] == RST_STREAM and found[0] == "ok":
            found = "stream", int.from_bytes(said[9:13], "big")
        said = said[end:]
    return found


class Ours:
    def __init__(self) -> None:
        self._core = Connection(client=False)
        self.take(BEFORE)

    def take(self, data: bytes) -> Verdict:
        self._core.receive(data)
        return verdict(self._core.data_to_send())


class Theirs:
    def __init__(self) -> None:
        self._core = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._core.initiate_connection()
        self.take(BEFORE)

    def take(self, data: bytes) -> Verdict:
        try:
            self._core.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            # Of some faults it says only to its caller that the connection is over.
            found = verdict(self._core.data_to_send())
            return found if found[0] == "connection" else ("connection", int(error.error_code))
        return verdict(self._core.data_to_send())


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A frame that is judged in two ways."""

    frame: bytes
    ours: Verdict
    theirs: Verdict
    has_goodbye: bool  # a GOAWAY came before it

    @property
    def kind(self) -> int:
        return self.frame[3]

    @property
    def flags(self) -> int:
        return self.frame[4]

    @property
    def stream(self) -> int:
        return int.from_bytes(self.frame[5:9], "big")

    @property
    def payload(self) -> bytes:
        return self.frame[9:]


# By their names in docs/http2.md.
ALLOWED: dict[str, Callable[[Difference], bool]] = {
    "headers that cannot be unpacked": lambda it: (
        it.kind in (HEADERS, CONTINUATION) and it.ours == ("connection", COMPRESSION)
    ),
    "a promise of a client's": lambda it: it.kind == PUSH_PROMISE and it.ours == ("connection", PROTOCOL),
    "two faults in one frame": lambda it: (
        {it.ours[1], it.theirs[1]} <= {PROTOCOL, FRAME_SIZE, STREAM_CLOSED}
        and it.ours[0] == it.theirs[0] == "connection"
    ),
    "what follows a goodbye": lambda it: it.has_goodbye and it.theirs == ("connection", PROTOCOL),
    "an acknowledgement with settings": lambda it: it.kind == SETTINGS and it.ours == ("connection", FRAME_SIZE),
    "what headers say": lambda it: (
        it.kind in (HEADERS, CONTINUATION)
        and it.ours[0] == "ok"
        and it.theirs == ("connection", PROTOCOL)
        and bool(it.flags & END_HEADERS)
    ),
    "trailers without an end": lambda it: (
        it.kind in (HEADERS, CONTINUATION) and it.ours == ("stream", PROTOCOL) and it.theirs == ("connection", PROTOCOL)
    ),
    "headers of a stream that is over": lambda it: (
        it.kind in (HEADERS, CONTINUATION)
        and it.ours in (("connection", STREAM_CLOSED), ("stream", STREAM_CLOSED), ("ok", 0))
        and STREAM_CLOSED in (it.ours[1], it.theirs[1])
    ),
    "a continuation of another stream": lambda it: it.kind == CONTINUATION and it.ours == ("connection", PROTOCOL),
    "payload of a stream that was reset": lambda it: (
        it.kind == DATA and it.ours == ("ok", 0) and it.theirs == ("stream", STREAM_CLOSED)
    ),
    "a reset of a stream that never was": lambda it: (
        it.kind == RST_STREAM and it.ours == ("connection", PROTOCOL) and it.theirs == ("ok", 0)
    ),
    "a window that grows by nothing": lambda it: it.kind == WINDOW_UPDATE and it.payload == ZERO and it.stream > 0,
}

# And not of one frame alone.
IN_SEQUENCES = {"a continuation of another stream", "payload of a stream that was reset"}


def compare(frames: Sequence[bytes]) -> Difference | None:
    """The first of the frames that is judged otherwise."""
    ours, theirs = Ours(), Theirs()
    has_goodbye = False
    for one in frames:
        found, expected = ours.take(one), theirs.take(one)
        if found != expected:
            return Difference(frame=one, ours=found, theirs=expected, has_goodbye=has_goodbye)
        if found[0] == "connection":
            return None
        has_goodbye = has_goodbye or one[3] == GOAWAY
    return None


def reasons(difference: Difference) -> list[str]:
    return [name for name, allows in ALLOWED.items() if allows(difference)]


def test_every_frame_is_judged_as_h2_judges_it_but_for_the_differences_that_are_listed() -> None:
    seen: set[str] = set()
    odd: list[Difference] = []
    for one in all_frames():
        difference = compare((one, LATER))
        if difference is not None:
            found = reasons(difference)
            seen.update(found)
            odd += [] if found else [difference]
    assert odd == []
    assert seen == set(ALLOWED) - IN_SEQUENCES, "listed, and there is no such difference"


def test_sequences_of_frames_are_judged_as_h2_judges_them() -> None:
    frames = list(all_frames())
    # Most frames end a connection: more of those after which there is something to be judged.
    harmless = [one for one in frames if Ours().take(one)[0] != "connection"]
    for seed in range(SEQUENCES):
        chance = random.Random(seed)
        chosen = [chance.choice(harmless) for _ in range(chance.randint(1, 4))] + [chance.choice(frames), LATER]
        difference = compare(chosen)
        assert difference is None or reasons(difference), (seed, difference)


def test_list_in_the_docs_is_this_one_and_has_reasons() -> None:
    text = (tables.ROOT / "docs" / "http2.md").read_text(encoding="utf-8").partition("## The library h2")[2]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", text.partition("\n## ")[0], re.MULTILINE)
    assert {row[0] for row in rows[1:]} - {"---"} == set(ALLOWED)
    assert all(row[3].strip() for row in rows)
