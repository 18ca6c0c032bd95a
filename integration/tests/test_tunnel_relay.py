"""The tunnel carries bytes and ends both ways, between processes, over h2c and TLS."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from krun_testbed import processes
from krun_testbed.certificates import Authority
from krun_testbed.footprint import resident
from krun_testbed.tunnels import (
    connect,
    digest_after_end,
    echo,
    forward,
    greet,
    lines,
    pipe,
    read_all,
    read_exactly,
    server,
    target,
    tls_flags,
    url,
)

pytestmark = pytest.mark.loopback

RANDOM = os.urandom(10 * 1024 * 1024)
DIGEST = hashlib.sha256(RANDOM).hexdigest()


def test_stdin_and_stdout_over_h2c(address: str) -> None:
    with target(address, digest_after_end), server(address) as hboned:
        done = pipe(url(address), data=b"hello")
        assert done.stdout == hashlib.sha256(b"hello").hexdigest().encode() + b"hello"
        assert (done.returncode, done.stderr) == (0, b"")
        hboned.wait_for("tunnel closed")
        (line,) = lines(hboned, "tunnel closed")
        assert line["target"] == f"{address}:15003"
        assert (line["sent"], line["received"], line["reason"]) == (5, 69, "ended")


def test_ten_megabytes_both_ways_over_h2c(address: str) -> None:
    with target(address, digest_after_end), server(address):
        done = pipe(url(address), data=RANDOM)
        assert done.stdout[:64].decode() == DIGEST
        assert hashlib.sha256(done.stdout[64:]).hexdigest() == DIGEST


def test_ten_megabytes_both_ways_at_the_same_time(address: str) -> None:
    with target(address, echo), server(address):
        assert hashlib.sha256(pipe(url(address), data=RANDOM).stdout).hexdigest() == DIGEST


def test_ten_megabytes_both_ways_over_tls_and_the_urls_host_is_verified(
    address: str, authority: Authority, tmp_path: Path
) -> None:
    flags = tls_flags(authority, tmp_path, "b.example")
    trust = {"KRUN_CA_FILE": str(tmp_path / "root.pem"), "KRUN_CONNECT_TO": f"{address}:15009"}
    with target(address, digest_after_end), server(address, *flags):
        done = pipe("b.example:15003", data=RANDOM, variables=trust)
        assert done.stdout[:64].decode() == DIGEST
        assert hashlib.sha256(done.stdout[64:]).hexdigest() == DIGEST
        other = pipe("https://c.example/_hbone/15003", variables=trust)
        assert other.returncode == 69
        assert b"c.example" in other.stderr
        assert b"hint: " in other.stderr
        distrusted = pipe("b.example:15003", variables={"KRUN_CONNECT_TO": f"{address}:15009"})
        assert distrusted.returncode == 69
        assert b"KRUN_CA_FILE" in distrusted.stderr


def test_target_that_speaks_first_is_heard_before_anything_is_sent(address: str) -> None:
    with target(address, greet), server(address):
        with processes.start(
            ["hbone", url(address)], env=processes.environment(), stdin=subprocess.PIPE
        ) as hbone:  # stdin stays open: hbone ends because the other side has
            hbone.wait_for("hello")
            assert hbone.wait() == 0
        assert hbone.stderr == ""


def test_target_that_ends_first_still_gets_what_is_sent_later(address: str) -> None:
    got: list[str] = []

    def end_first(connected: socket.socket) -> None:
        connected.sendall(b"first")
        connected.shutdown(socket.SHUT_WR)
        got.append(hashlib.sha256(read_all(connected)).hexdigest())

    with target(address, end_first), server(address), forward(address, url(address)) as (_, port):
        with connect(address, port) as client:
            assert read_all(client) == b"first"
            client.sendall(RANDOM)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        processes.wait_until(lambda: bool(got), what="the target has read all")
    assert got == [DIGEST]


def test_client_that_ends_first_still_gets_the_answer(address: str) -> None:
    with target(address, digest_after_end), server(address), forward(address, url(address)) as (running, port):
        with connect(address, port) as client:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client).endswith(b"question")
        running.wait_for("tunnel closed")
        (line,) = lines(running, "tunnel closed")
        assert (line["sent"], line["received"], line["reason"]) == (8, 72, "ended")


def test_150_tunnels_at_once_each_with_its_own_bytes(address: str) -> None:
    with target(address, echo), server(address) as hboned, forward(address, url(address)) as (_, port):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(address, port)) for _ in range(150)]
            for number, client in enumerate(clients):
                client.sendall(b"tunnel %04d" % number)
            for number, client in enumerate(clients):
                assert read_exactly(client, 11) == b"tunnel %04d" % number
        processes.wait_until(lambda: len(lines(hboned, "tunnel closed")) == 150, what="150 tunnels closed")
        assert {line["reason"] for line in lines(hboned, "tunnel closed")} == {"ended"}


def test_tunnel_that_nobody_reads_holds_up_no_other_and_no_memory(address: str) -> None:
    stalled = threading.Event()

    def ignore(connected: socket.socket) -> None:
        stalled.wait(processes.WAIT)

    with (
        target(address, ignore),
        target(address, echo, port=7000),
        server(address, KRUN_OFFER="15003,7000") as hboned,
        forward(address, url(address)) as (_, slow),
        connect(address, slow) as client,
    ):
        client.setblocking(False)
        sent = 0
        before = resident(hboned.pid)
        with contextlib.suppress(BlockingIOError):
            while sent < 256 * 1024 * 1024:
                sent += client.send(bytes(65536))
        assert sent < 256 * 1024 * 1024
        done = pipe(url(address, "7000"), data=RANDOM)
        assert hashlib.sha256(done.stdout).hexdigest() == DIGEST
        assert resident(hboned.pid) - before < 32 * 1024 * 1024
        stalled.set()


def test_broken_target_is_broken_for_the_client_and_not_ended(address: str) -> None:
    def break_off(connected: socket.socket) -> None:
        connected.sendall(b"half")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    with target(address, break_off), server(address), forward(address, url(address)) as (_, port):
        with pytest.raises(ConnectionResetError), connect(address, port) as client:
            read_all(client)
        assert pipe(url(address)).returncode in (0, 69)  # the end of stdin may come first


LARGE = 100 * 1024 * 1024


def test_100_megabytes_through_pipes_at_the_same_time_and_the_end_right_after(address: str) -> None:
    """Both sides end with their last bytes still under way: none of them may be lost."""
    got: list[str] = []

    def both(connected: socket.socket) -> None:
        def answer() -> None:
            for _ in range(10):
                connected.sendall(RANDOM)

        sender = threading.Thread(target=answer)
        sender.start()
        digest, length = hashlib.sha256(), 0
        while data := connected.recv(65536):
            digest.update(data)
            length += len(data)
        got.append(f"{length} {digest.hexdigest()}")
        sender.join(processes.WAIT)

    expected = hashlib.sha256(RANDOM * 10).hexdigest()
    with target(address, both), server(address):
        done = pipe(url(address), data=RANDOM * 10)
        assert (done.returncode, done.stderr) == (0, b"")
        assert (len(done.stdout), hashlib.sha256(done.stdout).hexdigest()) == (LARGE, expected)
        processes.wait_until(lambda: bool(got), what="the target has read all")
    assert got == [f"{LARGE} {expected}"]


def test_stdin_that_ends_at_once_does_not_cut_a_long_answer(address: str) -> None:
    def pour(connected: socket.socket) -> None:
        assert read_all(connected) == b""
        for _ in range(10):
            connected.sendall(RANDOM)

    with target(address, pour), server(address):
        done = pipe(url(address))
        assert hashlib.sha256(done.stdout).hexdigest() == hashlib.sha256(RANDOM * 10).hexdigest()


def test_closed_stdin_is_an_empty_one_and_never_the_tunnels_own_socket(address: str) -> None:
    with target(address, digest_after_end), server(address):
        argv = ["sh", "-c", f"exec hbone {url(address)} <&-"]
        done = processes.run(argv)
        assert (done.returncode, done.stdout, done.stderr) == (0, hashlib.sha256(b"").hexdigest(), "")


def test_closed_stdout_is_a_failure_and_never_the_tunnels_own_socket(address: str) -> None:
    with target(address, greet), server(address):
        done = processes.run(["sh", "-c", f"exec hbone {url(address)} >&-"])
        assert done.returncode == 69
        assert "Bad file descriptor" in done.stderr
