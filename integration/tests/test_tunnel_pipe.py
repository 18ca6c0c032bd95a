"""hbone on stdin and stdout, against a server made of h2 that does what peers may do, and what they must not."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import h2.errors
import h2.events
import h2.settings
import pytest

from krun_testbed import processes
from krun_testbed.h2_scripts import Scripted, scripted
from krun_testbed.tunnels import pipe, target, url

pytestmark = pytest.mark.loopback

SETTING = h2.settings.SettingCodes
DATA = random.Random(9).randbytes(700_000)


@contextlib.contextmanager
def hbone(address: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command, with both of its streams in a test's hands."""
    argv = ["hbone", url(address)]
    pipes = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipes, stdout=pipes, stderr=pipes, env=processes.environment()) as process:
        try:
            yield process
        finally:
            process.kill()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_client_that_ends_first_gets_the_whole_answer(address: str) -> None:
    def script(peer: Scripted) -> None:
        stream = peer.open()
        data = peer.read_all(stream)
        peer.send_all(stream, digest(data).encode() + DATA, ends=True)
        peer.wait_for_end()

    with target(address, scripted(script), port=15009):
        done = pipe(url(address), data=DATA)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout[:64].decode() == digest(DATA)
    assert digest(done.stdout[64:]) == digest(DATA)


def test_server_that_ends_first_ends_it_though_stdin_is_open(address: str) -> None:
    def script(peer: Scripted) -> None:
        peer.send_all(peer.open(), DATA, ends=True)
        peer.wait_for_end()

    with target(address, scripted(script), port=15009), hbone(address) as process:
        assert process.stdout is not None
        assert digest(process.stdout.read()) == digest(DATA)
        assert process.wait(processes.WAIT) == 0


def test_both_ends_at_once_lose_nothing(address: str) -> None:
    got: list[str] = []

    def script(peer: Scripted) -> None:
        stream = peer.open()
        peer.send_all(stream, DATA)
        data = peer.read_all(stream)
        got.append(digest(data))
        peer.h2.end_stream(stream)
        peer.flush()
        peer.wait_for_end()

    with target(address, scripted(script), port=15009):
        done = pipe(url(address), data=DATA)
    assert (done.returncode, done.stderr, digest(done.stdout)) == (0, b"", digest(DATA))
    assert got == [digest(DATA)]


def test_windows_are_obeyed_though_they_shrink_in_the_middle(address: str) -> None:
    got: list[str] = []

    def script(peer: Scripted) -> None:
        stream = peer.open()
        peer.h2.update_settings({SETTING.INITIAL_WINDOW_SIZE: 1000})
        peer.flush()
        got.append(digest(peer.read_all(stream)))  # h2 raises when a window is overrun
        peer.h2.end_stream(stream)
        peer.flush()
        peer.wait_for_end()

    with target(address, scripted(script, settings={SETTING.INITIAL_WINDOW_SIZE: 30_000}), port=15009):
        assert pipe(url(address), data=DATA[:100_000]).returncode == 0
    assert got == [digest(DATA[:100_000])]


def test_pings_are_answered_while_the_tunnel_is_silent(address: str) -> None:
    answered: list[bytes] = []

    def script(peer: Scripted) -> None:
        stream = peer.open()
        for number in range(3):
            peer.h2.ping(b"ping %03d" % number)
            peer.flush()
            event = peer.wait_for(h2.events.PingAckReceived)
            assert isinstance(event, h2.events.PingAckReceived)
            answered.append(event.ping_data)
        peer.send_all(stream, b"", ends=True)
        peer.wait_for_end()

    with target(address, scripted(script), port=15009), hbone(address) as process:
        assert process.wait(processes.WAIT) == 0
    assert answered == [b"ping 000", b"ping 001", b"ping 002"]


