"""Peers of hboned's public side that are not ours: raw HTTP/1.1, HTTP/2 frames written by hand, curl."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from krun_testbed import components, processes, recorder
from krun_testbed.processes import Running
from krun_testbed.tunnels import connect, server

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Fields = list[tuple[bytes, bytes]]
WINDOW = 2**30
FRAME = 16384  # bytes of data in one frame, RFC 9113 §4.2


@contextlib.contextmanager
def app(address: str, *, port: int = 8080) -> Iterator[Running]:
    """The recording application, in an interpreter without any of our packages."""
    argv = [sys.executable, "-I", str(Path(recorder.__file__)), "--address", address, "--port", str(port)]
    with processes.start(argv) as running:
        running.wait_for("recorder: ready")
        yield running


@contextlib.contextmanager
def served(address: str, *flags: str, port: int = 15009, **variables: str) -> Iterator[tuple[Running, Running]]:
    """hboned with the public, and the recording application behind it."""
    with app(address) as recording, server(address, "--public", "app", *flags, port=port, **variables) as hboned:
        yield hboned, recording


def notes(recording: Running) -> list[dict[str, object]]:
    """What the application has noted so far."""
    return [json.loads(line) for line in recording.stdout.splitlines()]


def http1(address: str, data: bytes, *, port: int = 15009) -> bytes:
    """Send these bytes, and read all that is answered."""
    with connect(address, port) as connected:
        connected.sendall(data)
        connected.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connected.recv(65536), b""))


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def curl(*argv: str, data: bytes = b"", timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
    program = components.program("curl", package="curl")
    return subprocess.run(
        [program, "-sS", "--max-time", str(timeout), "--path-as-is", *argv],
        input=data,
        capture_output=True,
        timeout=timeout + 20,
        check=False,
    )


@dataclass(kw_only=True)
class Answered:
    """What has come of one stream's answer."""

    informations: list[Fields] = field(default_factory=list)
    headers: Fields = field(default_factory=list)
    data: bytes = b""
    trailers: Fields = field(default_factory=list)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(dict(self.headers)[b":status"])

    @property
    def is_over(self) -> bool:
        return self.ended or self.reset is not None


