"""What of a request reaches the application, and which never do: by bytes over HTTP/1.1, by frames over HTTP/2."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from krun_testbed import addresses, processes
from krun_testbed.processes import Running
from krun_testbed.public_peers import Http2, curl, head, http1, notes, served, status_of
from krun_testbed.tunnels import connect, greet, lines, pipe, server, target, url

pytestmark = pytest.mark.loopback


POST = b"POST / HTTP/1.1\r\nhost: a\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[str, Running, Running]]:
    """One hboned and one application for the requests of this file, which leave nothing behind."""
    address = addresses.loopback()
    with target(address, greet), served(address, KRUN_LOG_LEVEL="debug") as (hboned, recording):
        yield address, hboned, recording


def seen(recording: Running, mark: str) -> dict[str, object]:
    """The application's note of the request whose target holds the mark."""

    def found() -> list[dict[str, object]]:
        return [note for note in notes(recording) if mark in str(note.get("target"))]

    processes.wait_until(lambda: bool(found()), what=f"{mark} reaches the application")
    (note,) = found()
    return note


def names(note: dict[str, object]) -> list[str]:
    headers = note["headers"]
    assert isinstance(headers, list)
    return [name.lower() for name, _ in headers]


FORGED = [
    "x-forwarded-client-cert",
    "X-Forwarded-Client-Cert",
    "x_forwarded_client_cert",
    "x-forwarded_client-cert",
    "x-envoy-original-path",
    "X_Envoy_External_Address",
    "x-krun-identity",
    "x_krun_x",
    "proxy",
    "Proxy-Authorization",
    "proxy_authorization",
    "proxy-connection",
    "keep-alive",
    "keep_alive",
    "http2-settings",
    "x_forwarded_for",
    "X_Forwarded_Proto",
    "content_length",
    "transfer_encoding",
    "te",
    "upgrade",
]
PASSED = {
    "x-forwarded-for": "192.0.2.1",
    "x-forwarded-proto": "https",
    "forwarded": "for=192.0.2.1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "authorization": "Bearer of-the-user",
    "cookie": "a=1; b=2",
    "x_own_header": "with an underscore",
    "user-agent": "",
    "x-latin": "caf\xe9",
}


def test_forged_headers_and_those_of_one_hop_never_reach_the_application_over_http1(
    place: tuple[str, Running, Running],
) -> None:
    address, _, recording = place
    fields = "".join(f"{name}: forged\r\n" for name in FORGED)
    fields += "".join(f"{name}: {value}\r\n" for name, value in PASSED.items())
    # What Connection names is of one hop, but for what it has no right to name.
    fields += (
        "x-hop: 1\r\nX_Hop_Too: 1\r\nconnection: x-hop, x-hop-too, authorization, host, x-forwarded-for, cookie\r\n"
    )
    answer = http1(address, f"GET /forged-1 HTTP/1.1\r\nhost: a.example\r\n{fields}\r\n".encode("latin-1"))
    assert status_of(answer) == 200
    note = seen(recording, "/forged-1")
    assert note["headers"] == [["host", "a.example"], *([name, value] for name, value in PASSED.items())]


def test_forged_headers_never_reach_the_application_over_http2(place: tuple[str, Running, Running]) -> None:
    address, _, recording = place
    own = {"te", "upgrade", "keep-alive", "proxy-connection"}  # these are 400 there
    fields = [(name.encode(), b"forged") for name in FORGED if name.islower() and name not in own]
    fields += [(name.encode(), value.encode("latin-1")) for name, value in PASSED.items()]
    fields.append((b"te", b"trailers"))
    with connect(address, 15009) as connected:
        peer = Http2(connected)
        assert peer.wait(peer.request(head(b"/forged-2", b"GET", *fields))).status == 200
    wanted = [["host", "a.example"], *([name, value] for name, value in PASSED.items())]
    assert seen(recording, "/forged-2")["headers"] == [*wanted, ["te", "trailers"], ["connection", "te"]]


