"""HTTP/2 frames that break the rules while another request of the same connection is under way, or end it for good."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import hpack
import pytest
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PushPromiseFrame

from krun_testbed import addresses, processes
from krun_testbed.processes import Running
from krun_testbed.public_peers import Answered, Http2, head, http1, notes, served, status_of
from krun_testbed.tunnels import connect

pytestmark = pytest.mark.loopback

PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, COMPRESSION_ERROR = 1, 3, 5, 6, 9


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[str, Running, Running]]:
    address = addresses.loopback()
    with served(address) as (hboned, recording):
        yield address, hboned, recording
        assert "a bug ended" not in hboned.stderr


@contextlib.contextmanager
def beside_another(address: str) -> Iterator[Http2]:
    """A peer with a request under way, which still works at the end."""
    with connect(address, 15009) as connected:
        peer = Http2(connected)
        held = peer.request(head(b"/held?echo", b"POST"), body=b"first", end=False)
        yield peer
        peer.data(held, b" and last", end=True)
        assert peer.wait(held).data == b"first and last"
        assert peer.wait(peer.request(head(b"/next?size=1"))).status == 200
        assert peer.goaway is None


def raw(kind: int, *, stream: int, payload: bytes, flags: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def test_data_after_the_end_breaks_its_own_stream_alone(place: tuple[str, Running, Running]) -> None:
    with beside_another(place[0]) as peer:
        stream = peer.request(head(b"/ended?wait&size=1", b"POST"), body=b"x")
        peer.data(stream, b"more", end=True)
        assert peer.wait(stream).reset == STREAM_CLOSED
    assert status_of(http1(place[0], b"GET /go?size=0 HTTP/1.1\r\nhost: a\r\n\r\n", port=8080)) == 200


def test_window_that_overflows_breaks_its_own_stream_alone(place: tuple[str, Running, Running]) -> None:
    with beside_another(place[0]) as peer:
        stream = peer.request(head(b"/overflow?echo", b"POST"), end=False)
        peer.socket.sendall(raw(8, stream=stream, payload=(2**31 - 1).to_bytes(4, "big")))
        assert peer.wait(stream).reset == FLOW_CONTROL_ERROR


def test_window_that_grows_by_nothing_breaks_its_own_stream_alone(place: tuple[str, Running, Running]) -> None:
    with beside_another(place[0]) as peer:
        stream = peer.request(head(b"/nothing?echo", b"POST"), end=False)
        peer.socket.sendall(raw(8, stream=stream, payload=bytes(4)))
        assert peer.wait(stream).reset == PROTOCOL_ERROR
        peer.socket.sendall(raw(8, stream=stream, payload=bytes(4)))  # once more, when it is gone


@pytest.mark.parametrize("trailers", [((b":path", b"/x"),), ((b"X-Large", b"1"),), ((b"x", b"a\nb"),)])
def test_malformed_trailers_right_after_the_head_are_refused(
    trailers: tuple[tuple[bytes, bytes], ...], place: tuple[str, Running, Running]
) -> None:
    with beside_another(place[0]) as peer:
        stream = peer.request_in_one_piece(head(b"/trailers-at-once?size=1", b"POST"), trailers)
        assert peer.wait(stream).status == 400


def test_trailers_right_after_the_head_reach_the_application(place: tuple[str, Running, Running]) -> None:
    with beside_another(place[0]) as peer:
        asked = [*head(b"/trailers-alone?size=1", b"POST"), (b"trailer", b"x-sum")]
        assert peer.wait(peer.request_in_one_piece(asked, ((b"x-sum", b"7"),))).status == 200
    processes.wait_until(
        lambda: any(
            note.get("target") == "/trailers-alone?size=1" and note["trailers"] == [["x-sum", "7"]]
            for note in notes(place[2])
        ),
        what="the application has the trailers",
    )


def test_frames_of_a_kind_or_with_settings_that_nobody_knows_are_passed_over(
    place: tuple[str, Running, Running],
) -> None:
    with beside_another(place[0]) as peer:
        peer.socket.sendall(raw(0xFA, stream=1, payload=b"what", flags=0xFF))
        peer.socket.sendall(raw(4, stream=0, payload=b"\xfa\xfa\0\0\0\1"))


def test_heads_that_are_refused_leave_the_table_of_headers_in_step(place: tuple[str, Running, Running]) -> None:
    """A refused head has changed the table (RFC 7541 §2.2): what refers to it later means the same to both."""
    address, _, recording = place
    with beside_another(address) as peer:
        value = b"in-the-table-" * 8
        bad = peer.request([*head(b"/refused"), (b"x-own", value), (b"x-bad", b"a\nb")])
        large = [(b"x-large-%d" % number, b"y" * 3000) for number in range(30)]
        too_large = peer.request([*head(b"/too-large"), (b"x-other", value), *large])
        assert (peer.wait(bad).status, peer.wait(too_large).status) == (400, 431)
        answered = peer.wait(peer.request([*head(b"/in-step"), (b"x-own", value), (b"x-other", value)]))
        assert b'["x-own", "%b"], ["x-other", "%b"]' % (value, value) in answered.data
    assert not [note for note in notes(recording) if note.get("target") in ("/refused", "/too-large")]


def encoded(path: bytes) -> bytes:
    block: bytes = hpack.Encoder().encode(head(path))
    return block


FATAL = {
    "data within a head": (
        HeadersFrame(1, b"\x82").serialize() + DataFrame(1, b"x").serialize(),
        PROTOCOL_ERROR,
    ),
    "another head within a head": (
        HeadersFrame(1, b"\x82").serialize() + HeadersFrame(3, encoded(b"/fatal"), flags=["END_HEADERS"]).serialize(),
        PROTOCOL_ERROR,
    ),
    "a continuation of nothing": (ContinuationFrame(1, b"\x82", flags=["END_HEADERS"]).serialize(), PROTOCOL_ERROR),
    "a block that cannot be unpacked": (
        HeadersFrame(1, b"\xff" * 6, flags=["END_HEADERS", "END_STREAM"]).serialize(),
        COMPRESSION_ERROR,
    ),
    "an index that is not in the table": (
        HeadersFrame(1, b"\xfe", flags=["END_HEADERS", "END_STREAM"]).serialize(),
        COMPRESSION_ERROR,
    ),
    "a stream of the server's": (
        HeadersFrame(2, encoded(b"/fatal"), flags=["END_HEADERS", "END_STREAM"]).serialize(),
        PROTOCOL_ERROR,
    ),
    "a promise by a client": (
        PushPromiseFrame(1, promised_stream_id=2, data=encoded(b"/fatal"), flags=["END_HEADERS"]).serialize(),
        PROTOCOL_ERROR,
    ),
    "a frame that is too long": (raw(0, stream=1, payload=bytes(1024 * 1024 + 1)), FRAME_SIZE_ERROR),
    "a head on stream 0": (raw(1, stream=0, payload=encoded(b"/fatal"), flags=5), PROTOCOL_ERROR),
    "settings on a stream": (raw(4, stream=1, payload=b""), PROTOCOL_ERROR),
    "settings of a broken length": (raw(4, stream=0, payload=b"12345"), FRAME_SIZE_ERROR),
    "a ping of a wrong length": (raw(6, stream=0, payload=b"1234"), FRAME_SIZE_ERROR),
    "padding longer than the head": (raw(1, stream=1, payload=b"\xff\x82", flags=0x0D), PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", FATAL)
def test_frames_after_which_nobody_knows_what_follows_end_the_connection_and_reach_nobody(
    name: str, place: tuple[str, Running, Running]
) -> None:
    address, _, recording = place
    frames, code = FATAL[name]
    with connect(address, 15009) as connected:
        peer = Http2(connected)
        peer.answers = {number: Answered() for number in range(1, 4)}
        connected.sendall(frames)
        assert peer.wait_for_goaway() == code
    assert "/fatal" not in recording.stdout
    assert status_of(http1(address, b"GET /alive?size=1 HTTP/1.1\r\nhost: a\r\n\r\n")) == 200