class Http2:
    """An HTTP/2 client out of frames: it sends whatever it is told to, also what no library would."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.answers: dict[int, Answered] = {}
        self.goaway: int | None = None
        self.is_closed = False
        self._next = 1
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder(max_header_list_size=2**20)
        self._buffer = b""
        settings = SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: WINDOW})
        self.socket.sendall(PREFACE)
        self.send(settings, WindowUpdateFrame(0, window_increment=WINDOW))

    def send(self, *frames: Frame) -> None:
        self.socket.sendall(b"".join(frame.serialize() for frame in frames))

    def request(
        self, fields: Iterable[tuple[bytes, bytes]], *, body: bytes | None = None, end: bool = True, size: int = FRAME
    ) -> int:
        """Ask; without a body the head is the end. ``size``: bytes of the head in one frame.

        The head and a body of one frame are sent together: what must be seen at once must come at once.
        """
        stream = self._next
        self._next += 2
        self.answers[stream] = Answered()
        block = self._encoder.encode(list(fields), huffman=False)
        pieces = [block[start : start + size] for start in range(0, len(block), size)]
        frames: list[HeadersFrame | ContinuationFrame] = [HeadersFrame(stream, pieces[0])]
        frames += [ContinuationFrame(stream, piece) for piece in pieces[1:]]
        if body is None and end:
            frames[0].flags.add("END_STREAM")
        frames[-1].flags.add("END_HEADERS")
        if body is None or len(body) > FRAME:
            self.send(*frames)
        else:
            self.send(*frames, DataFrame(stream, body, flags=["END_STREAM"] if end else []))
        if body is not None and len(body) > FRAME:
            self.data(stream, body, end=end)
        return stream

    def written(self, fields: Iterable[tuple[bytes, bytes]], *, then_reset: bool) -> bytes:
        """The frames of a small request, not sent yet; with the reset that takes it back."""
        stream = self._next
        self._next += 2
        self.answers[stream] = Answered()
        block = self._encoder.encode(list(fields), huffman=False)
        frames: list[Frame] = [HeadersFrame(stream, block, flags=["END_STREAM", "END_HEADERS"])]
        frames += [RstStreamFrame(stream, error_code=8)] if then_reset else []
        return b"".join(frame.serialize() for frame in frames)

    def request_in_one_piece(
        self, fields: Iterable[tuple[bytes, bytes]], trailers: Iterable[tuple[bytes, bytes]]
    ) -> int:
        """Ask, with trailers right after the head and no body between, so that both arrive together."""
        stream = self._next
        self._next += 2
        self.answers[stream] = Answered()
        first = HeadersFrame(stream, self._encoder.encode(list(fields), huffman=False), flags=["END_HEADERS"])
        block = self._encoder.encode(list(trailers), huffman=False)
        self.send(first, HeadersFrame(stream, block, flags=["END_STREAM", "END_HEADERS"]))
        return stream

    def data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        pieces = [data[start : start + FRAME] for start in range(0, len(data), FRAME)] or [b""]
        for number, piece in enumerate(pieces, start=1):
            self.send(DataFrame(stream, piece, flags=["END_STREAM"] if end and number == len(pieces) else []))

    def trailers(self, stream: int, fields: Iterable[tuple[bytes, bytes]], *, end: bool = True) -> None:
        flags = ["END_HEADERS", *(["END_STREAM"] if end else [])]
        self.send(HeadersFrame(stream, self._encoder.encode(list(fields)), flags=flags))

    def reset(self, stream: int, code: int = 8) -> None:
        self.send(RstStreamFrame(stream, error_code=code))

    def wait(self, stream: int) -> Answered:
        """The stream's answer, when it is over."""
        while not self.answers[stream].is_over:
            self.step()
        return self.answers[stream]

    def wait_for_head(self, stream: int) -> Answered:
        while not self.answers[stream].headers and not self.answers[stream].is_over:
            self.step()
        return self.answers[stream]

    def wait_for_goaway(self) -> int:
        while self.goaway is None:
            self.step()
        return self.goaway

    def step(self) -> None:
        """Read once, and take what has come."""
        data = self.socket.recv(65536)
        assert data, f"the connection ended; GOAWAY {self.goaway}"
        self._buffer += data
        while len(self._buffer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._buffer[:9]))
            if len(self._buffer) < 9 + length:
                return
            frame.parse_body(memoryview(self._buffer[9 : 9 + length]))
            self._buffer = self._buffer[9 + length :]
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        match frame:
            case SettingsFrame() if "ACK" not in frame.flags:
                self.send(SettingsFrame(0, flags=["ACK"]))
            case PingFrame() if "ACK" not in frame.flags:
                self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
            case HeadersFrame():
                self._head(self.answers[frame.stream_id], frame)
            case DataFrame():
                answered = self.answers[frame.stream_id]
                answered.data += frame.data
                answered.ended = "END_STREAM" in frame.flags
                if frame.data:
                    self.send(WindowUpdateFrame(0, window_increment=len(frame.data)))
            case RstStreamFrame():
                self.answers[frame.stream_id].reset = frame.error_code
            case GoAwayFrame():
                self.goaway = frame.error_code

    def _head(self, answered: Answered, frame: HeadersFrame) -> None:
        fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(frame.data, raw=True)]
        if answered.headers:
            answered.trailers = fields
        elif dict(fields)[b":status"].startswith(b"1"):
            answered.informations.append(fields)
        else:
            answered.headers = fields
        answered.ended = answered.ended or "END_STREAM" in frame.flags


def head(
    path: bytes = b"/", method: bytes = b"GET", *more: tuple[bytes, bytes], authority: bytes = b"a.example"
) -> Fields:
    """An HTTP/2 request's fields."""
    return [(b":method", method), (b":scheme", b"http"), (b":authority", authority), (b":path", path), *more]
