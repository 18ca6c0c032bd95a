"""hbone and a server that breaks HTTP/2's rules, breaks off or says nothing: a reason, its status, and never a hang."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from krun_testbed import addresses, processes, scripted
from krun_testbed.processes import Running
from krun_testbed.scripted import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    OK,
    PADDED,
    PING,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Script,
    Server,
    answer,
    field,
    frame,
    goaway,
    reset,
    setting,
    window,
)
from krun_testbed.tunnels import connect, echo, forward, lines, pipe, server, target, url

pytestmark = pytest.mark.loopback

SOAK = bool(os.environ.get("KRUN_SOAK"))
ATTEMPTS = 3
MALFORMED = "status 0|answer is malformed|without an answer|broke the protocol"
PROTOCOL, FLOW_CONTROL, FRAME_SIZE, COMPRESSION, CALM = 1, 3, 6, 9, 11


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What the server does, and what is to come of it."""

    script: Script
    said: str  # of the reason
    code: int | None = None  # with which the client says goodbye


def at_once(*pieces: bytes) -> Script:
    """In place of SETTINGS."""
    return lambda client: client.send(*pieces)


def asked(*pieces: bytes) -> Script:
    """In place of the answer."""

    def script(client: scripted.Client) -> None:
        client.send(frame(SETTINGS))
        client.wait_for_request()
        client.send(*pieces)

    return script


def refused(client: scripted.Client) -> None:
    """All that is asked."""
    client.send(frame(SETTINGS))
    for stream in range(1, 100, 2):
        client.wait_for_request()
        client.send(reset(stream, 7))


def opened(*pieces: bytes) -> Script:
    """Through the open tunnel."""
    return asked(answer(), *pieces)


def then_closed(script: Script) -> Script:
    def closing(client: scripted.Client) -> None:
        script(client)
        client.socket.close()

    return closing


def broken(script: Script, code: int | None, said: str = "broke the protocol") -> Fault:
    return Fault(script=script, code=code, said=said)


