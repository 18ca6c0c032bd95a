"""Connections that end at an unlucky moment: the application's under the next request, hboned's own when it drains."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from krun_testbed import addresses, processes
from krun_testbed.processes import Running
from krun_testbed.public_peers import Http2, curl, head, http1, notes, served, status_of
from krun_testbed.tunnels import connect, echo, read_all, server, target

pytestmark = pytest.mark.loopback

REFUSED_STREAM = 7
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[str, Running]]:
    address = addresses.loopback()
    with served(address) as (_, recording):
        yield address, recording


def spoil(address: str) -> None:
    """Have hboned keep a connection that the application will close when the next request has begun to come."""
    assert status_of(http1(address, b"GET /spoil?close=next&size=1 HTTP/1.1\r\nhost: a\r\n\r\n")) == 200


def until(connected: socket.socket, mark: bytes) -> None:
    data = b""
    while mark not in data:
        piece = connected.recv(65536)
        assert piece, f"ended before {mark!r}: {data!r}"
        data += piece


def arrived(recording: Running, mark: str) -> list[tuple[object, object]]:
    return [(note["method"], note["length"]) for note in notes(recording) if mark in str(note.get("target"))]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"])
@pytest.mark.parametrize("version", ["1.1", "2"])
def test_connection_that_closes_under_a_request_is_not_noticed(
    method: str, version: str, place: tuple[str, Running]
) -> None:
    address, recording = place
    spoil(address)
    path = f"/under-{method}-{version}?size=3"
    if version == "1.1":
        answer = http1(address, f"{method} {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
        assert status_of(answer) == 200
    else:
        with connect(address, 15009) as connected:
            peer = Http2(connected)
            assert peer.wait(peer.request(head(path.encode(), method.encode()))).status == 200
    processes.wait_until(lambda: bool(arrived(recording, path)), what="it arrives")
    assert arrived(recording, path) == [(method, 0)]


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
def test_body_that_must_not_come_twice_never_meets_a_connection_that_closes(
    method: str, place: tuple[str, Running]
) -> None:
    address, recording = place
    for version in ("--http1.1", "--http2-prior-knowledge"):
        spoil(address)
        path = f"/body-{method}{version}"
        done = curl(version, "-X", method, "-d", "abc", "-w", "%{http_code}", f"http://{address}:15009{path}?size=0")
        assert done.stdout == b"200"
        processes.wait_until(lambda path=path: bool(arrived(recording, path)), what="it arrives")  # type: ignore[misc]
        assert arrived(recording, path) == [(method, 3)]


def over_http1(address: str, asked: list[tuple[str, str]]) -> Counter[int]:
    """The requests in a row on one connection; each answer must be the request's own."""
    found: Counter[int] = Counter()
    with contextlib.closing(http.client.HTTPConnection(address, 15009, timeout=processes.WAIT)) as connection:
        for method, path in asked:
            connection.request(method, path, body=b"abc" if method == "POST" else None)
            answer = connection.getresponse()
            assert json.loads(answer.read())["target"] == path
            found[answer.status] += 1
    return found


def over_http2(address: str, asked: list[tuple[str, str]]) -> Counter[int]:
    """The same side by side on one connection."""
    with connect(address, 15009) as connected:
        peer = Http2(connected)
        streams = [
            (peer.request(head(path.encode(), method.encode()), body=b"abc" if method == "POST" else None), path)
            for method, path in asked
        ]
        for stream, path in streams:
            assert json.loads(peer.wait(stream).data)["target"] == path
        return Counter(peer.wait(stream).status for stream, _ in streams)


def test_storm_before_connections_that_close_at_random_loses_and_doubles_nothing(place: tuple[str, Running]) -> None:
    address, recording = place
    chance, count, each = random.Random(7), 600, 30
    whims = [chance.choice(["", "?close", "?close=next"]) for _ in range(count)]
    asked = [("POST" if number % 2 else "GET", f"/storm/{number}/{whims[number]}") for number in range(count)]
    with ThreadPoolExecutor(10) as pool:
        starts = range(0, count, each)
        done = [
            pool.submit(over_http2 if start % (2 * each) else over_http1, address, asked[start : start + each])
            for start in starts
        ]
        assert sum((one.result() for one in done), Counter()) == {200: count}

    def seen() -> Counter[object]:
        return Counter(note["target"] for note in notes(recording) if "/storm/" in str(note.get("target")))

    processes.wait_until(lambda: seen().total() >= count, what="the last ones are noted, which comes after the answer")
    assert seen() == Counter(path for _, path in asked)


