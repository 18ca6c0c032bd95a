"""The tunnel with HTTP/2 of others at one end or between: what passes is whole both ways, and so are its ends."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from krun_testbed import bench_tunnel_envoy, components, processes, tunnel_peers
from krun_testbed.certificates import Authority, write
from krun_testbed.cloudrun import CloudRun, Service
from krun_testbed.google_tokens import Issuer
from krun_testbed.tunnels import connect, digest_after_end, forward, lines, pipe, read_all, server, target, tls_flags

pytestmark = pytest.mark.loopback

RANDOM = os.urandom(3 * 1024 * 1024)
DIGEST = hashlib.sha256(RANDOM).hexdigest()
HOST = bench_tunnel_envoy.NAME
IS_LONG = bool(os.environ.get("KRUN_SOAK"))
# The long form has both; else each end as it mostly is: hboned without TLS behind a front, hbone with it.
TO_HBONED = ("http", "https") if IS_LONG else ("http",)
FROM_HBONE = ("http", "https") if IS_LONG else ("https",)
LOCAL = 7100  # where an end of somebody else's listens for what goes into tunnels


def digest_of(data: bytes) -> tuple[str, str]:
    """What the target says of what it got, and what came back of it."""
    return data[:64].decode(), hashlib.sha256(data[64:]).hexdigest()


def ask(address: str, port: int) -> tuple[str, str]:
    """Say all, end, and read to the end what is answered after that."""
    with connect(address, port) as client:

        def say() -> None:
            client.sendall(RANDOM)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=say)
        sender.start()
        answer = read_all(client)
        sender.join(processes.WAIT)
    return digest_of(answer)


def curl(*argv: str) -> subprocess.CompletedProcess[bytes]:
    program = components.program("curl", package="curl")
    return subprocess.run(
        [program, "-sS", "--max-time", "60", *argv], input=RANDOM, capture_output=True, timeout=90, check=False
    )


def test_curl_as_client_over_tls(address: str, authority: Authority, tmp_path: Path) -> None:
    flags = tls_flags(authority, tmp_path, HOST)
    with target(address, digest_after_end), server(address, *flags):
        place = ("--resolve", f"{HOST}:15009:{address}", "--cacert", str(tmp_path / "root.pem"))
        done = curl("--http2", "-X", "POST", "-T", "-", *place, f"https://{HOST}:15009/_hbone/15003")
    assert digest_of(done.stdout) == (DIGEST, DIGEST)


@pytest.mark.parametrize("scheme", TO_HBONED)
def test_nghttp_as_client(address: str, authority: Authority, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "body").write_bytes(RANDOM)
    nghttp = components.program("nghttp", package="nghttp2-client")
    flags = tls_flags(authority, tmp_path, HOST) if scheme == "https" else ()
    with target(address, digest_after_end), server(address, *flags):
        argv = [nghttp, "--no-verify-peer", "-d", str(tmp_path / "body"), f"{scheme}://{address}:15009/_hbone/15003"]
        done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert digest_of(done.stdout) == (DIGEST, DIGEST)


@pytest.mark.parametrize("scheme", TO_HBONED)
def test_h2load_as_client_with_many_tunnels_of_few_connections(
    address: str, authority: Authority, tmp_path: Path, scheme: str
) -> None:
    body = RANDOM[:20_000]
    (tmp_path / "body").write_bytes(body)
    h2load = components.program("h2load", package="nghttp2-client")
    flags = tls_flags(authority, tmp_path, HOST) if scheme == "https" else ()
    with target(address, digest_after_end), server(address, *flags) as hboned:
        argv = [h2load, "-n", "200", "-c", "4", "-m", "10", "-d", str(tmp_path / "body")]
        done = processes.run([*argv, f"{scheme}://{address}:15009/_hbone/15003"])
        processes.wait_until(lambda: len(lines(hboned, "tunnel closed")) == 200, what="200 tunnels closed")
    assert "200 succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout
    data = re.search(r"\((\d+)\) data", done.stdout)
    assert data is not None
    assert int(data[1]) == 200 * (64 + len(body))
    assert {(line["sent"], line["received"]) for line in lines(hboned, "tunnel closed")} == {(20_000, 20_064)}


@pytest.mark.parametrize("scheme", TO_HBONED)
@pytest.mark.parametrize("method", ["POST", "CONNECT"])
def test_envoy_as_client(address: str, authority: Authority, tmp_path: Path, method: str, scheme: str) -> None:
    is_tls = scheme == "https"
    flags = tls_flags(authority, tmp_path, HOST) if is_tls else ()
    config = tunnel_peers.envoy_client(
        address=address,
        port=LOCAL,
        server=(address, 15009),
        root=tmp_path / "root.pem" if is_tls else None,
        method=method,
    )
    with (
        target(address, digest_after_end),
        server(address, *flags) as hboned,
        tunnel_peers.envoy(config, folder=tmp_path, address=address, ports=[LOCAL]),
    ):
        assert ask(address, LOCAL) == (DIGEST, DIGEST)
        hboned.wait_for(f'"sent": {len(RANDOM)}')


def check_both_forms(address: str, *arguments: str) -> None:
    """Both forms of our client, with all that goes and comes compared."""
    *flags, tunnel = arguments
    done = pipe(*flags, tunnel, data=RANDOM)
    assert (done.returncode, done.stderr) == (0, b"")
    assert digest_of(done.stdout) == (DIGEST, DIGEST)
    with forward(address, tunnel, *flags) as (_, port):
        assert ask(address, port) == (DIGEST, DIGEST)


def arguments_for(address: str, scheme: str, port: int, folder: Path) -> tuple[str, ...]:
    """A tunnel to 15003 behind a server at that port, and where it is reached and trusted."""
    if scheme == "http":
        return (f"http://{address}:{port}/_hbone/15003",)
    flags = ("--ca-file", str(folder / "root.pem"), "--connect-to", f"{address}:{port}")
    return (*flags, f"https://{HOST}/_hbone/15003")


def pair_of(authority: Authority, folder: Path) -> tuple[Path, Path]:
    tls_flags(authority, folder, HOST)
    return folder / "server.pem", folder / "server.key"


@pytest.mark.parametrize("scheme", FROM_HBONE)
def test_envoy_as_server(address: str, authority: Authority, tmp_path: Path, scheme: str) -> None:
    pair = pair_of(authority, tmp_path) if scheme == "https" else None
    config = bench_tunnel_envoy.server(address=address, port=9000, targets=[(address, 15003)], pair=pair)
    with target(address, digest_after_end), tunnel_peers.envoy(config, folder=tmp_path, address=address, ports=[9000]):
        check_both_forms(address, *arguments_for(address, scheme, 9000, tmp_path))


@pytest.mark.parametrize("scheme", TO_HBONED)
def test_go_as_client(address: str, authority: Authority, tmp_path: Path, scheme: str) -> None:
    flags = tls_flags(authority, tmp_path, address) if scheme == "https" else ()
    with (
        target(address, digest_after_end),
        server(address, *flags),
        tunnel_peers.go_client(address, port=LOCAL, mode="tls" if flags else "h2c"),
    ):
        assert ask(address, LOCAL) == (DIGEST, DIGEST)


@pytest.mark.parametrize("scheme", FROM_HBONE)
def test_go_as_server(address: str, authority: Authority, tmp_path: Path, scheme: str) -> None:
    pair = pair_of(authority, tmp_path) if scheme == "https" else None
    with target(address, digest_after_end), tunnel_peers.go_server(address, port=9000, pair=pair):
        check_both_forms(address, *arguments_for(address, scheme, 9000, tmp_path))


@pytest.mark.parametrize("scheme", FROM_HBONE)
def test_haproxy_in_front(address: str, authority: Authority, tmp_path: Path, scheme: str) -> None:
    certificate = None
    if scheme == "https":
        chain, key = pair_of(authority, tmp_path)
        certificate = tmp_path / "both.pem"
        write(path=certificate, content=chain.read_bytes() + key.read_bytes())
    with (
        target(address, digest_after_end),
        server(address),
        tunnel_peers.haproxy(address, folder=tmp_path, certificate=certificate),
    ):
        check_both_forms(address, *arguments_for(address, scheme, 9000, tmp_path))


def test_cloud_runs_front_in_between(
    address: str, authority: Authority, issuer: Issuer, cloud_run: Callable[..., CloudRun], tmp_path: Path
) -> None:
    write(path=tmp_path / "root.pem", content=authority.root)
    write(path=tmp_path / "token", content=issuer.id_token(f"https://{HOST}").encode())
    env = {"KRUN_LOOPBACK": address, "KRUN_BIND": address}
    service = Service(name="b", host=HOST, command=["hboned"], address=address, env=env, startup_timeout=processes.WAIT)
    with cloud_run(service) as front, target(address, digest_after_end):
        host, port = front.listen
        arguments = arguments_for(host, "https", port, tmp_path)
        check_both_forms(address, "--token-file", str(tmp_path / "token"), *arguments)
