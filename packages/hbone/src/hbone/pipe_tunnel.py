"""One tunnel over a connection of its own: the core, the wire, and stdin and stdout, in a loop without asyncio.

A ProxyCommand is started for each ssh, and waits for nothing that a single tunnel does not need.
"""

from __future__ import annotations

import time

from hbone import events, readiness
from hbone.stdio import Stdio
from hbone.tunnel import CANCEL, CONNECT_ERROR, ENHANCE_YOUR_CALM, PROTOCOL_ERROR, REFUSED_STREAM, Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from hbone.conduct import Conduct
    from hbone.pipe_wire import Deadline, Wire

GOODBYE = 1.0  # seconds for the last bytes to leave
# Answers to PING and SETTINGS that a peer leaves unread; payload is sent only when there is none.
MAX_BACKLOG = 1024 * 1024
# Of a refusal, and no more of it.
MAX_TEXT = 200
# Seconds of silence after which headers are read that were put off, and what reads them is imported.
QUIET = 0.05
FEW = 100  # frames that carry nothing, which need no judge
BROKE = "the connection broke the protocol"
OK = 200


class Broken(Exception):
    """The tunnel is over before its end; ``is_safe`` says that the peer has surely done nothing with it."""

    def __init__(self, reason: str, *, is_safe: bool = False) -> None:
        super().__init__(reason)
        self.is_safe = is_safe


