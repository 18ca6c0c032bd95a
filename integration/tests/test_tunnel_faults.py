"""What hbone says, and how it ends, when no tunnel comes about, or the front cuts it: Cloud Run, TLS, names."""

from __future__ import annotations

import datetime
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from krun_testbed import addresses, footprint, nameless, processes
from krun_testbed.certificates import Authority, Pair, write
from krun_testbed.cloudrun import CloudRun, Service
from krun_testbed.google_tokens import EMAIL, Issuer
from krun_testbed.h2_peers import Front
from krun_testbed.tunnels import connect, echo, forward, lines, pipe, read_exactly, server, target, url

pytestmark = pytest.mark.loopback

DOMAIN = "424242.local1.run.app"
HOST, SILENT, CRASHED, UNKNOWN = (f"{name}-{DOMAIN}" for name in ("b", "silent", "crashed", "unknown"))
LIMIT = 1  # seconds that the front gives a request
# It takes connections, and says nothing.
MUTE = """
import os, socket
listener, taken = socket.create_server((os.environ["ADDRESS"], 15009)), []
while True:
    taken.append(listener.accept())
"""
AUDIENCE = f"the ID token's audience must be https://{HOST}, and its account an invoker (roles/run.invoker)"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A front, and what a client of it needs."""

    front: CloudRun
    issuer: Issuer
    folder: Path
    address: str

    def flags(self, *, token: str | None) -> list[str]:
        host, port = self.front.listen
        flags = ["--ca-file", str(self.folder / "root.pem"), "--connect-to", f"{host}:{port}"]
        if token is not None:
            file = self.folder / f"token-{addresses.free_port()}"
            write(path=file, content=token.encode())
            flags += ["--token-file", str(file)]
        return flags


@dataclass(frozen=True, kw_only=True)
class Wide:
    """Certificates that are for one host more: the front has it, and no service."""

    authority: Authority

    def server(self, *, hosts: tuple[str, ...]) -> Pair:
        return self.authority.server(hosts=(*hosts, UNKNOWN))


def service(name: str, host: str, command: str | list[str]) -> Service:
    address = addresses.loopback()
    env = {"KRUN_LOOPBACK": address, "KRUN_BIND": address, "ADDRESS": address}
    return Service(name=name, host=host, command=command, address=address, env=env, startup_timeout=processes.WAIT)


@pytest.fixture(scope="module")
def place(issuer: Issuer, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("front")
    write(path=folder / "root.pem", content=authority.root)
    services = (
        service("b", HOST, ["hboned"]),
        service("silent", SILENT, [sys.executable, "-Ic", MUTE]),
        service("crashed", CRASHED, ["hboned"]),
    )
    host = addresses.loopback()
    front = CloudRun(
        services=services,
        issuer=issuer,
        authority=Wide(authority=authority),
        listen=(host, addresses.free_port(address=host)),
        request_timeout=LIMIT,
        directory=folder,
    )
    with front, target(services[0].address, echo):
        front.instances["crashed"].stop()
        yield Place(front=front, issuer=issuer, folder=folder, address=services[0].address)


def refused(address: str, *arguments: str, secret: str = "canary") -> tuple[int, str, str]:
    """Status, message and hint of hbone, whose -L says the same of a connection, which it breaks; and no secret."""
    *flags, tunnel = arguments
    done = pipe(*flags, tunnel)
    assert done.stdout == b""
    error, hint = done.stderr.decode().splitlines()
    assert error.startswith("hbone: error: ")
    assert hint.startswith("hint: ")
    message, hint = error.removeprefix("hbone: error: "), hint.removeprefix("hint: ")
    with forward(address, tunnel, *flags) as (running, port):
        broken_by(address, port)
        running.wait_for("tunnel refused")
        (line,) = lines(running, "tunnel refused")
    assert str(line["reason"]).replace(". (hint: ", " (hint: ") == f"{message} (hint: {hint})"
    assert secret not in running.said() + done.stderr.decode()
    return done.returncode, message, hint


def broken_by(address: str, port: int) -> None:
    """The connection is reset: nobody may take it for an empty answer."""
    with pytest.raises(ConnectionResetError), connect(address, port) as client:
        assert client.recv(1) != b""


def test_without_a_token_it_is_said_how_to_give_one(place: Place) -> None:
    status, message, hint = refused(place.address, *place.flags(token=None), f"https://{HOST}/_hbone/15003")
    assert (status, message) == (
        77,
        f"no tunnel to https://{HOST}/_hbone/15003: status 403, "
        "The request was not authenticated. Set the proper Authorization header",
    )
    assert hint == f"no ID token was sent; give --token-command or --token-file, for audience https://{HOST}"


def test_token_for_somebody_else_is_told_by_audience_email_and_expiry(place: Place) -> None:
    token = place.issuer.id_token("https://other.example")
    arguments = (*place.flags(token=token), f"https://{HOST}/_hbone/15003")
    status, message, hint = refused(place.address, *arguments, secret=token.rpartition(".")[2])
    assert status == 77
    assert "status 40" in message
    told = f"{AUDIENCE}; the one that was sent has audience https://other.example, email {EMAIL}, expires 20"
    assert hint.startswith(told)
    assert hint.endswith("Z")


def test_token_that_has_expired_is_told_so(place: Place) -> None:
    token = place.issuer.id_token(f"https://{HOST}", life=-60)
    arguments = (*place.flags(token=token), f"https://{HOST}/_hbone/15003")
    status, message, hint = refused(place.address, *arguments, secret=token.rpartition(".")[2])
    assert (status, "status 401" in message) == (77, True)
    assert hint.endswith("Z, which is over")


def test_access_token_is_told_to_be_the_wrong_kind(place: Place) -> None:
    arguments = (*place.flags(token="ya29.canary"), f"https://{HOST}/_hbone/15003")
    status, message, hint = refused(place.address, *arguments)
    assert (status, "status 401" in message) == (77, True)
    assert hint == f"what was sent is no ID token (a JWT), but perhaps an access token; {AUDIENCE}"


def test_port_that_is_not_offered_and_host_that_is_no_service_are_404(place: Place) -> None:
    flags = place.flags(token=place.issuer.id_token(f"https://{HOST}"))
    told = {f"https://{HOST}/_hbone/9999": ", port 9999 is not offered", f"https://{UNKNOWN}/_hbone/15003": ""}
    for tunnel, text in told.items():
        status, message, hint = refused(place.address, *flags, tunnel)
        assert (status, message) == (78, f"no tunnel to {tunnel}: status 404{text}")
        assert "KRUN_OFFER" in hint


def test_container_that_is_gone_is_503(place: Place) -> None:
    token = place.issuer.id_token(f"https://{CRASHED}")
    status, message, hint = refused(place.address, *place.flags(token=token), f"https://{CRASHED}/_hbone/15003")
    assert status == 69
    assert message.startswith(f"no tunnel to https://{CRASHED}/_hbone/15003: status 503, ")
    assert hint == "nobody listens on that port there, or the container does not start"


def test_front_that_has_no_instance_says_so(address: str) -> None:
    with target(address, Front(status=429, text="Rate exceeded.\n"), port=15009):
        status, message, hint = refused(address, url(address))
    assert (status, message) == (69, f"no tunnel to {url(address)}: status 429, Rate exceeded")
    assert hint == "no instance is free; raise concurrency or the number of instances"


def test_container_that_does_not_answer_in_the_requests_time_is_a_deadline(place: Place) -> None:
    token = place.issuer.id_token(f"https://{SILENT}")
    status, message, hint = refused(place.address, *place.flags(token=token), f"https://{SILENT}/_hbone/15003")
    assert status == 75
    assert "status 504" in message
    assert hint


def test_tunnel_that_the_front_cuts_at_its_timeout_is_broken_and_says_after_how_long(place: Place) -> None:
    tunnel = f"https://{HOST}/_hbone/15003"
    flags = place.flags(token=place.issuer.id_token(f"https://{HOST}"))
    with (
        processes.start(["hbone", *flags, tunnel], env=processes.environment(), stdin=subprocess.PIPE) as hbone,
        forward(place.address, tunnel, *flags) as (running, port),
    ):
        with connect(place.address, port) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert hbone.wait() == 69
        error, hint = hbone.stderr.splitlines()
        assert re.match(rf"hbone: error: the tunnel to {re.escape(tunnel)} broke after \d+ s: ", error)
        assert "request timeout (Cloud Run: 300 s" in hint
        running.wait_for("tunnel closed")
        (line,) = lines(running, "tunnel closed")
    assert line["reason"] != "ended"
    assert isinstance(line["duration_ms"], int)
    assert line["duration_ms"] >= 900 * LIMIT


def test_goaway_of_the_front_in_the_middle_ends_no_tunnel_and_new_ones_go_elsewhere(
    issuer: Issuer, authority: Authority, tmp_path: Path
) -> None:
    write(path=tmp_path / "root.pem", content=authority.root)
    write(path=tmp_path / "token", content=issuer.id_token(f"https://{HOST}").encode())
    b = service("b", HOST, ["hboned"])
    host, address = addresses.loopback(), b.address
    listen = (host, addresses.free_port(address=host))
    front = CloudRun(
        services=(b,), issuer=issuer, authority=authority, listen=listen, connection_life=0.2, directory=tmp_path
    )
    flags = ("--ca-file", str(tmp_path / "root.pem"), "--connect-to", f"{host}:{listen[1]}")
    flags += ("--token-file", str(tmp_path / "token"))
    tunnel = f"https://{HOST}/_hbone/15003"
    env = processes.environment()
    with (
        front,
        target(address, echo),
        processes.start(["hbone", *flags, tunnel], env=env, stdin=subprocess.PIPE) as hbone,
        forward(address, tunnel, *flags) as (running, port),
    ):
        told(hbone, "before")
        with connect(address, port) as first:
            said(first, b"before")

            def another_way() -> bool:
                with connect(address, port) as client:
                    said(client, b"new")
                    return footprint.connections(running.pid, host, listen[1]) > 1

            processes.wait_until(another_way, what="a new tunnel goes by another connection")
            said(first, b"after")
        told(hbone, "after")
        assert hbone.process.stdin is not None
        hbone.process.stdin.close()
        hbone.process.stdin = None
        assert (hbone.wait(), running.terminate()) == (0, 0)
        assert hbone.stderr == ""


def told(hbone: processes.Running, word: str) -> None:
    assert hbone.process.stdin is not None
    hbone.process.stdin.write(f"{word}\n".encode())
    hbone.process.stdin.flush()
    hbone.wait_for(f"^{word}$")


def said(client: socket.socket, word: bytes) -> None:
    client.sendall(word)
    assert read_exactly(client, len(word)) == word


def test_token_that_was_not_accepted_is_not_sent_again(place: Place, tmp_path: Path) -> None:
    tunnel = f"https://{HOST}/_hbone/15003"
    good = place.issuer.id_token(f"https://{HOST}")
    (tmp_path / "token").write_text(Issuer().id_token(f"https://{HOST}"))
    flags = [*place.flags(token=None), "--token-command", f"cat {tmp_path / 'token'}"]
    with forward(place.address, tunnel, *flags) as (_, port):
        broken_by(place.address, port)
        (tmp_path / "token").write_text(good)
        with connect(place.address, port) as client:
            said(client, b"let in")


HOUR = datetime.timedelta(hours=1)


@pytest.mark.parametrize(
    ("hosts", "life", "is_trusted", "reason", "hint"),
    [
        (("b.example",), -HOUR, True, "certificate has expired", "renewed"),
        (("c.example",), HOUR, True, "not valid for 'b.example'", "host must be one of the certificate"),
        (("b.example",), HOUR, False, "unable to get local issuer certificate", "KRUN_CA_FILE"),
    ],
)
def test_certificate_that_is_not_right_is_told_why(
    address: str,
    authority: Authority,
    tmp_path: Path,
    hosts: tuple[str, ...],
    life: datetime.timedelta,
    is_trusted: bool,
    reason: str,
    hint: str,
) -> None:
    pair = authority.server(hosts=hosts, life=life)
    root = authority.root if is_trusted else Authority().root
    for name, content in (("chain.pem", pair.chain), ("key.pem", pair.key), ("root.pem", root)):
        write(path=tmp_path / name, content=content)
    flags = ("--ca-file", str(tmp_path / "root.pem"), "--connect-to", f"{address}:15009")
    with server(address, "--tls-cert", str(tmp_path / "chain.pem"), "--tls-key", str(tmp_path / "key.pem")):
        status, message, told = refused(address, *flags, "https://b.example/_hbone/15003")
    assert status == 69
    assert message.startswith(f"cannot reach https://b.example at {address}:15009: TLS: ")
    assert reason in message
    assert hint in told


@pytest.mark.netns
@pytest.mark.parametrize(
    ("host", "has_server", "reason", "hint"),
    [
        ("absent.example", True, "Name or service not known", "is the host's name right?"),
        ("b.example", False, "Temporary failure in name resolution", "no name server answers"),
    ],
)
def test_name_that_leads_nowhere_is_told_why(
    tmp_path: Path, host: str, has_server: bool, reason: str, hint: str
) -> None:
    done = nameless.run(["hbone", f"{host}:22"], folder=tmp_path, has_server=has_server)
    assert done.returncode == 69, done.stderr
    error, told = done.stderr.splitlines()
    assert error == f"hbone: error: cannot reach https://{host} at {host}:443: {reason}"
    assert told.startswith(f"hint: {hint}")
