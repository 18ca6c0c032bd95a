"""How answers of the application reach a client: as they come, whole or visibly broken, also before the request is."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path
from urllib.parse import quote

import pytest

from krun_testbed import processes, recorder
from krun_testbed.certificates import Authority
from krun_testbed.public_peers import Http2, app, curl, head, http1, notes, served, status_of
from krun_testbed.tunnels import connect, lines, read_all, server, target, tls_flags

pytestmark = pytest.mark.loopback

RESET = struct.pack("ii", 1, 0)
NO_ERROR = 0
GO = b"GET /go?size=0 HTTP/1.1\r\nhost: a\r\n\r\n"


def split(answer: bytes) -> tuple[bytes, bytes]:
    top, _, rest = answer.partition(b"\r\n\r\n")
    return top, rest


def get(path: str, *, method: str = "GET", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: a\r\n{more}\r\n".encode()


def until(connected: socket.socket, mark: bytes) -> bytes:
    """Read until the mark has come, and no further than what came with it."""
    data = b""
    while mark not in data:
        piece = connected.recv(65536)
        assert piece, f"ended before {mark!r}: {data!r}"
        data += piece
    return data


def go(address: str) -> None:
    """Let the application pass its gate: straight, so that hboned is not what lets it."""
    assert status_of(http1(address, GO, port=8080)) == 200


def test_headers_of_the_answer_are_those_that_the_application_wrote(address: str) -> None:
    own = "X-Own: 1|Server: mine|DATE: then|set-cookie: a=1|Set-Cookie: b=2|via: 1.0 x|Vary: *|X-Under_Score: y"
    hop = "Connection: x-hop, keep-alive|X-Hop: 1|Keep-Alive: timeout=5|Proxy-Connection: x|Upgrade: h2c"
    path = f"/?size=2&reason=As+Written&headers={quote(own + '|' + hop)}"
    with served(address), connect(address, 15009) as connected:
        top, body = split(http1(address, get(path)))
        assert top.split(b"\r\n") == [b"HTTP/1.1 200 As Written", b"Content-Length: 2", *own.encode().split(b"|")]
        assert body == recorder.PIECE[:2]
        peer = Http2(connected)
        answered = peer.wait(peer.request(head(path.encode())))
        wanted = [field.partition(": ") for field in own.split("|")]
        assert answered.headers[2:] == [(name.lower().encode(), value.encode()) for name, _, value in wanted]
        assert answered.headers[:2] == [(b":status", b"200"), (b"content-length", b"2")]


@pytest.mark.parametrize("status", ["204", "304"])
def test_answers_without_a_body_have_none_and_the_connection_goes_on(address: str, status: str) -> None:
    with served(address), connect(address, 15009) as connected:
        both = get(f"/?size=5&status={status}") + get("/?size=7", method="HEAD") + get("/?size=3")
        answers = http1(address, both).split(b"HTTP/1.1 ")[1:]
        assert [int(answer[:3]) for answer in answers] == [int(status), 200, 200]
        assert [split(answer)[1] for answer in answers] == [b"", b"", recorder.PIECE[:3]]
        assert b"Content-Length: 7" in answers[1]
        peer = Http2(connected)
        answered = peer.wait(peer.request(head(f"/?size=5&status={status}".encode())))
        assert (answered.status, answered.data) == (int(status), b"")
        answered = peer.wait(peer.request(head(b"/?size=7", b"HEAD")))
        assert dict(answered.headers)[b"content-length"] == b"7"
        assert answered.data == b""


def test_events_arrive_one_by_one_as_the_application_sends_them(address: str) -> None:
    with served(address), connect(address, 15009) as one, connect(address, 15009) as other:
        one.sendall(get("/?events=3"))
        for number in range(3):
            last = until(one, b"data: %d\n\n" % number)
            if number < 2:
                go(address)
        assert last.endswith(b"0\r\n\r\n") or until(one, b"0\r\n\r\n")
        peer = Http2(other)
        stream = peer.request(head(b"/?events=3"))
        for number in range(3):
            while b"data: %d\n\n" % number not in peer.answers[stream].data:
                peer.step()
            if number < 2:
                go(address)
        assert peer.wait(stream).ended


def test_body_comes_back_while_it_goes_out(address: str) -> None:
    with served(address), connect(address, 15009) as one, connect(address, 15009) as other:
        one.sendall(get("/?echo", method="POST", more="transfer-encoding: chunked\r\n"))
        peer = Http2(other)
        stream = peer.request(head(b"/?echo", b"POST"), body=b"0", end=False)
        for number in range(5):
            word = b"word %d" % number
            one.sendall(b"%x\r\n%b\r\n" % (len(word), word))
            until(one, word)
            peer.data(stream, word)
            while word not in peer.answers[stream].data:
                peer.step()
        one.sendall(b"0\r\nx-sum: 1\r\n\r\n")
        assert until(one, b"0\r\nx-sum: 1\r\n\r\n")
        peer.trailers(stream, [(b"x-sum", b"2")])
        assert peer.wait(stream).trailers == [(b"x-sum", b"2")]


def test_trailers_of_the_answer_pass_without_those_that_must_not_be_there(address: str) -> None:
    with served(address), connect(address, 15009) as connected:
        _, body = split(http1(address, get("/?size=3&trailers")))
        assert body.endswith(b"\r\n0\r\nx-sum: 42\r\n\r\n")
        peer = Http2(connected)
        answered = peer.wait(peer.request(head(b"/?size=3&trailers")))
        assert (answered.data, answered.trailers) == (recorder.PIECE[:3], [(b"x-sum", b"42")])


def test_informations_are_the_applications_own(address: str) -> None:
    with served(address), connect(address, 15009) as one, connect(address, 15009) as other:
        one.sendall(get("/?continue&hint&size=1", method="PUT", more="content-length: 3\r\nexpect: 100-continue\r\n"))
        told = until(one, b"rel=preload\r\n\r\n")
        assert told.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n")
        one.sendall(b"abc")
        assert status_of(until(one, b"\r\n\r\n")) == 200
        peer = Http2(other)
        fields = head(b"/?continue&hint&size=1", b"PUT", (b"content-length", b"3"), (b"expect", b"100-continue"))
        stream = peer.request(fields, end=False)
        while len(peer.answers[stream].informations) < 2:
            peer.step()
        peer.data(stream, b"abc", end=True)
        answered = peer.wait(stream)
        assert [dict(fields)[b":status"] for fields in answered.informations] == [b"100", b"103"]
        assert dict(answered.informations[1])[b"link"] == b"</style.css>; rel=preload"
        assert answered.status == 200
        old = http1(address, b"PUT /?hint&size=1 HTTP/1.0\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\nabc")
        assert status_of(old) == 200  # HTTP/1.0 knows of no 1xx


def test_no_100_is_made_up_for_an_application_that_gives_none(address: str) -> None:
    with served(address), connect(address, 15009) as one:
        more = "content-length: 3\r\nexpect: 100-continue\r\n"
        one.sendall(get("/?early=close&status=417&size=0", method="PUT", more=more))
        answer = b"".join(iter(lambda: one.recv(65536), b""))
        assert status_of(answer) == 417
        assert b"100 Continue" not in answer


@pytest.mark.parametrize("early", ["1", "close"])
@pytest.mark.parametrize("size", [3, 3_000_000])
def test_early_answer_is_whole_though_the_body_still_comes(address: str, early: str, size: int) -> None:
    path = f"/?early={early}&size={size}"
    with served(address), connect(address, 15009) as one, connect(address, 15009) as other:
        one.sendall(get(path, method="POST", more="content-length: 1000000000\r\n"))
        one.sendall(bytes(100_000))
        answer = until(one, b"\r\n\r\n")
        while len(split(answer)[1]) < size:
            one.sendall(bytes(1000))  # it goes on all the while, and the kernel must not answer that by a reset
            answer += one.recv(65536)
        assert split(answer)[1] == b"".join(recorder.pattern(size))
        assert one.recv(1) == b""
        peer = Http2(other)
        stream = peer.request(head(path.encode(), b"POST"), body=bytes(100_000), end=False)
        while not peer.answers[stream].ended:
            peer.step()
        assert peer.answers[stream].data == b"".join(recorder.pattern(size))
        peer.data(stream, bytes(50_000))
        while peer.answers[stream].reset is None:
            peer.step()
        assert peer.answers[stream].reset == NO_ERROR
        assert peer.wait(peer.request(head(b"/?size=1"))).status == 200


BROKEN = ["/?size=100000&cut=5", "/?size=100000&cut=70000", "/?chunked&size=100000&cut=5"]


@pytest.mark.parametrize("path", BROKEN)
def test_answer_that_breaks_off_never_looks_whole(address: str, path: str) -> None:
    with served(address) as (hboned, _), connect(address, 15009) as connected:
        done = curl("--http1.1", f"http://{address}:15009{path}")
        assert done.returncode in (18, 56), done.stderr
        peer = Http2(connected)
        answered = peer.wait(peer.request(head(path.encode())))
        assert (answered.ended, answered.reset) == (False, 2)
        assert peer.wait(peer.request(head(b"/?size=1"))).status == 200
        # HTTP/1.0 has a body end with its connection: then that must not end in order.
        with connect(address, 15009) as old:
            old.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            if "chunked" in path:
                with pytest.raises(ConnectionResetError):
                    read_all(old)
        hboned.wait_for("request failed")
        assert len(lines(hboned, "request failed")) == 1


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("", 503),
        ("nonsense\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 502),
        ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", 502),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\ncontent-", 503),
        ("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", 200),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", 200),
    ],
)
def test_answer_that_is_none_is_said_to_be_none(address: str, raw: str, status: int) -> None:
    path = f"/?raw={quote(raw)}" if raw else "/?leave"
    with served(address), connect(address, 15009) as connected:
        answer = http1(address, get(path))
        assert status_of(answer) == status
        assert answer.count(b"HTTP/1.1 ") == 1
        peer = Http2(connected)
        answered = peer.wait(peer.request(head(path.encode())))
        assert answered.status == status
        assert (b"krun: the application" in answered.data) == (status > 500)


def test_application_that_does_not_listen_is_503(address: str) -> None:
    with server(address, "--public", "app") as hboned, connect(address, 15009) as connected:
        answer = http1(address, get("/"))
        assert split(answer)[1] == b"krun: the application does not answer: Connection refused\n"
        assert status_of(answer) == 503
        peer = Http2(connected)
        assert peer.wait(peer.request(head(b"/"))).status == 503
        grpc = peer.request(head(b"/a.B/C", b"POST", (b"content-type", b"application/grpc")), body=b"")
        assert peer.wait(grpc).status == 503
        assert len(lines(hboned, "request failed")) == 1
        with app(address):  # it is asked anew each time
            assert status_of(http1(address, get("/"))) == 200


def test_application_that_does_not_speak_http2_is_503(address: str) -> None:
    with served(address, KRUN_APP_PROTOCOL="h2c"):
        assert status_of(http1(address, get("/"))) in (502, 503)


@pytest.mark.parametrize("is_lost", [True, False])
def test_client_that_is_gone_is_gone_for_the_application_too(address: str, is_lost: bool) -> None:
    with served(address) as (_, recording):
        with connect(address, 15009) as one:
            one.sendall(get("/?events=1000"))
            until(one, b"data: 0")
            if is_lost:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        with connect(address, 15009) as other:
            peer = Http2(other)
            stream = peer.request(head(b"/?events=1000"))
            while not peer.answers[stream].data:
                peer.step()
            peer.reset(stream)

            def told() -> bool:
                go(address)
                return len([note for note in notes(recording) if "events" in str(note.get("target"))]) == 2

            processes.wait_until(told, what="the application is told of both")


def test_half_closed_client_gets_its_answer(address: str) -> None:
    with served(address) as (_, recording), connect(address, 15009) as one:
        one.sendall(get("/?wait&size=3"))
        recording.wait_for("waiting")
        one.shutdown(socket.SHUT_WR)
        go(address)
        assert until(one, b"\r\n\r\n" + recorder.PIECE[:3])
        assert one.recv(1) == b""


def test_probes_of_a_platform_are_answered(address: str) -> None:
    with served(address) as (hboned, _):
        assert processes.listens(address, 15009)  # TCP
        for version in (
            "--http1.0",
            "--http1.1",
            "--http2-prior-knowledge",
            "--http2",
        ):  # the last by an upgrade to h2c
            done = curl(version, "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}:15009/healthz")
            assert done.stdout == b"200", (version, done.stderr)
        assert not lines(hboned, "connection refused")


def test_upgrade_to_anything_but_websocket_is_not_passed_on(address: str) -> None:
    more = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
    with served(address) as (_, recording):
        assert status_of(http1(address, get("/h2c", more=more))) == 200
        recording.wait_for("/h2c")
        assert notes(recording)[0]["headers"] == [["host", "a"]]


def test_tls_serves_both_versions_by_alpn(address: str, authority: Authority, tmp_path: Path) -> None:
    flags = tls_flags(authority, tmp_path, "a.example")
    ca = ["--cacert", str(tmp_path / "root.pem"), "--connect-to", f"::{address}:15009"]
    with served(address, *flags):
        for version, number in (("--http1.1", b"1.1"), ("--http2", b"2")):
            done = curl(version, *ca, "-w", "%{http_version}", "https://a.example/?size=3")
            assert done.stdout == recorder.PIECE[:3] + number, done.stderr
        done = curl("--http1.1", *ca, "https://a.example/?chunked&size=100000&cut=5")
        assert done.returncode != 0


def test_target_that_accepts_and_resets_is_503(address: str) -> None:
    def reset(connected: socket.socket) -> None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    with target(address, reset, port=8080), server(address, "--public", "app"):
        assert status_of(http1(address, get("/"))) == 503
        more = "content-length: 1000000\r\n"
        with connect(address, 15009) as one, contextlib.suppress(ConnectionError):
            one.sendall(get("/", method="POST", more=more) + bytes(500_000))
            assert status_of(until(one, b"\r\n\r\n")) == 503