@pytest.mark.parametrize("way", ["refused", "goaway", "closed"])
def test_tunnel_that_came_to_nothing_is_asked_for_again(address: str, way: str) -> None:
    tried: list[str] = []

    def script(peer: Scripted) -> None:
        stream = peer.asked()
        tried.append(way)
        if len(tried) > 1:
            peer.h2.send_headers(stream, [(":status", "200")])
            peer.send_all(stream, b"at last", ends=True)
            peer.wait_for_end()
        elif way == "refused":
            peer.h2.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
            peer.flush()
            script(peer)
        elif way == "goaway":
            peer.h2.close_connection(last_stream_id=0)
            peer.flush()
            peer.wait_for_end()

    with target(address, scripted(script), port=15009):
        done = pipe(url(address))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"at last", b"")
    assert tried == [way, way]


def test_server_that_refuses_for_ever_is_asked_three_times(address: str) -> None:
    asked: list[int] = []

    def script(peer: Scripted) -> None:
        while True:
            stream = peer.asked()
            asked.append(stream)
            peer.h2.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
            peer.flush()

    with target(address, scripted(script), port=15009):
        done = pipe(url(address))
    assert done.returncode == 69
    assert b"reset by the peer, error code 7\nhint: " in done.stderr
    assert asked == [1, 3, 5]


def test_server_that_takes_no_streams_is_told(address: str) -> None:
    def script(peer: Scripted) -> None:
        while True:
            peer.h2.reset_stream(peer.asked(), h2.errors.ErrorCodes.REFUSED_STREAM)
            peer.flush()

    # What h2 itself would refuse is refused by the script: the client asks before it knows.
    def handle(connected: socket.socket) -> None:
        peer = Scripted(connected)
        peer.socket.sendall(b"\0\0\6\4\0\0\0\0\0" + b"\0\3\0\0\0\0")
        script(peer)

    with target(address, handle, port=15009):
        done = pipe(url(address))
    assert done.returncode == 69
    assert b"it takes no streams" in done.stderr


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (lambda peer, stream: peer.h2.reset_stream(stream, 8), "reset by the peer, error code 8"),
        (lambda peer, stream: peer.socket.shutdown(socket.SHUT_WR), "the connection was closed"),
        (lambda peer, stream: peer.socket.sendall(b"\0\0\1\6\0\0\0\0\0x"), "a ping of a wrong length"),
    ],
    ids=["reset", "closed", "malformed"],
)
def test_tunnel_that_breaks_hands_on_what_came_and_says_why(address: str, after: object, reason: str) -> None:
    def script(peer: Scripted) -> None:
        stream = peer.open()
        peer.send_all(stream, DATA)
        assert callable(after)
        after(peer, stream)
        peer.flush()
        peer.wait_for_end()

    with target(address, scripted(script), port=15009), hbone(address) as process:
        out, said = process.communicate(timeout=processes.WAIT)
    assert (process.returncode, digest(out)) == (69, digest(DATA))
    error, hint = said.decode().splitlines()
    assert error.startswith(f"hbone: error: the tunnel to {url(address)} broke after ")
    assert error.endswith(reason)
    assert "request timeout" in hint


def headers(block: bytes, *, ends: bool = False) -> bytes:
    return len(block).to_bytes(3, "big") + (b"\1\5" if ends else b"\1\4") + b"\0\0\0\1" + block


# With a field that is put into the table (RFC 7541 §6.2.1), then one that is there, then none that was ever put there.
ANSWER, AGAIN, NOWHERE = b"\x88\x40\x01a\x01b", b"\xbe", b"\xff\x20"


@pytest.mark.parametrize(
    ("block", "trailers", "status"),
    [(ANSWER, AGAIN, 0), (ANSWER, b"", 0), (ANSWER, NOWHERE, 69), (b"\x88" + NOWHERE, b"", 69), (b"\x88\x88", b"", 69)],
    ids=["trailers", "no-trailers", "bad-trailers", "bad-answer", "two-statuses"],
)
def test_headers_that_nobody_waits_for_are_read_all_the_same(
    address: str, block: bytes, trailers: bytes, status: int
) -> None:
    def script(peer: Scripted) -> None:
        peer.asked()
        end = headers(trailers, ends=True) if trailers else b"\0\0\0\0\1\0\0\0\1"
        peer.socket.sendall(headers(block) + b"\0\0\5\0\0\0\0\0\1hello" + end)
        peer.wait_for_end()

    with target(address, scripted(script), port=15009):
        done = pipe(url(address))
    assert (done.returncode, done.stdout) == (status, b"hello")
    assert (b"broke the protocol" in done.stderr) == bool(status)


