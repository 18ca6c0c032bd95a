"""The public before an application that speaks HTTP/2: what held for HTTP/1.1 holds there too."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from krun_testbed import addresses, processes, recorder
from krun_testbed.processes import Running
from krun_testbed.public_h2c import PORT, http2_app
from krun_testbed.public_peers import Http2, app, curl, head, http1, notes, status_of
from krun_testbed.tunnels import connect, server

pytestmark = pytest.mark.loopback

BODY = 16 * 1024**2
# Said in full, as Envoy takes no 204 that has a length.
NOTHING = "/?raw=" + quote("HTTP/1.1 204 Nothing\r\n\r\n")
VERSIONS = ["--http1.1", "--http2-prior-knowledge"]


@contextlib.contextmanager
def served(address: str) -> Iterator[Running]:
    with server(address, "--public", "app", KRUN_APP_PROTOCOL="h2c", PORT_http=str(PORT)) as hboned:
        yield hboned


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Running]]:
    """One hboned and one application for the tests that leave nothing behind."""
    address = addresses.loopback()
    folder = tmp_path_factory.mktemp("app")
    with app(address) as recording, http2_app(address, folder), served(address):
        yield address, recording


def ask(address: str, version: str, path: str, *argv: str, data: bytes = b"") -> tuple[bytes, int, int]:
    """The body, the status, and how curl ended."""
    done = curl(version, *argv, "-w", "\n%{http_code}", f"http://{address}:15009{path}", data=data)
    body, _, status = done.stdout.rpartition(b"\n")
    return body, int(status), done.returncode


def go(address: str) -> None:
    assert status_of(http1(address, b"GET /go?size=0 HTTP/1.1\r\nhost: a\r\n\r\n", port=8080)) == 200


def until(peer: Http2, stream: int, mark: bytes) -> None:
    while mark not in peer.answers[stream].data:
        peer.step()


@pytest.mark.parametrize("version", VERSIONS)
def test_request_arrives_as_it_was_sent_and_bodies_are_whole(version: str, place: tuple[str, Running]) -> None:
    address, _ = place
    body, status, _ = ask(
        address, version, "/a?b=%20", "-H", "host: own.example", "-H", "x-krun-x: forged", "-d", "abc"
    )
    note = json.loads(body)
    headers = dict(note["headers"])
    assert (status, note["target"], headers["host"], note["length"]) == (200, "/a?b=%20", "own.example", 3)
    assert "forged" not in headers.values()
    for flags in ([], ["-H", "transfer-encoding: chunked"] if version == "--http1.1" else ["-H", "content-length:"]):
        sent = b"".join(recorder.pattern(BODY))
        note = json.loads(ask(address, version, "/up", "-X", "PUT", "--data-binary", "@-", *flags, data=sent)[0])
        assert (note["length"], note["sha256"], note["whole"]) == (BODY, recorder.digest(BODY), True)
    got, status, _ = ask(address, version, f"/?size={BODY}")
    assert (status, hashlib.sha256(got).hexdigest()) == (200, recorder.digest(BODY))


@pytest.mark.parametrize("version", VERSIONS)
def test_answers_without_a_body_and_broken_ones_are_what_they_are(version: str, place: tuple[str, Running]) -> None:
    address, _ = place
    assert ask(address, version, NOTHING) == (b"", 204, 0)
    assert ask(address, version, "/?status=304&size=5") == (b"", 304, 0)
    body, status, ended = ask(address, version, "/?size=7", "-I")
    assert (b"content-length: 7" in body.lower(), status, ended) == (True, 200, 0)
    for path in ("/?size=200000&cut=100000", "/?chunked&size=200000&cut=100000"):
        assert ask(address, version, path)[2] in (18, 56, 92)
    assert ask(address, version, "/?size=3") == (recorder.PIECE[:3], 200, 0)


def test_both_directions_are_open_at_once_and_trailers_pass_both_ways(place: tuple[str, Running]) -> None:
    address, recording = place
    with connect(address, 15009) as one, connect(address, 15009) as other:
        one.sendall(b"POST /?echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n")
        peer = Http2(other)
        stream = peer.request(head(b"/?echo", b"POST", (b"te", b"trailers")), body=b"0", end=False)
        answer = b""
        for number in range(5):
            word = b"word %d" % number
            one.sendall(b"%x\r\n%b\r\n" % (len(word), word))
            while word not in answer:
                answer += one.recv(65536)
            peer.data(stream, word)
            until(peer, stream, word)
        one.sendall(b"0\r\nx-sum: 1\r\nauthorization: forged\r\n\r\n")
        while not answer.endswith(b"0\r\nx-sum: 1\r\n\r\n"):
            answer += one.recv(65536)
        peer.trailers(stream, [(b"x-sum", b"2"), (b"x-envoy-x", b"forged")])
        assert peer.wait(stream).trailers == [(b"x-sum", b"2")]
    processes.wait_until(
        lambda: sum(note.get("target") == "/?echo" for note in notes(recording)) == 2, what="both have ended"
    )
    assert "forged" not in recording.stdout.partition("x-krun-x")[2]


def test_events_arrive_at_once_and_100_is_the_applications(place: tuple[str, Running]) -> None:
    address, _ = place
    with connect(address, 15009) as one, connect(address, 15009) as other:
        peer = Http2(other)
        stream = peer.request(head(b"/?events=3"))
        for number in range(3):
            until(peer, stream, b"data: %d\n\n" % number)
            go(address)
        assert peer.wait(stream).ended
        one.sendall(b"PUT /?continue&size=1 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n")
        assert status_of(one.recv(4096)) == 100
        one.sendall(b"abc")
        assert status_of(one.recv(4096)) == 200


def test_websocket_is_not_asked_for_where_http2_has_none(place: tuple[str, Running]) -> None:
    more = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: x\r\n"
    assert status_of(http1(place[0], b"GET /ws?size=1 HTTP/1.1\r\nhost: a\r\n" + more + b"\r\n")) != 101


def test_more_requests_than_one_connection_carries_have_several(address: str, tmp_path: Path) -> None:
    with (
        app(address) as recording,
        http2_app(address, tmp_path),
        served(address),
        connect(address, 15009) as connected,
    ):
        peer = Http2(connected)
        streams = [peer.request(head(b"/%d?wait&size=1" % number)) for number in range(45)]
        processes.wait_until(
            lambda: sum("waiting" in note for note in notes(recording)) == len(streams), what="all wait at once"
        )
        for _ in streams:
            go(address)
        assert {peer.wait(stream).status for stream in streams} == {200}


def test_connections_that_the_application_retires_lose_and_double_nothing(address: str, tmp_path: Path) -> None:
    count = 300
    with app(address) as recording, http2_app(address, tmp_path, requests=5), served(address):

        def post(number: int) -> int:
            if number % 2:
                return ask(address, VERSIONS[number // 2 % 2], f"/{number}", "-d", "abc")[1]
            data = b"POST /%d HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc" % number
            return status_of(http1(address, data))

        with ThreadPoolExecutor(8) as pool:
            assert Counter(pool.map(post, range(count))) == {200: count}
        processes.wait_until(lambda: len(notes(recording)) >= count, what="the last ones are noted")
        assert Counter(note["target"] for note in notes(recording)) == Counter(f"/{number}" for number in range(count))


def test_application_that_is_killed_within_answers_breaks_them_and_is_asked_anew(address: str, tmp_path: Path) -> None:
    with app(address), served(address), connect(address, 15009) as one, connect(address, 15009) as two:
        peer = Http2(two)
        with http2_app(address, tmp_path) as running:
            one.sendall(b"GET /?events=2 HTTP/1.1\r\nhost: a\r\n\r\n")
            answer = b""
            while b"data: 0" not in answer:
                answer += one.recv(4096)
            stream = peer.request(head(b"/?events=2"))
            until(peer, stream, b"data: 0")
            running.process.kill()
            assert peer.wait(stream).reset == 2
            with contextlib.suppress(ConnectionResetError):
                while data := one.recv(4096):
                    answer += data
            assert not answer.endswith(b"0\r\n\r\n")
            running.ends(timeout=processes.WAIT)
            assert peer.wait(peer.request(head(b"/?size=1"))).status == 503
        with http2_app(address, tmp_path):
            assert peer.wait(peer.request(head(b"/?size=1"))).status == 200