def test_forged_and_misplaced_trailers_never_reach_the_application(place: tuple[str, Running, Running]) -> None:
    address, _, recording = place
    bad = ["x-envoy-x", "x_krun_a", "proxy-x", "host", "authorization", "cookie", "x-forwarded-for"]
    forged = "".join(f"{name}: forged\r\n" for name in bad)
    body = f"3\r\nabc\r\n0\r\n{forged}x-sum: 7\r\n\r\n"
    answer = http1(address, POST.replace(b"/", b"/trailers-1", 1) + CHUNKED + body.encode())
    assert status_of(answer) == 200
    assert seen(recording, "/trailers-1")["trailers"] == [["x-sum", "7"]]
    with connect(address, 15009) as connected:
        peer = Http2(connected)
        stream = peer.request(head(b"/trailers-2", b"POST"), body=b"abc", end=False)
        peer.trailers(stream, [*((name.encode(), b"forged") for name in [*bad, *FRAMING]), (b"x-sum", b"7")])
        assert peer.wait(stream).status == 200
    note = seen(recording, "/trailers-2")
    assert note["trailers"] == [["x-sum", "7"]]
    assert (note["length"], note["whole"]) == (3, True)


FRAMING = ["content-length", "transfer-encoding", "trailer"]

RESERVED = [
    "/_hbone",
    "/_hbone/",
    "/_hbone/15000",
    "/_hbone/canary",
    "/_hbone/../x",
    "/_hbone/..%2fx",
    "/%5fhbone/15003",
    "/%5Fhbone/x",
    "/_hbone/%31%35000",
    "/%255fhbone/x",
    "/%25255fhbone/x",
    "//_hbone/15003",
    "///_hbone/15003",
    "/_hbone//15003",
    "/x/../_hbone/15003",
    "/x/..%2f_hbone/15003",
    "/x%2f..%2f_hbone",
    "/./_hbone/15003",
    "/.%2f_hbone",
    "/%2e/_hbone",
    "/\\_hbone/15003",
    "/x\\..\\_hbone",
    "/%5c_hbone",
    "/_hbone;a=b/15003",
    "/_hbone%3ba/15003",
    "/x/..;/_hbone/15003",
    "/_HBONE/15003",
    "/_Hbone/15003",
    "/_hbone/15003?canary=secret",
    "/_hbone?x",
    "/_hbone%3fx",
    "/_hbone%20/x",
    "/_hbone%00/x",
    "/_hbone./x",
    "/%c1%9fhbone/x",
    "/%ef%bc%bfhbone/x",
    "/%u005fhbone/x",
]


