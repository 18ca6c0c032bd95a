"""hboned with peers that are not ours: refusals, limits, settings."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
from pathlib import Path

import h2.errors
import h2.events
import pytest

from krun_testbed import addresses, components, processes
from krun_testbed.h2_peers import Peer
from krun_testbed.tunnels import (
    connect,
    digest_after_end,
    greet,
    lines,
    pipe,
    server,
    target,
    url,
)

pytestmark = pytest.mark.loopback

RANDOM = os.urandom(10 * 1024 * 1024)
DIGEST = hashlib.sha256(RANDOM).hexdigest()


def curl(*argv: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    program = components.program("curl", package="curl")
    return subprocess.run(
        [program, "-sS", "--max-time", "30", *argv], input=data, capture_output=True, timeout=60, check=False
    )


def test_curl_as_client(address: str) -> None:
    with target(address, digest_after_end), server(address):
        done = curl("--http2-prior-knowledge", "-X", "POST", "-T", "-", url(address), data=RANDOM)
        assert done.stdout[:64].decode() == DIGEST
        assert hashlib.sha256(done.stdout[64:]).hexdigest() == DIGEST


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/_hbone/15003", "405"),
        ("POST", "/_hbone/8080", "404"),
        ("POST", "/_hbone/15003", "503"),
        ("POST", "/", "404"),
        ("GET", "/index.html", "404"),
        ("POST", "/_hbone/../_hbone/15003", "404"),
        ("POST", "/_hbone/%31%35003", "404"),
        ("POST", "//_hbone/15003", "404"),
        ("POST", "/_hbone//15003", "404"),
    ],
)
def test_refusals_have_a_status_and_a_short_text(address: str, method: str, path: str, status: str) -> None:
    with server(address) as hboned:
        flags = ["--http2-prior-knowledge", "--path-as-is", "-w", "%{http_code}", "-X", method]
        done = curl(*flags, f"http://{address}:15009{path}")
        text, code = done.stdout.decode().rsplit("\n", 1)
        assert code == status
        assert 0 < len(text) < 200
        hboned.wait_for("tunnel refused")
        (line,) = lines(hboned, "tunnel refused")
        assert line["status"] == int(status)


def test_body_of_a_request_whose_target_is_gone_is_read_and_dropped(address: str) -> None:
    with target(address, greet), server(address), connect(address, 15009) as connected:
        peer = Peer(connected)
        stream = peer.open(address)
        peer.wait_for(h2.events.DataReceived, stream)
        left = 1024 * 1024
        while left:  # far more than the windows hold: somebody reads it
            count = min(left, peer.h2.local_flow_control_window(stream), 16384)
            if not count:
                peer.events = [e for e in peer.events if not isinstance(e, h2.events.WindowUpdated)]
                peer.wait_for(h2.events.WindowUpdated)
                continue
            peer.h2.send_data(stream, bytes(count))
            peer.flush()
            left -= count
        peer.h2.end_stream(stream)
        peer.flush()
        peer.wait_for(h2.events.StreamEnded, stream)
        assert not [event for event in peer.events if isinstance(event, h2.events.StreamReset)]


def test_refused_dial_is_503_before_any_200(address: str) -> None:
    with server(address), connect(address, 15009) as connected:
        peer = Peer(connected)
        stream = peer.open(address)
        event = peer.wait_for(h2.events.ResponseReceived, stream)
        assert isinstance(event, h2.events.ResponseReceived)
        assert dict(event.headers or ())[b":status"] == b"503"


def test_more_than_1000_streams_are_not_offered_and_not_taken(address: str) -> None:
    with server(address), connect(address, 15009) as connected:
        peer = Peer(connected)
        peer.wait_for(h2.events.RemoteSettingsChanged)
        assert peer.h2.remote_settings.max_concurrent_streams == 1000


def test_port_that_is_taken_is_named(address: str) -> None:
    with socket.create_server((address, 15009)):
        done = processes.run(["hboned"], env=processes.environment(KRUN_LOOPBACK=address))
    assert done.returncode == 78
    assert f"{address}:15009: Address already in use" in done.stderr
    done = processes.run(["hbone", "-L", "192.0.2.1:0", url(address)])
    assert done.returncode == 78


@pytest.mark.parametrize(
    ("flags", "variables", "named"),
    [
        ([], {"KRUN_OFFER": "15000"}, "15000"),
        ([], {"PORT_admin": "15090"}, "15090"),
        ([], {"KRUN_OFFER": "x"}, "'x'"),
        (["--bind", "nowhere"], {}, "nowhere"),
        (["--tls-cert", "only.pem"], {}, "--tls-key"),
        (["--tls-cert", "none.pem", "--tls-key", "none.key"], {}, "none.pem"),
    ],
)
def test_bad_settings_of_hboned_are_78_and_named(
    address: str, flags: list[str], variables: dict[str, str], named: str
) -> None:
    done = processes.run(["hboned", *flags], env=processes.environment(KRUN_LOOPBACK=address, **variables))
    assert done.returncode == 78
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_platforms_variables_place_the_server(address: str) -> None:
    port = str(addresses.free_port())
    env = processes.environment(K_SERVICE="b", PORT=port, KRUN_LOOPBACK=address)
    with processes.start(["hboned"], env=env) as hboned:
        assert json.loads(hboned.wait_for(".*ready.*")[0])["address"] == f"0.0.0.0:{port}"


def test_ports_of_the_application_are_offered_by_name(address: str) -> None:
    with target(address, greet, port=8080), server(address, PORT_http="8080"):
        assert pipe(url(address, "http")).stdout == b"hello\n"
        assert pipe(url(address, "8080")).returncode == 78


def test_canary_token_is_in_no_output_at_any_level(address: str, tmp_path: Path) -> None:
    claims = base64.urlsafe_b64encode(b'{"aud": "x"}').decode().rstrip("=")
    token = f"canary.{claims}.signature"
    (tmp_path / "token").write_text(token)
    variables = {"KRUN_ID_TOKEN_FILE": str(tmp_path / "token"), "KRUN_LOG_LEVEL": "debug"}
    with target(address, greet), server(address, KRUN_LOG_LEVEL="debug") as hboned:
        done = pipe(url(address), variables=variables)
        assert done.stdout == b"hello\n"
        hboned.wait_for("tunnel closed")
    assert "canary" not in hboned.said() + done.stderr.decode()