def test_stream_that_crosses_the_goodbye_may_be_sent_elsewhere_and_the_others_go_on(address: str) -> None:
    with served(address) as (hboned, recording), connect(address, 15009) as connected:
        peer = Http2(connected)
        uploading = peer.request(head(b"/up?echo", b"POST"), body=b"before", end=False)
        while not peer.answers[uploading].data:
            peer.step()
        hboned.signal(signal.SIGTERM)
        assert peer.wait_for_goaway() == 0
        crossing = peer.request(head(b"/crossing", b"POST"))
        assert peer.wait(crossing).reset == REFUSED_STREAM  # which says that nothing was done with it
        peer.data(uploading, b" and after", end=True)
        assert peer.wait(uploading).data == b"before and after"
        assert hboned.wait() == 0
        assert not arrived(recording, "/crossing")


@pytest.mark.parametrize("start", [b"", b"PRI * HT"])
def test_connection_without_a_request_does_not_hold_up_the_end(address: str, start: bytes) -> None:
    with served(address) as (hboned, _), connect(address, 15009) as whole, connect(address, 15009) as connected:
        connected.sendall(start)
        whole.sendall(b"GET /?size=1 HTTP/1.1\r\nhost: a\r\n\r\n")
        assert status_of(whole.recv(4096)) == 200  # so the other one, which was first, has been taken too
        assert hboned.terminate(timeout=15) == 0


@pytest.mark.parametrize("start", [b"G", b"GET / HT", b"GET / HTTP/1.1\r\nhost: a\r\n"])
def test_head_that_never_gets_whole_holds_up_the_end_for_a_moment_only(address: str, start: bytes) -> None:
    with served(address) as (hboned, _), connect(address, 15009) as half, connect(address, 15009) as whole:
        half.sendall(start)
        whole.sendall(b"GET /?size=1 HTTP/1.1\r\nhost: a\r\n\r\n")
        assert status_of(whole.recv(4096)) == 200
        assert hboned.terminate(timeout=8) == 0  # engines kill after ten
        assert status_of(read_all(half)) == 408


@pytest.mark.parametrize("start", [b"G", b"GET /rest?size=1 HTTP/1.1\r\nhost: a\r\n"])
def test_head_that_is_on_its_way_when_the_end_comes_is_served(address: str, start: bytes) -> None:
    whole = b"GET /rest?size=1 HTTP/1.1\r\nhost: a\r\n\r\n"
    with served(address) as (hboned, _), connect(address, 15009) as half, connect(address, 15009) as other:
        half.sendall(start)
        other.sendall(b"GET /?size=1 HTTP/1.1\r\nhost: a\r\n\r\n")
        assert status_of(other.recv(4096)) == 200
        hboned.signal(signal.SIGTERM)
        processes.wait_until(lambda: not processes.listens(address, 15009), what="it drains")
        half.sendall(whole[len(start) :])
        assert status_of(read_all(half)) == 200
        assert hboned.wait() == 0


def test_switched_connection_outlives_the_first_signal_and_ends_in_order(address: str) -> None:
    def app(connected: socket.socket) -> None:
        connected.recv(65536)
        connected.sendall(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        echo(connected)
        connected.sendall(b"last words")

    with target(address, app, port=8080), server(address, "--public", "app") as hboned:
        with connect(address, 15009) as connected:
            connected.sendall(UPGRADE + b"at once")
            until(connected, b"at once")
            hboned.signal(signal.SIGTERM)
            processes.wait_until(lambda: not processes.listens(address, 15009), what="it drains")
            connected.sendall(b"after the signal")
            until(connected, b"after the signal")
            connected.shutdown(socket.SHUT_WR)
            assert read_all(connected) == b"last words"
        assert hboned.wait() == 0


@pytest.mark.parametrize("answer", ["403 No", "200 OK", "426 Upgrade Required"])
def test_refused_switch_is_an_answer_like_others_and_what_follows_is_a_request(address: str, answer: str) -> None:
    heads: list[bytes] = []

    def app(connected: socket.socket) -> None:
        while data := connected.recv(65536):
            heads.append(data)
            connected.sendall(f"HTTP/1.1 {answer}\r\ncontent-length: 2\r\n\r\nno".encode())

    with target(address, app, port=8080), server(address, "--public", "app"):
        # Had hboned taken the switch for granted, these bytes would reach the application as they are.
        hidden = b"GET /hidden HTTP/1.1\r\nhost: a\r\nx-envoy-x: forged\r\nconnection: close\r\n\r\n"
        answers = http1(address, UPGRADE + hidden)
        assert answers.count(f"HTTP/1.1 {answer}\r\n".encode()) == 2
    assert [one.split(b" ")[1] for one in heads] == [b"/ws", b"/hidden"]
    assert b"forged" not in b"".join(heads)