FAULTS = {
    # Another protocol, or another beginning.
    "http1": broken(at_once(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"), FRAME_SIZE),
    "ssh": broken(at_once(b"SSH-2.0-OpenSSH_9.2p1\r\n"), FRAME_SIZE),
    "ping first": broken(at_once(frame(PING, payload=bytes(8))), PROTOCOL),
    "acknowledgement first": broken(at_once(frame(SETTINGS, flags=ACK)), PROTOCOL),
    "goaway first": broken(at_once(goaway()), PROTOCOL),
    # Settings.
    "settings of a broken length": broken(at_once(frame(SETTINGS, payload=b"12345")), FRAME_SIZE),
    "settings of a stream": broken(at_once(frame(SETTINGS, stream=1)), PROTOCOL),
    "settings in an acknowledgement": broken(asked(frame(SETTINGS, flags=ACK, payload=bytes(6))), FRAME_SIZE),
    "window of settings too large": broken(at_once(setting(4, 2**31)), FLOW_CONTROL),
    "frame size of settings too small": broken(at_once(setting(5, 16383)), PROTOCOL),
    "frame size of settings too large": broken(at_once(setting(5, 2**24)), PROTOCOL),
    "a server that lets us push": broken(at_once(setting(2, 1)), PROTOCOL),
    "no streams at all": broken(asked(setting(3, 0), reset(1, 7)), None, "takes no streams|error code 7"),
    # Frames.
    "head too large": broken(asked(frame(HEADERS, stream=1, length=2**24 - 1)), FRAME_SIZE),
    "payload too large": broken(opened(frame(DATA, stream=1, length=2**24 - 1)), FRAME_SIZE),
    "ping of a wrong length": broken(asked(frame(PING, payload=b"1")), FRAME_SIZE),
    "ping of a stream": broken(asked(frame(PING, stream=1, payload=bytes(8))), PROTOCOL),
    "goaway of a stream": broken(asked(frame(7, stream=1, payload=bytes(8))), PROTOCOL),
    "goaway too short": broken(asked(frame(7, payload=bytes(4))), FRAME_SIZE),
    "priority of a wrong length": broken(asked(frame(2, stream=1, payload=bytes(4))), FRAME_SIZE),
    "padding of the whole frame": broken(opened(frame(DATA, stream=1, flags=PADDED, payload=b"\x05abcd")), PROTOCOL),
    # Streams.
    "payload of no stream": broken(asked(frame(DATA, payload=b"x")), PROTOCOL),
    "payload of an idle stream": broken(asked(frame(DATA, stream=7, payload=b"x")), PROTOCOL),
    "payload of a stream of the server's": broken(asked(frame(DATA, stream=2, payload=b"x")), PROTOCOL),
    "payload before the answer": broken(asked(frame(DATA, stream=1, payload=b"x")), None, "error code 1"),
    "head of an idle stream": broken(asked(answer(7)), PROTOCOL),
    "head of a stream of the server's": broken(asked(answer(2)), PROTOCOL),
    "push": broken(asked(frame(PUSH_PROMISE, stream=1, flags=END_HEADERS, payload=bytes((0, 0, 0, 2)) + OK)), PROTOCOL),
    "two answers": broken(opened(answer()), None, "error code 1"),
    "end in an information": broken(asked(answer(block=field(b":status", b"100"), ends=True)), None, "error code 1"),
    # Windows.
    "window of the connection overflows": broken(asked(window(0, 2**31 - 1)), FLOW_CONTROL),
    "window of the connection grows by nothing": broken(asked(window(0, 0)), PROTOCOL),
    "window of the stream overflows": broken(opened(window(1, 2**31 - 1)), None, "error code 3"),
    "window of the stream grows by nothing": broken(asked(window(1, 0)), None, "error code 1"),
    "window of an idle stream": broken(asked(window(9, 1)), PROTOCOL),
    "window of a wrong length": broken(asked(frame(WINDOW_UPDATE, payload=b"123")), FRAME_SIZE),
    "more payload than the window": broken(opened(frame(DATA, stream=1, length=1024 * 1024)), FLOW_CONTROL),
    # Headers.
    "garbage": broken(asked(answer(block=b"\xff\xff\xff\xff\xff\xff")), COMPRESSION),
    "index that is not there": broken(asked(answer(block=b"\xfe")), COMPRESSION),
    "a bomb": broken(asked(answer(block=b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000 + b"\xbe" * 12000)), COMPRESSION),
    "padding longer than the head": broken(
        asked(frame(HEADERS, stream=1, flags=END_HEADERS | PADDED, payload=b"\x09" + OK)), PROTOCOL
    ),
    "no status": broken(asked(answer(block=field(b"a", b"b"), ends=True)), None, MALFORMED),
    "status that is none": broken(asked(answer(block=field(b":status", b"2e2"), ends=True)), None, MALFORMED),
    "two statuses": broken(asked(answer(block=OK + OK, ends=True)), None, MALFORMED),
    "continuation of nothing": broken(asked(frame(CONTINUATION, stream=1, flags=END_HEADERS, payload=OK)), PROTOCOL),
    "continuation of another": broken(
        asked(frame(HEADERS, stream=1), frame(CONTINUATION, stream=3, flags=END_HEADERS, payload=OK)), PROTOCOL
    ),
    "payload within a head": broken(asked(frame(HEADERS, stream=1), frame(DATA, stream=1, payload=b"x")), PROTOCOL),
    "continuations without end": broken(
        asked(frame(HEADERS, stream=1), *[frame(CONTINUATION, stream=1, payload=field(b"a", b"b" * 99) * 150)] * 20),
        CALM,
    ),
    # Floods.
    "pings": broken(asked(frame(PING, payload=bytes(8)) * 12_000), CALM, "carry nothing"),
    "settings": broken(asked(frame(SETTINGS) * 12_000), CALM, "carry nothing"),
    "empty payload": broken(opened(frame(DATA, stream=1) * 12_000), CALM, "carry nothing"),
    "informations": broken(asked(answer(block=field(b":status", b"103")) * 12_000), CALM, "carry nothing"),
    "empty continuations": broken(
        asked(frame(HEADERS, stream=1), frame(CONTINUATION, stream=1) * 12_000), CALM, "carry nothing"
    ),
    # The end, at each point.
    "goaway before the answer": broken(asked(goaway()), 0, "no more streams"),
    "goaway with a reason": broken(asked(goaway(code=CALM)), 0, "no more streams"),
    "reset before the answer": broken(asked(reset(1, 8)), None, "error code 8"),
    "refused, and again": broken(refused, None, "error code 7"),
    "reset after the answer": broken(opened(reset(1, 2)), None, "error code 2"),
    "reset of no stream": broken(asked(reset(0, 8)), PROTOCOL),
    "reset of an idle stream": broken(asked(reset(5, 8)), PROTOCOL),
    "reset of a wrong length": broken(asked(frame(RST_STREAM, stream=1, payload=b"1")), FRAME_SIZE),
    "closed at once": broken(then_closed(lambda client: None), None, "closed|lost"),
    "closed after settings": broken(then_closed(at_once(frame(SETTINGS))), None, "closed|lost"),
    "closed when asked": broken(then_closed(asked()), None, "closed|lost"),
    "closed within a head": broken(then_closed(asked(answer()[:5])), None, "closed|lost"),
    "closed after the answer": broken(then_closed(opened()), None, "closed|lost"),
    "closed within payload": broken(
        then_closed(opened(frame(DATA, stream=1, length=100, payload=b"half"))), None, "closed|lost"
    ),
    "end without an answer": broken(asked(frame(DATA, stream=1, flags=END_STREAM)), None, "error code 1"),
}
# A start for each takes a while: the short form has one of each kind, the long form all.
STARTED = (
    list(FAULTS)
    if SOAK
    else ["http1", "garbage", "pings", "goaway before the answer", "closed within payload", "reset after the answer"]
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """hbone -L, and the server behind it, whose script is the test's."""

    address: str
    server: Server
    hbone: Running
    port: int


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    address = addresses.loopback()
    with scripted.serving(address) as played, forward(address, url(address)) as (hbone, port):
        yield Scene(address=address, server=played, hbone=hbone, port=port)
        assert "Traceback" not in hbone.stderr
        assert "a bug" not in hbone.stderr
        assert hbone.terminate() == 0


@pytest.mark.parametrize("name", FAULTS)
def test_fault_of_the_server_breaks_a_forwarded_connection_and_is_named_in_its_line(name: str, scene: Scene) -> None:
    fault = FAULTS[name]
    scene.server.script = fault.script
    before = len(scene.hbone.stderr.splitlines())
    try:
        with contextlib.suppress(ConnectionError), connect(scene.address, scene.port) as local:
            while local.recv(65536):
                pass
        processes.wait_until(lambda: len(scene.hbone.stderr.splitlines()) > before, what="a line of the connection")
        line = scene.hbone.stderr.splitlines()[before]
        assert re.search(r'"message": "tunnel (refused|closed)"', line)
        assert re.search(fault.said, line), line
        _check_goodbye(fault, scene.server)
        assert len(scene.server.clients) <= ATTEMPTS
    finally:
        scene.server.end()


def _check_goodbye(fault: Fault, played: Server) -> None:
    if fault.code is not None:
        processes.wait_until(lambda: any(client.goaway is not None for client in played.clients), what="a goodbye")
        assert fault.code in {client.goaway for client in played.clients}


def test_forward_goes_on_after_such_a_server(address: str) -> None:
    with contextlib.ExitStack() as stack:
        port = 0
        with scripted.serving(address) as played:
            hbone, port = stack.enter_context(forward(address, url(address)))
            for name in ("garbage", "closed within payload"):
                played.script = FAULTS[name].script
                with contextlib.suppress(ConnectionError), connect(address, port) as local:
                    while local.recv(65536):
                        pass
            hbone.wait_for("(?s)(?:tunnel (?:refused|closed).*){2}")
        stack.enter_context(target(address, echo))
        stack.enter_context(server(address))
        with connect(address, port) as local:
            local.sendall(b"still here")
            assert local.recv(10) == b"still here"
        assert len(lines(hbone, "tunnel refused")) + len(lines(hbone, "tunnel closed")) >= 2


def test_fault_of_the_server_is_69_with_a_reason_and_a_hint() -> None:
    def run(name: str) -> tuple[str, subprocess.CompletedProcess[bytes], Server]:
        address = addresses.loopback()
        with scripted.serving(address) as played:
            played.script = FAULTS[name].script
            return name, pipe(url(address), data=b"said before all is known\n" * 100), played

    with ThreadPoolExecutor(4) as pool:
        for name, done, played in pool.map(run, STARTED):
            said = done.stderr.decode()
            assert done.returncode == 69, (name, said)
            assert re.fullmatch(r"hbone: error: [^\n]+\nhint: [^\n]+\n", said), (name, said)
            assert re.search(FAULTS[name].said, said), (name, said)
            _check_goodbye(FAULTS[name], played)
            assert len(played.clients) <= ATTEMPTS


def test_answer_that_ends_at_once_is_an_empty_one(address: str) -> None:
    with scripted.serving(address) as played:
        played.script = asked(answer(ends=True))
        done = pipe(url(address))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_informations_and_what_nobody_knows_are_passed_over(address: str) -> None:
    unknown = frame(0xF7, stream=1, flags=0xFF, payload=b"what")
    with scripted.serving(address) as played:
        played.script = asked(
            unknown,
            frame(SETTINGS, payload=b"\xfa\xfa\x00\x00\x00\x01"),
            answer(block=field(b":status", b"103") + field(b"link", b"</a>")),
            unknown,
            answer(),
            frame(PING, payload=b"01234567"),
            frame(DATA, stream=1, flags=PADDED, payload=b"\x03padded\0\0\0"),
            unknown,
            frame(DATA, stream=1, flags=END_STREAM, payload=b" and plain"),
        )
        done = pipe(url(address))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"padded and plain", b"")
