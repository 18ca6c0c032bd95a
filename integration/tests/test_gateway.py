"""hgate as a process: TLS clients on one side, real hboned and a real TLS server on the other."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import ssl
import time
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from krun_testbed import processes, tunnels
from krun_testbed.certificates import Authority
from krun_testbed.gateways import SNI, gate, the_line, tls, workload
from krun_testbed.tunnels import read_all, target

pytestmark = pytest.mark.loopback

RANDOM = os.urandom(10 * 1024 * 1024)
DIGEST = hashlib.sha256(RANDOM).hexdigest()


def connect(address: str) -> socket.socket:
    return tunnels.connect(address, 15442)


def test_tls_goes_through_unopened_and_names_the_service(address: str, authority: Authority, tmp_path: Path) -> None:
    with workload(address, authority, tmp_path) as b, gate(address) as hgate:
        with tls(b.context, connect(address)) as client:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
            certificate = client.getpeercert()
            assert certificate is not None
            assert ("DNS", "b.demo.svc.cluster.local") in certificate["subjectAltName"]
        assert b.names == [SNI]
        line = the_line(hgate, "connection closed")
        assert (line["sni"], line["url"]) == (SNI, f"http://{address}:15009/_hbone/15003")
        assert line["reason"] == "ended"


def test_ten_megabytes_both_ways(address: str, authority: Authority, tmp_path: Path) -> None:
    with workload(address, authority, tmp_path) as b, gate(address), tls(b.context, connect(address)) as client:
        assert echoed(client, RANDOM) == DIGEST


def echoed(client: ssl.SSLSocket, data: bytes) -> str:
    """Send it, and give the digest of as much that comes back.

    By one thread: an SSLSocket of Python 3.11 that two threads use at once breaks by itself (6 of 150 times, with
    nothing of ours between it and the echo).
    """
    client.setblocking(False)
    got = hashlib.sha256()
    sent = received = 0
    deadline = time.monotonic() + processes.WAIT
    while received < len(data):
        assert time.monotonic() < deadline, f"{sent} bytes sent, {received} came back"
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sent += client.send(data[sent : sent + 65536]) if sent < len(data) else 0
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while piece := client.recv(65536):
                got.update(piece)
                received += len(piece)
        select.select([client], [client] if sent < len(data) else [], [], 1)
    return got.hexdigest()


def test_nobody_behind_the_url_is_one_line_with_a_hint(address: str, authority: Authority) -> None:
    context = ssl.create_default_context(cadata=authority.root.decode())
    context.check_hostname = False
    with gate(address) as hgate:
        with connect(address) as plain, pytest.raises((ssl.SSLError, ConnectionResetError)):
            tls(context, plain)
        reason = str(the_line(hgate, "connection failed")["reason"])
        assert f"{address}:15009: Connection refused" in reason
        assert "hint: " in reason


def test_token_goes_in_the_header_of_serverless_fronts_and_into_no_log(address: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("canary.of.mine")
    seen: list[dict[str, str]] = []

    def forbid(connected: socket.socket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        connected.sendall(connection.data_to_send())
        while data := connected.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    seen.append({name.decode(): value.decode() for name, value in event.headers or ()})
                    connection.send_headers(event.stream_id or 0, [(":status", "403")], end_stream=True)
            connected.sendall(connection.data_to_send())

    context = ssl.create_default_context()
    variables = {"KRUN_ID_TOKEN_FILE": str(tmp_path / "token"), "KRUN_LOG_LEVEL": "debug"}
    with target(address, forbid, port=15009), gate(address, **variables) as hgate:
        with connect(address) as plain, pytest.raises((ssl.SSLError, ConnectionResetError)):
            tls(context, plain)
        line = the_line(hgate, "connection failed")
    assert line["status"] == 403
    assert "audience" in str(line["reason"])
    assert seen[0]["x-serverless-authorization"] == "Bearer canary.of.mine"
    assert "authorization" not in seen[0]
    assert "canary" not in hgate.said()


def test_50_connections_share_one_connection_to_the_server(address: str, authority: Authority, tmp_path: Path) -> None:
    with (
        workload(address, authority, tmp_path) as b,
        gate(address, "--workers", "1"),  # each has one of its own
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(tls(b.context, connect(address))) for _ in range(50)]
        for number, client in enumerate(clients):
            client.sendall(b"%05d" % number)
        for number, client in enumerate(clients):
            assert client.recv(5) == b"%05d" % number
        remote = f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}:{15009:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        assert len([row for row in rows if row[2] == remote and row[3] == "01"]) == 1


def test_sigterm_drains_and_open_connections_go_on(address: str, authority: Authority, tmp_path: Path) -> None:
    with workload(address, authority, tmp_path) as b, gate(address) as hgate:
        with tls(b.context, connect(address)) as client:
            hgate.signal(signal.SIGTERM)
            processes.wait_until(lambda: not processes.listens(address, 15442), what="the port is closed")
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
        assert hgate.wait() == 0
        assert json.loads(hgate.stderr.splitlines()[-1])["message"] == "drained"


def test_second_sigterm_ends_open_connections_at_once(address: str, authority: Authority, tmp_path: Path) -> None:
    with workload(address, authority, tmp_path) as b, gate(address) as hgate, connect(address) as plain:
        client = tls(b.context, plain)
        hgate.signal(signal.SIGTERM)
        processes.wait_until(lambda: not processes.listens(address, 15442), what="the port is closed")
        hgate.signal(signal.SIGTERM)
        assert hgate.wait(timeout=5) == 0
        # Read below TLS: Python takes a reset for an end there.
        with client, socket.socket(fileno=os.dup(client.fileno())) as raw, pytest.raises(ConnectionResetError):
            read_all(raw)
        assert the_line(hgate, "connection closed")["reason"] == "ended at once, by a signal"


@pytest.mark.parametrize(
    ("flags", "variables", "status", "named"),
    [
        ([], {}, 78, "KRUN_ROUTES"),
        ([], {"KRUN_ROUTES": "b=https://b.example"}, 78, "'b'"),
        (["--route", "*.demo=https://b.example"], {}, 2, "*.demo"),
        (["--route", "b.demo=nonsense"], {}, 2, "nonsense"),
        (["--route", "b.demo=https://b.example", "--listen", "nowhere:1"], {}, 2, "nowhere"),
        (["--route", "b.demo=https://b.example", "--connect-to", "b"], {}, 2, "--connect-to"),
        (["--route", "b.demo=https://b.example", "--ca-file", "none.pem"], {}, 78, "none.pem"),
        (["--route", "b.demo=http://192.0.2.1", "--token-file", "t"], {}, 78, "192.0.2.1"),
        (["--route", "b.demo=https://b.example", "--token-file", "t", "--token-command", "c"], {}, 78, "token"),
        (["--route", "b.demo=https://b.example", "--listen", "192.0.2.1:1"], {}, 78, "192.0.2.1:1"),
    ],
)
def test_bad_settings_are_named(flags: list[str], variables: dict[str, str], status: int, named: str) -> None:
    done = processes.run(["hgate", *flags], env=processes.environment(**variables))
    assert (done.returncode, done.stdout) == (status, "")
    assert named in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_port_that_is_taken_is_named(address: str) -> None:
    with socket.create_server((address, 15442)):
        env = processes.environment(KRUN_ROUTES="b.demo=https://b.example")
        done = processes.run(["hgate", "--listen", f"{address}:15442"], env=env)
    assert done.returncode == 78
    assert f"{address}:15442: Address already in use" in done.stderr
