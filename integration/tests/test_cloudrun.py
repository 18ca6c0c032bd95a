"""The front of Cloud Run, by real TLS and HTTP/2: the platform's rules hold before and around a container."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import pytest

from krun_testbed import addresses, processes
from krun_testbed.certificates import Authority
from krun_testbed.cloudrun import CloudRun, Failed, Service
from krun_testbed.google_tokens import Issuer

pytestmark = pytest.mark.loopback

HOST = "b-424242.local1.run.app"
OPEN_HOST = "open-424242.local1.run.app"
CONTAINER = [sys.executable, str(Path(__file__).parent / "data" / "h2c_container.py")]
URL = f"https://{HOST}"


class Client:
    """An HTTP/2 client of the front, as thin as the tests need it."""

    def __init__(self, front: CloudRun, authority: Authority, *, host: str = HOST, server_name: str = HOST) -> None:
        context = ssl.create_default_context(cadata=authority.root.decode())
        context.set_alpn_protocols(["h2"])
        raw = socket.create_connection(front.listen, timeout=processes.WAIT)
        self.socket = context.wrap_socket(raw, server_hostname=server_name)
        assert self.socket.selected_alpn_protocol() == "h2"
        self.host = host
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.headers: dict[int, dict[str, str]] = {}
        self.body: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.reset: set[int] = set()
        self.has_settings = False
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def open(self, path: str, *, token: str = "", method: str = "POST", end: bool = False, **headers: str) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":authority", self.host)]
        if method != "CONNECT":
            fields += [(":scheme", "https"), (":path", path)]
        if token:
            fields.append(("authorization", f"Bearer {token}"))
        fields += [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.h2.send_headers(stream, fields, end_stream=end)
        self.body[stream] = b""
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        self.h2.send_data(stream, data, end_stream=end)
        self.flush()

    def read(self) -> None:
        data = self.socket.recv(65536)
        assert data, "the front closed the connection"
        for event in self.h2.receive_data(data):
            self.take(event)
        self.flush()

    def take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self.headers[event.stream_id] = {str(name): str(value) for name, value in event.headers}
        elif isinstance(event, h2.events.DataReceived):
            self.body[event.stream_id] += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.add(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.reset.add(event.stream_id)
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            self.has_settings = True

    def read_until_refused(self, stream: int) -> None:
        """Read until the front resets the stream, or says good-bye to the connection."""
        with contextlib.suppress(h2.exceptions.ProtocolError, ConnectionError):
            while stream not in self.reset and (data := self.socket.recv(65536)):
                for event in self.h2.receive_data(data):
                    self.take(event)
                self.flush()

    def status(self, stream: int) -> int:
        """Wait for the response's headers."""
        while stream not in self.headers:
            assert stream not in self.reset, "the stream was reset without an answer"
            self.read()
        return int(self.headers[stream][":status"])

    def finish(self, stream: int) -> bytes:
        """Wait for the response's end."""
        while stream not in self.ended | self.reset:
            self.read()
        return self.body[stream]

    def ask(self, path: str, *, token: str = "", method: str = "POST", **headers: str) -> tuple[int, bytes]:
        stream = self.open(path, token=token, method=method, end=True, **headers)
        return self.status(stream), self.finish(stream)

    def close(self) -> None:
        self.socket.close()


def service(
    address: str, *, name: str = "b", host: str = HOST, is_open: bool = False, log: Path | None = None
) -> Service:
    return Service(
        name=name,
        host=host,
        command=CONTAINER,
        address=address,
        env={"KRUN_LOOPBACK": address, "MINE": "given"},
        allow_unauthenticated=is_open,
        startup_timeout=processes.WAIT,
        log=log,
    )


@pytest.fixture(scope="module")
def front(cloud_run: Callable[..., CloudRun]) -> Iterator[CloudRun]:
    services = [
        service(addresses.loopback()),
        service(addresses.loopback(), name="open", host=OPEN_HOST, is_open=True),
    ]
    with cloud_run(*services) as running:
        yield running


@pytest.fixture
def client(front: CloudRun, authority: Authority) -> Iterator[Client]:
    connected = Client(front, authority)
    yield connected
    connected.close()


def test_a_request_without_a_token_is_403(client: Client) -> None:
    status, body = client.ask("/tell")
    assert status == 403
    assert b"not authenticated" in body


def test_a_good_token_reaches_the_container_by_cleartext_http2(client: Client, issuer: Issuer) -> None:
    status, body = client.ask("/tell", token=issuer.id_token(URL))
    told = json.loads(body)
    assert status == 200
    assert told["headers"][":authority"] == HOST
    assert told["headers"]["x-forwarded-proto"] == "https"
    environment = told["environment"]
    assert (environment["PORT"], environment["K_SERVICE"], environment["MINE"]) == ("15009", "b", "given")
    assert environment["K_REVISION"].startswith("b-00001-")