@pytest.mark.parametrize("path", RESERVED)
def test_reserved_path_in_any_disguise_is_404_and_reaches_nobody(
    path: str, place: tuple[str, Running, Running]
) -> None:
    address, hboned, recording = place
    before = len(notes(recording))
    assert status_of(http1(address, f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())) == 404
    assert status_of(http1(address, f"GET http://a{path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())) == 404
    with connect(address, 15009) as connected:
        peer = Http2(connected)
        for method in (b"GET", b"POST"):
            assert peer.wait(peer.request(head(path.encode(), method))).status == 404
    assert len(notes(recording)) == before
    assert "canary=" not in hboned.stderr


def test_tunnel_is_opened_by_its_exact_form_over_http2_alone(place: tuple[str, Running, Running]) -> None:
    address, _, _ = place
    assert pipe(url(address)).stdout == b"hello\n"
    answer = http1(address, b"POST /_hbone/15003 HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
    assert status_of(answer) == 505
    assert b"a tunnel needs HTTP/2" in answer
    assert status_of(http1(address, b"GET /_hbone/15003 HTTP/1.1\r\nhost: a\r\n\r\n")) == 405


@pytest.mark.parametrize("path", ["/x/_hbone/15003", "/_hbon/x", "/_hbone2", "/a/../b/_hbone", "/?p=/_hbone/1"])
def test_path_that_only_looks_like_a_reserved_one_reaches_the_application(
    path: str, place: tuple[str, Running, Running]
) -> None:
    address, _, _ = place
    assert status_of(http1(address, f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())) == 200


SMUGGLED = {
    "length and coding": POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
    "lengths in one": POST + b"content-length: 3, 3\r\n\r\nabc",
    "length with a sign": POST + b"content-length: +3\r\n\r\nabc",
    "length in hex": POST + b"content-length: 0x3\r\n\r\nabc",
    "length empty": POST + b"content-length: \r\n\r\n",
    "length negative": POST + b"content-length: -1\r\n\r\n",
    "length without end": POST + b"content-length: " + b"9" * 5000 + b"\r\n\r\n",
    "coding twice": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding in a list": POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding of 1.0": b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding with a tab": POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "name with a space": POST + b"content-length : 3\r\n\r\nabc",
    "length in trailers": POST + CHUNKED + b"0\r\ncontent-length: x\r\n\r\n",
    "fold": b"GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n",
    "fold first": b"GET / HTTP/1.1\r\n host: a\r\n\r\n",
    "bare line feed": b"GET / HTTP/1.1\r\nhost: a\nx: b\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nhost: a\n\n",
    "bare return": b"GET / HTTP/1.1\r\nhost: a\r\nx: a\rb: c\r\n\r\n",
    "zero": b"GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n",
    "zero in the path": b"GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n",
    "control": b"GET / HTTP/1.1\r\nhost: a\r\nx: \x01\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\nhost: a\r\n: x\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nhost: a\r\nx\r\n\r\n",
    "name beyond ASCII": b"GET / HTTP/1.1\r\nhost: a\r\nx\xe9: 1\r\n\r\n",
    "name with a bracket": b"GET / HTTP/1.1\r\nhost: a\r\nx(y): 1\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
    "host with a user": b"GET / HTTP/1.1\r\nhost: u@a\r\n\r\n",
    "host with a path": b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
    "host with a space": b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
    "host with a bad port": b"GET / HTTP/1.1\r\nhost: a:99999\r\n\r\n",
    "host empty": b"GET / HTTP/1.1\r\nhost: \r\n\r\n",
    "other host in the target": b"GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n",
    "scheme unknown": b"GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n",
    "path without a slash": b"GET x HTTP/1.1\r\nhost: a\r\n\r\n",
    "star for all": b"GET * HTTP/1.1\r\nhost: a\r\n\r\n",
    "fragment": b"GET /#x HTTP/1.1\r\nhost: a\r\n\r\n",
    "path beyond ASCII": b"GET /\xc3\xa9 HTTP/1.1\r\nhost: a\r\n\r\n",
    "space in the path": b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
    "no version": b"GET /\r\nhost: a\r\n\r\n",
    "tab after the method": b"GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n",
    "method with a colon": b"G:T / HTTP/1.1\r\nhost: a\r\n\r\n",
    "chunk size negative": POST + CHUNKED + b"-1\r\n\r\n",
    "chunk size with an x": POST + CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    "chunk longer than its size": POST + CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_ambiguous_request_over_http1_is_refused_and_nothing_after_it_is_read(
    name: str, place: tuple[str, Running, Running]
) -> None:
    address, _, recording = place
    answer = http1(address, SMUGGLED[name] + b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")
    assert status_of(answer) in (400, 501)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer.lower()
    whole = [note for note in notes(recording) if note.get("whole")]
    assert not [note for note in whole if note["target"] in ("/", "/smuggled", "*", "x")]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", 405),
        (b"TRACE / HTTP/1.1\r\nhost: a\r\n\r\n", 405),
        (b"GET / HTTP/3.0\r\nhost: a\r\n\r\n", 505),
        (b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 70000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 300 + b"\r\n", 431),
        (POST + b"transfer-encoding: gzip\r\n\r\n", 501),
    ],
)
def test_request_that_is_not_served_has_its_own_status(
    request_: bytes, status: int, place: tuple[str, Running, Running]
) -> None:
    assert status_of(http1(place[0], request_)) == status


GET = head()
BAD_HTTP2 = {
    "name in capitals": [*GET, (b"X-Y", b"1")],
    "name with a space": [*GET, (b"x y", b"1")],
    "name with a colon": [*GET, (b"x:y", b"1")],
    "name empty": [*GET, (b"", b"1")],
    "value with a line feed": [*GET, (b"x", b"a\nb")],
    "value with a return": [*GET, (b"x", b"a\rb")],
    "value with a header": [*GET, (b"x", b"a\r\nx-envoy-x: b")],
    "value with a zero": [*GET, (b"x", b"a\0b")],
    "value with space around": [*GET, (b"x", b" a")],
    "path with a header": head(b"/ HTTP/1.1\r\nx: y"),
    "path with a space": head(b"/a b"),
    "path empty": head(b""),
    "path without a slash": head(b"x"),
    "star for GET": head(b"*"),
    "method with a space": head(b"/", b"GET /x"),
    "method empty": head(b"/", b""),
    "host with a user": head(authority=b"u@a"),
    "host with a line": head(authority=b"a\r\nx: y"),
    "host with a slash": head(authority=b"a/b"),
    "host empty": head(authority=b""),
    "host that differs": [*GET, (b"host", b"b.example")],
    "two hosts": [*GET, (b"host", b"a.example"), (b"host", b"a.example")],
    "no authority": [GET[0], GET[1], GET[3]],
    "no path": GET[:3],
    "no method": GET[1:],
    "no scheme": [GET[0], *GET[2:]],
    "path twice": [*GET, (b":path", b"/")],
    "unknown pseudo-header": [*GET, (b":protocol", b"websocket")],
    "status": [*GET, (b":status", b"200")],
    "pseudo-header late": [GET[0], GET[1], GET[2], (b"x", b"1"), GET[3]],
    "connection": [*GET, (b"connection", b"close")],
    "transfer-encoding": [*GET, (b"transfer-encoding", b"chunked")],
    "keep-alive": [*GET, (b"keep-alive", b"1")],
    "proxy-connection": [*GET, (b"proxy-connection", b"1")],
    "upgrade": [*GET, (b"upgrade", b"h2c")],
    "te": [*GET, (b"te", b"gzip")],
    "length that is no number": [*GET, (b"content-length", b"x")],
    "two lengths": [*GET, (b"content-length", b"0"), (b"content-length", b"0")],
    "length of nothing": [*GET, (b"content-length", b"5")],
}
CONNECT = [(b":method", b"CONNECT"), (b":authority", b"a:443")]


def test_malformed_requests_over_http2_are_400_and_disturb_no_other_stream(
    place: tuple[str, Running, Running],
) -> None:
    address, _, recording = place
    before = len([note for note in notes(recording) if note.get("target") == "/"])
    with connect(address, 15009) as connected:
        peer = Http2(connected)
        held = peer.request(head(b"/held?echo", b"POST"), body=b"first", end=False)
        for name, fields in BAD_HTTP2.items():
            assert (name, peer.wait(peer.request(fields)).status) == (name, 400)
        assert peer.wait(peer.request(CONNECT)).status == 405
        assert peer.wait(peer.request(head(b"/", b"TRACE"))).status == 405
        assert peer.wait(peer.request(head(b"/" + b"x" * 20000))).status == 414
        assert peer.wait(peer.request([*GET, *((b"x%d" % n, b"y") for n in range(300))])).status == 431
        large = [(b"x%d" % number, b"y" * 9000) for number in range(10)]
        assert peer.wait(peer.request([*GET, *large], size=5000)).status == 431
        peer.data(held, b" and last", end=True)
        assert peer.wait(held).data == b"first and last"
        assert peer.goaway is None
    assert len([note for note in notes(recording) if note.get("target") == "/"]) == before


@pytest.mark.parametrize("length", [b"3", b"9"])
def test_body_that_differs_from_its_length_over_http2_is_400_and_disturbs_no_other_stream(
    length: bytes, place: tuple[str, Running, Running]
) -> None:
    address, _, recording = place
    path = b"/differs-" + length
    with connect(address, 15009) as connected:
        peer = Http2(connected)
        held = peer.request(head(b"/held?echo", b"POST"), body=b"first", end=False)
        differs = peer.request(head(path, b"POST", (b"content-length", length)), body=b"12345")
        assert peer.wait(differs).status == 400
        peer.data(held, b"", end=True)
        assert peer.wait(held).data == b"first"
        # Longer than what is looked at before: then the application has seen some of it, and knows that it broke.
        long = peer.request(
            head(path + b"-long", b"POST", (b"content-length", b"5000" + length)), body=bytes(50_000), end=False
        )
        peer.data(long, bytes(50_000), end=True)
        assert peer.wait(long).status == 400
    assert not [note for note in notes(recording) if note.get("target") == path.decode()]


@pytest.mark.parametrize("fields", [[(b":path", b"/")], [(b"X", b"1")], [(b"x", b"a\nb")]])
def test_malformed_trailers_over_http2_break_their_own_stream_alone(
    fields: list[tuple[bytes, bytes]], place: tuple[str, Running, Running]
) -> None:
    with connect(place[0], 15009) as connected:
        peer = Http2(connected)
        stream = peer.request(head(b"/malformed-trailers", b"POST"), body=b"x", end=False)
        peer.trailers(stream, fields)
        assert peer.wait(stream).status == 400
        unended = peer.request(head(b"/unended-trailers", b"POST"), body=b"x", end=False)
        peer.trailers(unended, [(b"x", b"1")], end=False)
        assert peer.wait(unended).reset == 1
        assert peer.wait(peer.request(head(b"/after?size=3"))).status == 200


def test_cookies_in_pieces_become_one(place: tuple[str, Running, Running]) -> None:
    address, _, recording = place
    with connect(address, 15009) as connected:
        peer = Http2(connected)
        fields = head(b"/cookies", b"GET", (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"))
        assert peer.wait(peer.request(fields)).status == 200
    assert seen(recording, "/cookies")["headers"] == [["host", "a.example"], ["x", "y"], ["cookie", "a=1; b=2"]]


def test_host_is_what_the_client_named(place: tuple[str, Running, Running]) -> None:
    address, _, recording = place
    http1(address, b"GET http://Other.Example:81/absolute HTTP/1.1\r\nhost: other.example:81\r\n\r\n")
    http1(address, b"GET /old HTTP/1.0\r\n\r\n")
    http1(address, b"OPTIONS * HTTP/1.1\r\nhost: star\r\n\r\n")
    assert seen(recording, "/absolute")["headers"] == [["host", "Other.Example:81"]]
    assert seen(recording, "/old")["headers"] == [["host", ""]]

    def star() -> bool:
        return any(note.get("target") == "*" and note["headers"] == [["host", "star"]] for note in notes(recording))

    processes.wait_until(star, what="a request for the whole server, with its host")


def test_without_the_public_all_but_tunnels_is_404(address: str) -> None:
    with server(address) as hboned:
        assert status_of(http1(address, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")) == 404
        assert (
            curl("--http2-prior-knowledge", f"http://{address}:15009/x?canary", "-w", "%{http_code}").stdout[-3:]
            == b"404"
        )
        hboned.wait_for("tunnel refused")
    assert "canary" not in hboned.stderr


def test_log_lines_are_one_for_each_connection_and_hold_no_secret(address: str) -> None:
    with served(address, KRUN_LOG_LEVEL="debug") as (hboned, _):
        with connect(address, 15009):
            pass  # a TCP probe
        secret = "authorization: Bearer canary\r\ncookie: canary=1\r\n"
        both = f"GET /a?canary=1 HTTP/1.1\r\nhost: a\r\n{secret}\r\nGET /b?size=5 HTTP/1.1\r\nhost: a\r\n\r\n"
        assert http1(address, both.encode()).count(b"HTTP/1.1 200") == 2
        assert status_of(http1(address, f"GET /%zz?canary HTTP/1.1\r\n{secret}canary\r\n\r\n".encode())) == 400
        with connect(address, 15009) as connected:
            peer = Http2(connected)
            assert peer.wait(peer.request(head(b"/c?canary=1", b"GET", (b"x-canary", b"canary")))).status == 200
        processes.wait_until(lambda: len(lines(hboned, "connection closed")) == 3, what="three lines")
        assert [line["count"] for line in lines(hboned, "connection closed")] == [2, 1, 1]
        processes.wait_until(lambda: bool(lines(hboned, "connection without a request")), what="the probe")
        assert {line["severity"] for line in lines(hboned, "connection without a request")} == {"DEBUG"}
    assert "canary" not in hboned.said()


def test_slow_head_is_408_and_a_pipelined_one_is_served(address: str) -> None:
    with served(address), connect(address, 15009) as slow:
        slow.sendall(b"GET / HT")
        for end in (b"\r\n\r\n", b"\r\n\r\n\r\n"):  # empty lines before a request are forgiven
            two = b"GET /?size=1 HTTP/1.1\r\nhost: a" + end
            assert http1(address, two * 3).count(b"HTTP/1.1 200") == 3
        assert status_of(slow.recv(65536)) == 408


def test_streams_that_are_reset_in_the_same_breath_never_reach_the_application(address: str) -> None:
    with served(address) as (_, recording), connect(address, 15009) as connected:
        peer = Http2(connected)
        assert peer.wait(peer.request(head(b"/before?size=1"))).status == 200
        connected.sendall(b"".join(peer.written(head(b"/reset"), then_reset=True) for _ in range(300)))
        assert peer.wait(peer.request(head(b"/after?size=1"))).status == 200
        # TCP may cut them anywhere: a few may have come without their reset.
        assert len([note for note in notes(recording) if note.get("target") == "/reset"]) < 30
