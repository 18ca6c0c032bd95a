"""What programs of users do over 15009 works straight and through the front: curl, gRPC, WebSocket, bodies, events."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server

from krun_testbed import components, grpc_peers, processes, recorder
from krun_testbed.addresses import loopback
from krun_testbed.certificates import Authority
from krun_testbed.cloudrun import CloudRun
from krun_testbed.processes import Running
from krun_testbed.public_peers import app, head, http1, notes, status_of
from krun_testbed.public_ways import FRONT_HTTP1, FRONT_HTTP2, HTTP1, HTTP2, WAYS, Way, way
from krun_testbed.tunnels import connect

pytestmark = pytest.mark.loopback

IS_LONG = bool(os.environ.get("KRUN_SOAK"))
BODY = 2 * 1024**3 if IS_LONG else 48 * 1024**2
GRPC_PORT = 8081


@pytest.fixture(scope="module")
def address() -> str:
    return loopback()


@pytest.fixture(scope="module")
def recording(address: str) -> Iterator[Running]:
    with app(address) as running:
        yield running


@pytest.fixture(scope="module", params=WAYS)
def taken(
    request: pytest.FixtureRequest,
    address: str,
    recording: Running,
    authority: Authority,
    cloud_run: Callable[..., CloudRun],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Way]:
    folder = tmp_path_factory.mktemp("way")
    with way(
        request.param,
        address=address,
        authority=authority,
        cloud_run=cloud_run,
        folder=folder,
        variables={"PORT_grpc": str(GRPC_PORT)},
    ) as found:
        yield found


def noted(recording: Running, mark: str) -> dict[str, object]:
    def found() -> list[dict[str, object]]:
        return [note for note in notes(recording) if mark in str(note.get("target")) and "head" in note]

    processes.wait_until(lambda: bool(found()), what=mark, timeout=60)
    return found()[-1]


def test_request_reaches_the_application_as_the_user_sent_it(taken: Way, recording: Running) -> None:
    mark = f"/as-sent/{taken.name.replace(' ', '-').replace('/', '-')}"
    done = taken.curl(f"{mark}?a=%20b&c", "-H", "cookie: a=1; b=2", "-H", "x-envoy-peer: forged", "-d", "abc")
    assert done.returncode == 0, done.stderr
    note = json.loads(done.stdout)
    assert note["target"] == f"{mark}?a=%20b&c"
    headers = {name.lower(): value for name, value in note["headers"]}
    assert headers["host"] == taken.host
    assert headers["cookie"] == "a=1; b=2"
    assert headers["content-length"] == "3"
    assert not [name for name in headers if name.startswith("x-envoy")]
    if taken.root:
        assert headers["x-forwarded-proto"] == "https"
        assert headers["x-forwarded-for"]


def test_download_is_whole(taken: Way, tmp_path: Path) -> None:
    file = tmp_path / "got"
    done = taken.curl(f"/?size={BODY}", "-o", str(file), timeout=600)
    assert done.returncode == 0, done.stderr
    with file.open("rb") as got:
        assert hashlib.file_digest(got, "sha256").hexdigest() == recorder.digest(BODY)
    file.unlink()


@pytest.mark.parametrize("is_measured", [True, False])
def test_upload_is_whole(taken: Way, tmp_path: Path, is_measured: bool) -> None:
    if is_measured:
        file = tmp_path / "sent"
        with file.open("wb") as sent:
            for piece in recorder.pattern(BODY):
                sent.write(piece)
        done = taken.curl("/upload", "-T", str(file), timeout=600)
    else:
        done = poured(taken, "/upload")
    assert done.returncode == 0, done.stderr
    note = json.loads(done.stdout)
    assert (note["length"], note["sha256"], note["whole"]) == (BODY, recorder.digest(BODY), True)
    assert any(name.lower() == "content-length" for name, _ in note["headers"]) is is_measured


def poured(taken: Way, path: str) -> subprocess.CompletedProcess[bytes]:
    """curl, whose body comes from a pipe: nobody knows its length before."""
    argv = [components.program("curl", package="curl"), "-sS", *taken.flags, "-T", "-", f"{taken.url}{path}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            for piece in recorder.pattern(BODY):
                process.stdin.write(piece)
            process.stdin.close()
        process.stdin = None
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)


def test_events_arrive_at_once(taken: Way, address: str) -> None:
    argv = [components.program("curl", package="curl"), "-sSN", *taken.flags, f"{taken.url}/?events=3"]
    with processes.start(argv) as running:
        for number in range(3):
            running.wait_for(rf"data: {number}\n\n")
            assert status_of(http1(address, b"GET /go?size=0 HTTP/1.1\r\nhost: a\r\n\r\n", port=8080)) == 200
        assert running.wait() == 0


def test_trailers_of_the_answer_arrive(taken: Way, tmp_path: Path) -> None:
    done = taken.curl("/?size=3&trailers", "-D", str(tmp_path / "head"))
    assert done.stdout == recorder.PIECE[:3]
    assert "x-sum: 42" in (tmp_path / "head").read_text()


def test_upload_with_expect_is_asked_for_by_the_application(taken: Way) -> None:
    done = taken.curl("/?continue&size=3", "-H", "expect: 100-continue", "-T", "-", "-v", data=b"x" * 100_000)
    assert done.stdout == recorder.PIECE[:3], done.stderr
    if not taken.root:  # an Envoy answers for itself
        assert b" 100" in done.stderr


@pytest.mark.parametrize("size", [3, 3_000_000])
def test_early_answer_is_whole_while_the_body_still_comes(taken: Way, tmp_path: Path, size: int) -> None:
    path = f"/?early=1&status=403&size={size}"
    if taken.name == HTTP1:
        file = tmp_path / "got"
        taken.curl(path, "-o", str(file), "-T", "-", data=bytes(20_000_000))
        assert file.read_bytes() == b"".join(recorder.pattern(size))
        return
    with taken.frames() as peer:  # a front resets a stream at once after such an answer, which old curls do not like
        stream = peer.request(
            head(path.encode(), b"POST", authority=taken.host.encode()), body=bytes(60_000), end=False
        )
        while not peer.answers[stream].ended:
            peer.step()
        assert peer.answers[stream].data == b"".join(recorder.pattern(size))
        while peer.answers[stream].reset is None:
            peer.step()
        assert peer.answers[stream].reset == 0


def test_answer_that_breaks_off_is_an_error(taken: Way) -> None:
    for path in ("/?size=100000&cut=70000", "/?chunked&size=100000&cut=70000"):
        done = taken.curl(path)
        assert done.returncode in (18, 56, 92), (path, done.stderr)


def test_reserved_path_is_refused(taken: Way) -> None:
    for path in ("/_hbone/15000", "/%5fhbone/15003", "/x/../_hbone/15003"):
        assert taken.curl(path, "-w", "%{http_code}").stdout[-3:] == b"404"


def test_tunnel_shares_the_port_with_the_public(taken: Way) -> None:
    done = taken.curl("/_hbone/15003", "-X", "POST", "-w", "%{http_code}")
    # Nobody listens there now; over HTTP/1.1 there is no tunnel at all.
    assert done.stdout[-3:] == (b"503" if taken.name in (HTTP2, FRONT_HTTP2) else b"505")


@pytest.fixture(scope="module")
def calls(address: str) -> Iterator[grpc_peers.Calls]:
    with grpc_peers.service(address, GRPC_PORT) as found:
        yield found


def test_grpc_of_all_four_kinds(taken: Way, calls: grpc_peers.Calls) -> None:
    if taken.name in (HTTP1, FRONT_HTTP1):
        return  # there is no gRPC over HTTP/1.1
    with taken.grpc() as client:
        answer, trailers = client.unary(b"hello", metadata=(("x-envoy-peer", "forged"), ("x-own", "1")))
        assert (answer, trailers["x-sum"], trailers["x-raw-bin"]) == (b"hello", "5", b"\0\xff")
        keys = {key for key, _ in calls.metadata}
        assert "x-own" in keys
        assert not [key for key in keys if key.startswith("x-envoy")]
        with pytest.raises(grpc.RpcError) as failed:
            client.unary(b"fail now")
        assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "fail now")
        assert sum(len(piece) for piece in client.pour(300)) == 300 * grpc_peers.PIECE
        assert client.gather(bytes(50_000) for _ in range(200)) == b"10000000"
        said = threading.Semaphore(1)

        def messages() -> Iterator[bytes]:
            for number in range(20):
                said.acquire(timeout=20)  # the one before has come back: both directions are open
                yield b"%d" % number

        for number, message in enumerate(client.talk(messages())):
            assert message == b"%d" % number
            said.release()


@contextlib.contextmanager
def websocket_app(address: str) -> Iterator[None]:
    def echo(connection: websockets.sync.server.ServerConnection) -> None:
        for message in connection:
            if message == "bye":
                connection.close(4001, "as asked")
                return
            connection.send(message)

    with websockets.sync.server.serve(echo, address, 8082, max_size=None, subprotocols=["chat"]) as running:  # type: ignore[list-item]
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield
        finally:
            running.shutdown()
            thread.join(20)


@pytest.mark.parametrize("name", [HTTP1, FRONT_HTTP1])
def test_websocket_passes_where_http1_leads_to_the_container(
    name: str, authority: Authority, cloud_run: Callable[..., CloudRun], tmp_path: Path
) -> None:
    address = loopback()
    variables = {"PORT_http": "8082"}
    with (
        websocket_app(address),
        way(
            name, address=address, authority=authority, cloud_run=cloud_run, folder=tmp_path, variables=variables
        ) as taken,
        websockets.sync.client.connect(
            f"{taken.url.replace('http', 'ws')}/chat",
            sock=connect(*taken.listen),
            ssl=taken.tls(),
            server_hostname=taken.host if taken.root else None,
            max_size=None,
            subprotocols=["chat"],  # type: ignore[list-item]
        ) as client,
    ):
        assert client.subprotocol == "chat"
        for message in ("hello", b"\0\xff", b"x" * 5_000_000):
            client.send(message)
            assert client.recv(timeout=20) == message
        client.ping().wait(20)
        client.send("bye")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            client.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as asked")
