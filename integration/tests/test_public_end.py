"""hboned's end while the public is served, what it tells its starter, and many requests at once: none lost or twice."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from krun_testbed import processes
from krun_testbed.public_peers import Http2, app, head, http1, notes, served, status_of
from krun_testbed.tunnels import connect

pytestmark = pytest.mark.loopback

GET = b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n"


@dataclass(kw_only=True)
class Notices:
    """What hboned writes to the pipe of its starter, line by line."""

    reader: int
    lines: list[str] = field(default_factory=list)

    def wait_for(self, line: str) -> None:
        while line not in self.lines:
            assert select.select([self.reader], [], [], processes.WAIT)[0], f"{line!r} never came: {self.lines}"
            data = os.read(self.reader, 4096)
            assert data, f"the pipe ended: {self.lines}"
            self.lines += data.decode().split()

    def is_quiet(self) -> bool:
        return not select.select([self.reader], [], [], 0)[0]


@contextlib.contextmanager
def notified(address: str, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], Notices]]:
    """hboned with a pipe, as krun-launch starts it."""
    reader, writer = os.pipe()
    argv = ["hboned", "--bind", address, "--loopback", address, "--public", "app", *flags]
    env = processes.environment(KRUN_NOTIFY_FD=str(writer))
    with subprocess.Popen(argv, env=env, pass_fds=(writer,), stderr=subprocess.DEVNULL) as process:
        os.close(writer)
        try:
            notices = Notices(reader=reader)
            notices.wait_for("ready")
            yield process, notices
        finally:
            process.kill()
            process.wait()
            os.close(reader)


def go(address: str, *, count: int) -> None:
    """Let so many requests on that wait in the application; ask it past hboned."""
    for _ in range(count):
        request = b"GET /go?size=0 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        assert status_of(http1(address, request, port=8080)) == 200


def test_idle_is_told_at_once_when_nothing_is_under_way(address: str) -> None:
    with notified(address) as (process, notices):
        assert processes.listens(address, 15009)
        process.send_signal(signal.SIGTERM)
        notices.wait_for("idle")
        assert process.wait(processes.WAIT) == 0


def test_requests_under_way_finish_and_idle_is_told_after_the_last(address: str) -> None:
    with app(address) as recording, notified(address) as (process, notices):
        with connect(address, 15009) as one, connect(address, 15009) as two, connect(address, 15009) as quiet:
            quiet.sendall(GET % b"/?size=0")
            assert b"200" in quiet.recv(4096)  # kept alive, and with nothing to do from here on
            one.sendall(GET % b"/one?wait&size=5")
            other = Http2(two)
            stream = other.request(head(b"/two?wait&size=5"))
            for mark in ("/one", "/two"):
                recording.wait_for(f'"waiting": "{mark}')
            process.send_signal(signal.SIGTERM)
            other.wait_for_goaway()
            assert read_to_end(quiet) == b""
            processes.wait_until(lambda: not processes.listens(address, 15009), what="no new connection is taken")
            assert notices.is_quiet()
            go(address, count=2)
            answer = read_to_end(one)
            assert status_of(answer) == 200
            assert b"\r\nconnection: close\r\n" in answer.lower()
            assert other.wait(stream).status == 200
            notices.wait_for("idle")
        assert process.wait(processes.WAIT) == 0


def test_second_signal_ends_at_once_and_what_is_cut_does_not_look_whole(address: str) -> None:
    with app(address) as recording, notified(address) as (process, _), connect(address, 15009) as one:
        one.sendall(GET % b"/one?events=2")
        recording_has_begun = one.recv(4096)
        assert b"200" in recording_has_begun, recording
        process.send_signal(signal.SIGTERM)
        processes.wait_until(lambda: not processes.listens(address, 15009), what="it drains")
        process.send_signal(signal.SIGTERM)
        assert process.wait(processes.WAIT) == 0
        with contextlib.suppress(ConnectionError):
            assert not read_to_end(one).endswith(b"0\r\n\r\n")


def test_a_number_that_is_no_pipe_is_passed_over(address: str) -> None:
    for number in ("2", "77", "x", "-1", "99999999999999999999"):
        argv = ["hboned", "--bind", address, "--loopback", address]
        with processes.start(argv, env=processes.environment(KRUN_NOTIFY_FD=number)) as running:
            running.wait_for("ready")
            assert running.terminate() == 0


def read_to_end(connected: socket.socket) -> bytes:
    return b"".join(iter(lambda: connected.recv(65536), b""))


def test_many_at_once_before_an_application_that_closes_when_it_likes(address: str) -> None:
    """Every request is answered, and every POST reaches the application exactly once."""
    chance, count = random.Random(4), 400
    paths = [f"/{number}{'?close' if chance.random() < 0.3 else ''}" for number in range(count)]
    with served(address) as (_, recording):

        def post(path: str) -> int:
            request = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc"
            return status_of(http1(address, request.encode()))

        with ThreadPoolExecutor(16) as pool:
            assert Counter(pool.map(post, paths)) == {200: count}

        def seen() -> Counter[str]:
            return Counter(str(note["target"]) for note in notes(recording) if "target" in note)

        processes.wait_until(
            lambda: seen().total() >= count, what="the last ones are noted, which comes after the answer"
        )
        assert seen() == Counter(paths)


def test_many_streams_of_one_connection_are_served_side_by_side(address: str) -> None:
    with served(address) as (_, recording), connect(address, 15009) as connected:
        peer = Http2(connected)
        waiting = [peer.request(head(b"/%d?wait&size=1" % number)) for number in range(60)]
        quick = peer.request(head(b"/quick?size=1"))
        assert peer.wait(quick).status == 200
        processes.wait_until(
            lambda: sum("waiting" in note for note in notes(recording)) == len(waiting), what="all are under way"
        )
        threading.Thread(target=go, args=(address,), kwargs={"count": len(waiting)}).start()
        assert {peer.wait(stream).status for stream in waiting} == {200}