def test_fault_in_headers_is_told_though_nothing_follows_them(address: str) -> None:
    def script(peer: Scripted) -> None:
        peer.asked()
        peer.socket.sendall(headers(b"\x88" + NOWHERE))
        peer.wait_for_end()

    with target(address, scripted(script), port=15009), hbone(address) as process:
        assert process.wait(processes.WAIT) == 69


def test_reader_of_stdout_that_stops_costs_little_and_stops_not_what_goes_the_other_way(address: str) -> None:
    got: list[int] = []

    def script(peer: Scripted) -> None:
        stream = peer.open()

        def pour() -> None:
            with contextlib.suppress(OSError):
                while room := peer.h2.local_flow_control_window(stream):
                    peer.h2.send_data(stream, bytes(min(room, 16384)))
                    peer.flush()

        pour()
        while sum(got) < len(DATA):
            event = peer.wait_for(h2.events.DataReceived)
            assert isinstance(event, h2.events.DataReceived)
            got.append(len(event.data or b""))
            peer.h2.acknowledge_received_data(event.flow_controlled_length or 0, stream)
            peer.flush()
            pour()
        peer.wait_for_end()

    with target(address, scripted(script), port=15009), hbone(address) as process:
        threading.Thread(target=write, args=(process,), daemon=True).start()  # which must not hold up the test
        processes.wait_until(lambda: sum(got) == len(DATA), what="all of stdin is there", timeout=60)
        assert memory(process.pid) < 40 * 1024 * 1024
        process.kill()


def write(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        assert process.stdin is not None
        process.stdin.write(DATA)
        process.stdin.flush()


def memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("form", [[], ["--"]], ids=["plain", "flags"])
def test_interrupt_ends_it_with_130(address: str, form: list[str]) -> None:
    said = threading.Event()

    def script(peer: Scripted) -> None:
        peer.send_all(peer.open(), b"ready\n")
        with contextlib.suppress(ConnectionError):
            peer.wait_for(h2.events.ConnectionTerminated)
            said.set()

    argv = ["hbone", *form, url(address)]
    with target(address, scripted(script), port=15009):
        with processes.start(argv, env=processes.environment(), stdin=subprocess.PIPE) as running:
            running.wait_for("ready")
            running.signal(signal.SIGINT)
            assert running.wait() == 130
        assert running.stderr.strip() == ""
        assert said.wait(processes.WAIT), "the server was told"


@pytest.mark.parametrize("form", [[], ["--"]], ids=["plain", "flags"])
def test_both_forms_carry_files_sockets_and_terminals_alike(address: str, tmp_path: Path, form: list[str]) -> None:
    def script(peer: Scripted) -> None:
        stream = peer.open()
        peer.send_all(stream, digest(peer.read_all(stream)).encode(), ends=True)
        peer.wait_for_end()

    argv, env = ["hbone", *form, url(address)], processes.environment()
    (tmp_path / "in").write_bytes(DATA)
    with target(address, scripted(script), port=15009):
        with (tmp_path / "in").open("rb") as file, (tmp_path / "out").open("wb") as out:
            subprocess.run(argv, stdin=file, stdout=out, timeout=60, check=True, env=env)
        assert (tmp_path / "out").read_text() == digest(DATA)
        ours, its = socket.socketpair()
        with ours, its, subprocess.Popen(argv, stdin=its, stdout=its, env=env):
            ours.sendall(DATA)
            ours.shutdown(socket.SHUT_WR)
            assert ours.recv(64, socket.MSG_WAITALL).decode() == digest(DATA)
        master, slave = os.openpty()
        with open(master, "r+b", buffering=0) as screen, subprocess.Popen(argv, stdin=slave, stdout=slave, env=env):  # noqa: PTH123
            screen.write(b"typed\n\x04")
            seen = b""
            while digest(b"typed\n").encode() not in seen:
                seen += screen.read(1024)
        os.close(slave)