def test_the_container_never_sees_the_token(client: Client, issuer: Issuer) -> None:
    token = issuer.id_token(URL)
    signature = token.rpartition(".")[2].encode()
    assert signature not in client.ask("/tell", token=token)[1]
    assert signature not in client.ask("/tell", x_serverless_authorization=f"Bearer {token}")[1]


@pytest.mark.parametrize("audience", ["https://other-424242.local1.run.app", HOST, f"{URL}:443", f"{URL}/"])
def test_a_token_for_another_audience_is_refused(client: Client, issuer: Issuer, audience: str) -> None:
    assert client.ask("/tell", token=issuer.id_token(audience))[0] in (401, 403)


def test_a_token_that_expired_or_is_of_another_issuer_is_refused(client: Client, issuer: Issuer) -> None:
    assert client.ask("/tell", token=issuer.id_token(URL, life=-60))[0] == 401
    assert client.ask("/tell", token=Issuer().id_token(URL))[0] == 401
    assert client.ask("/tell", token="nonsense")[0] == 401


def test_the_serverless_header_wins_and_the_other_is_the_applications(client: Client, issuer: Issuer) -> None:
    good = f"Bearer {issuer.id_token(URL)}"
    status, body = client.ask("/tell", token="of-the-application", x_serverless_authorization=good)
    assert status == 200
    headers = json.loads(body)["headers"]
    assert headers["authorization"] == "Bearer of-the-application"
    assert "x-serverless-authorization" not in headers
    bad = client.ask("/tell", token=issuer.id_token(URL), x_serverless_authorization="Bearer wrong")
    assert bad[0] == 401


def test_identity_headers_are_the_containers_business(client: Client, issuer: Issuer) -> None:
    _, body = client.ask("/tell", token=issuer.id_token(URL), x_forwarded_client_cert="URI=spiffe://forged")
    assert json.loads(body)["headers"]["x-forwarded-client-cert"] == "URI=spiffe://forged"


@pytest.mark.parametrize(("method", "status"), [("CONNECT", 404), ("TRACE", 405)])
def test_connect_and_trace_never_reach_the_container(client: Client, issuer: Issuer, method: str, status: int) -> None:
    answer, body = client.ask("/tell", token=issuer.id_token(URL), method=method)
    assert (answer, body) == (status, b"")
    assert client.ask("/tell", token=issuer.id_token(URL))[0] == 200


@pytest.mark.parametrize(("request_line", "status"), [(f"CONNECT {HOST}:443", 404), ("TRACE /tell", 405)])
def test_connect_and_trace_are_refused_to_http1_too(
    front: CloudRun, authority: Authority, issuer: Issuer, request_line: str, status: int
) -> None:
    with http1(front, authority) as connection:
        token = issuer.id_token(URL)
        connection.sendall(f"{request_line} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        assert connection.recv(4096).startswith(f"HTTP/1.1 {status} ".encode())


def http1(front: CloudRun, authority: Authority) -> ssl.SSLSocket:
    context = ssl.create_default_context(cadata=authority.root.decode())
    context.set_alpn_protocols(["http/1.1"])
    raw = socket.create_connection(front.listen, timeout=processes.WAIT)
    return context.wrap_socket(raw, server_hostname=HOST)


def test_an_unknown_host_and_a_reserved_path_are_404(front: CloudRun, authority: Authority, issuer: Issuer) -> None:
    token = issuer.id_token(URL)
    for host, path in ((f"nobody.{HOST}", "/tell"), (HOST, "/healthz")):
        client = Client(front, authority, host=host)
        assert client.ask(path, token=token)[0] == 404
        client.close()


def test_a_service_may_take_requests_without_a_token(front: CloudRun, authority: Authority) -> None:
    client = Client(front, authority, host=OPEN_HOST, server_name=OPEN_HOST)
    status, body = client.ask("/tell", token="anything")
    client.close()
    assert status == 200
    assert json.loads(body)["headers"]["authorization"] == "Bearer anything"


def test_a_body_streams_both_ways_at_once(client: Client, issuer: Issuer) -> None:
    stream = client.open("/echo", token=issuer.id_token(URL))
    assert client.status(stream) == 200
    expected = b""
    for piece in (b"one ", b"two ", b"three"):
        client.send(stream, piece)
        expected += piece
        while client.body[stream] != expected:
            client.read()
    client.send(stream, b"", end=True)
    assert client.finish(stream) == expected
    assert stream in client.ended


def test_a_connection_carries_100_streams_and_a_further_one_is_refused(client: Client, issuer: Issuer) -> None:
    while not client.has_settings:
        client.read()
    assert client.h2.remote_settings.max_concurrent_streams == 100
    token = issuer.id_token(URL)
    streams = [client.open("/echo", token=token) for _ in range(100)]
    assert {client.status(stream) for stream in streams} == {200}
    with pytest.raises(h2.exceptions.TooManyStreamsError):
        client.open("/echo", token=token)
    # What a client does that does not obey: the front refuses the stream.
    client.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 200
    client.h2.remote_settings.acknowledge()
    over = client.open("/echo", token=token)
    client.read_until_refused(over)
    assert over not in client.headers


def test_http1_clients_are_served_too(front: CloudRun, authority: Authority, issuer: Issuer) -> None:
    connection = http.client.HTTPConnection(HOST)
    connection.sock = http1(front, authority)
    connection.request("GET", "/tell", headers={"Authorization": f"Bearer {issuer.id_token(URL)}"})
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read())["environment"]["K_SERVICE"] == "b"
    connection.close()