class StdioBroken(Exception):
    """stdin or stdout failed."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))


class PipeTunnel:
    """The connection, and the one stream that is asked for in it at a time."""

    def __init__(
        self, wire: Wire, *, scheme: str, authority: str, path: str, headers: Sequence[tuple[str, str]]
    ) -> None:
        self.status = 0
        self.text = b""  # what a refusal says
        self._wire = wire
        self._core = Connection(client=True)
        self._conduct: Conduct | None = None
        self._request = (scheme, authority, path, headers)
        self._stream = 0
        self._is_ended = False  # by the peer
        self._broken: Broken | None = None
        self._to_stdout = bytearray()
        self._writing = 0  # bytes of it that are with stdout's thread
        self._from_stdin = memoryview(b"")
        self._is_stdin_ended = False

    @property
    def can_ask(self) -> bool:
        """Whether the connection is good for one more try."""
        return not (self._wire.is_over or self._core.is_ended or self._core.is_draining)

    @property
    def takes_none(self) -> bool:
        """Whether the server has said that it takes no streams at all."""
        return self._core.is_greeted and not self._core.limit

    def ask(self, *, was_said: bool = False) -> None:
        """Ask for the tunnel; ``was_said``: what that takes is on its way already."""
        scheme, authority, path, headers = self._request
        self.status, self.text, self._is_ended, self._broken = 0, b"", False, None
        self._stream = self._core.open(scheme=scheme, authority=authority, path=path, headers=headers)
        if was_said:
            self._core.data_to_send()

    @property
    def is_lost(self) -> bool:
        """Whether the whole connection is gone."""
        return self._wire.is_over or self._core.is_ended

    def wait_for_answer(self, deadline: Deadline) -> int:
        """The status. Raises Broken, Late."""
        while True:
            self._receive()
            self._send()
            if self.status:
                return self.status
            if self._broken is not None:
                raise self._broken
            if self._is_ended:
                raise Broken("ended without an answer")
            self._wait(seconds=deadline.left)

    def read_refusal(self, deadline: Deadline) -> str:
        """What the server says about a status that is not 200, as far as it does. Raises Late."""
        while not (self._is_ended or self._broken or len(self.text) >= MAX_TEXT):
            self._wait(seconds=deadline.left)
            self._receive()
            self._send()
        return self.text.decode(errors="replace")

    def carry(self) -> None:
        """Carry bytes both ways until the peer has ended, and stdout has taken all. Raises Broken, StdioBroken."""
        stdio = Stdio()
        stdio.ask()
        while True:
            self._receive()
            self._write(stdio)
            self._read(stdio)
            self._send()
            if self._broken is not None or self._is_ended:
                if not stdio.is_writing:
                    break
                self._wait(stdio)
            elif not self._wait(stdio, seconds=QUIET if self._core.has_put_off else None):
                self._handle(self._core.catch_up())
        if self._broken is not None:
            raise self._broken
        for event in self._core.catch_up():  # what was put off shows a fault
            if isinstance(event, events.ConnectionEnded):
                raise Broken(f"{BROKE}: {event.reason}")

    def close(self) -> None:
        """Say goodbye, and close."""
        self._core.end(self._stream)
        self._core.reset(self._stream, CANCEL)
        self._core.close()
        self._wire.send(self._core.data_to_send())
        self._wire.close(seconds=GOODBYE)

    def _wait(self, stdio: Stdio | None = None, *, seconds: float | None = None) -> bool:
        """Wait for the wire, and for stdin and stdout; whether something was ready."""
        reads = [] if self._wire.is_over else [self._wire.file]
        if stdio is not None:
            reads.append(stdio.file)
        writes = [self._wire.file] if self._wire.backlog else []
        ready = readiness.wait(reads=reads, writes=writes, seconds=seconds)
        if stdio is not None and stdio.file in ready:
            stdio.heard()
        return bool(ready)

    def _receive(self) -> None:
        """Take what has come, and what waited for room has gone before."""
        self._wire.flush()
        if not self.is_lost:
            data = self._wire.receive()
            if data:
                self._handle(self._core.receive(data))
            if self._wire.is_over:
                self._break(self._wire.reason or "the connection was closed")

    def _send(self) -> None:
        """Send what is to be said."""
        said = self._core.data_to_send()
        if said and self._wire.backlog > MAX_BACKLOG:
            self._break("the peer does not read")
        elif said:
            self._wire.send(said)

    def _read(self, stdio: Stdio) -> None:
        """From stdin to the peer, as its windows and the socket allow."""
        core, stream = self._core, self._stream
        if not self._from_stdin and not self._is_stdin_ended:
            try:
                data = stdio.read()
            except OSError as error:
                core.reset(stream, CONNECT_ERROR)
                raise StdioBroken(error) from error
            if data is None:
                return
            if not data:
                self._is_stdin_ended = True
                core.end(stream)
                return
            self._from_stdin = memoryview(data)
        if self._from_stdin and not self._wire.backlog:
            count = min(core.window(stream), len(self._from_stdin))
            core.send(stream, self._from_stdin[:count])
            self._from_stdin = self._from_stdin[count:]
            if not self._from_stdin:
                stdio.ask()

    def _write(self, stdio: Stdio) -> None:
        """From the peer to stdout; when it has taken all, the peer may send as much again."""
        try:
            is_written = stdio.written()
        except OSError as error:
            self._core.reset(self._stream, CANCEL)
            raise StdioBroken(error) from error
        if is_written and (flow := self._core.open_streams.get(self._stream)) is not None:
            self._core.took(flow, self._writing, is_quick=not self._to_stdout)
        if self._to_stdout and not stdio.is_writing:
            self._writing = len(self._to_stdout)
            stdio.write(bytes(self._to_stdout))
            self._to_stdout.clear()

    def _handle(self, found: Sequence[events.Event]) -> None:
        for event in found:
            if isinstance(event, events.ConnectionEnded):
                self._break(f"{BROKE}: {event.reason}")
            elif isinstance(event, events.DrainRequested):
                if self._stream > event.last:
                    self._break("the peer takes no more streams", is_safe=True)
            elif getattr(event, "stream", 0) == self._stream:
                self._handle_ours(event)
        if self._core.idle.count > FEW and not self._core.is_ended:
            self._judge(self._core.idle.take())

    def _judge(self, idle_frames: int) -> None:
        now = time.monotonic()
        if self._conduct is None:
            from hbone.conduct import Conduct  # late: most peers never come to that

            self._conduct = Conduct(now=now)
        if fault := self._conduct.after_idle_frames(idle_frames, now=now):
            self._core.close(code=ENHANCE_YOUR_CALM)
            self._break(fault)

    def _handle_ours(self, event: events.Event) -> None:
        if isinstance(event, events.DataReceived):
            if self.status == OK:
                for piece in event.pieces:
                    self._to_stdout += piece
            else:
                self.text += event.data[:MAX_TEXT]
                self._core.acknowledge(self._stream, sum(map(len, event.pieces)))
        elif isinstance(event, events.ResponseReceived):
            self.status = event.status
            if not event.status:
                self._core.reset(self._stream, PROTOCOL_ERROR)
                self._break("the server's answer is malformed")
        elif isinstance(event, events.StreamEnded):
            self._is_ended = True
        elif isinstance(event, events.StreamReset):
            self._break(f"reset by the peer, error code {event.code}", is_safe=event.code == REFUSED_STREAM)

    def _break(self, reason: str, *, is_safe: bool = False) -> None:
        """After the peer's orderly end it only means that nothing more is wanted of us."""
        if not self._is_ended and self._broken is None:
            self._broken = Broken(reason, is_safe=is_safe)