def test_the_request_timeout_cuts_a_stream_that_is_under_way(
    cloud_run: Callable[..., CloudRun], issuer: Issuer, authority: Authority
) -> None:
    with cloud_run(service(addresses.loopback()), request_timeout=0.6) as front:
        client = Client(front, authority)
        token = issuer.id_token(URL)
        silent = client.open("/silent", token=token)
        streaming = client.open("/echo", token=token)
        assert client.status(streaming) == 200
        client.finish(streaming)
        assert streaming in client.reset
        assert client.status(silent) == 504
        client.close()


def test_an_instance_ends_by_sigterm_and_no_process_or_file_is_left(
    cloud_run: Callable[..., CloudRun], tmp_path: Path
) -> None:
    address = addresses.loopback()
    log = tmp_path / "b.log"
    parent = tmp_path / "front"
    parent.mkdir()
    with cloud_run(service(address, log=log), directory=parent) as front:
        pid = front.instances["b"].pid
        assert front.url("b") == URL
        assert list(parent.iterdir())
        front.check()
    assert log.read_text() == "ended by SIGTERM\n"
    assert not processes.listens(address, 15009)
    assert not processes.listens(*front.listen)
    assert not Path(f"/proc/{pid}").exists()
    assert list(parent.iterdir()) == []


def test_a_process_that_left_its_group_ends_with_the_container(
    cloud_run: Callable[..., CloudRun], tmp_path: Path
) -> None:
    address = addresses.loopback()
    file = tmp_path / "pid"
    command = f"setsid sh -c 'echo $$ >{file}; exec sleep 1000' & exec {' '.join(CONTAINER)}"
    lonely = Service(name="b", host=HOST, command=command, address=address, env={"KRUN_LOOPBACK": address})
    with cloud_run(lonely):
        processes.wait_until(lambda: file.exists() and bool(file.read_text()), what="the process tells its pid")
    processes.wait_until(lambda: not lives(int(file.read_text())), what="the process is gone")


def lives(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_death_is_noticed_and_told(
    cloud_run: Callable[..., CloudRun], issuer: Issuer, authority: Authority, capfd: pytest.CaptureFixture[str]
) -> None:
    with cloud_run(service(addresses.loopback())) as front:
        client = Client(front, authority)
        client.open("/exit", token=issuer.id_token(URL), end=True)
        assert front.wait_for_death(timeout=processes.WAIT)
        with pytest.raises(Failed, match="b: the container ended with 3"):
            front.check()
        client.close()
    assert "cloudrun: b: the container ended with 3" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("exit 9", "b: the container ended with 9 before it listened"),
        ("exec sleep 1000", "b: nothing listens on .* after 0.5 s"),
        (["/nowhere/to/be/found"], "b: cannot start /nowhere/to/be/found"),
    ],
)
def test_a_container_that_does_not_start_is_told(
    cloud_run: Callable[..., CloudRun], command: str | list[str], message: str
) -> None:
    broken = Service(name="b", host=HOST, command=command, address=addresses.loopback(), startup_timeout=0.5)
    with pytest.raises(Failed, match=message), cloud_run(broken):
        pass


def test_it_runs_alone_and_stops_cleanly(tmp_path: Path) -> None:
    listen, address = addresses.loopback(), addresses.loopback()
    port = addresses.free_port(address=listen)
    argv = [sys.executable, "-m", "krun_testbed.cloudrun", "--listen", f"{listen}:{port}"]
    argv += ["--write-to", str(tmp_path / "trust"), "--env", "MINE=x"]
    argv += ["--service", "b", HOST, address, f"exec {' '.join(CONTAINER)}"]
    with processes.start(argv, env=processes.environment(TMPDIR=str(tmp_path))) as running:
        running.wait_for("ready on")
        assert processes.listens(address, 15009)
        assert running.terminate() == 0
        assert "ended by SIGTERM" in running.stdout
        assert "Traceback" not in running.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trust"]
    assert not processes.listens(address, 15009)


def test_alone_it_ends_when_its_container_dies(tmp_path: Path) -> None:
    listen, address = addresses.loopback(), addresses.loopback()
    port = addresses.free_port(address=listen)
    argv = [sys.executable, "-m", "krun_testbed.cloudrun", "--listen", f"{listen}:{port}"]
    argv += ["--write-to", str(tmp_path / "trust"), "--env", f"PIDFILE={tmp_path / 'pid'}"]
    argv += ["--service", "b", HOST, address, f"echo $$ >$PIDFILE; exec {' '.join(CONTAINER)}"]
    with processes.start(argv) as running:
        running.wait_for("ready on")
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        assert running.wait() == 1
        assert "b: the container ended with 137" in running.stderr
