"""A connection that hgate leads on as it is: every byte, each end of it, and no more than a reader takes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hgate import feed
from hgate.pipes import MAX_PIPES
from krun_testbed import gate_worker, processes
from krun_testbed.gate_worker import HELLO, Worker, connect
from krun_testbed.tunnels import echo, read_all, target

pytestmark = pytest.mark.loopback

RANDOM = os.urandom(16 * 1024 * 1024)
PIECE = 1024 * 1024


@pytest.fixture
def listener(address: str) -> Iterator[socket.socket]:
    with gate_worker.listening(address) as listening:
        yield listening


@pytest.fixture
def worker(address: str, listener: socket.socket) -> Iterator[Worker]:
    with gate_worker.worker(listener, f"b.demo=tcp://{address}:15003") as one:
        yield one


def reset(connected: socket.socket) -> None:
    """Close so that the other side sees a reset."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connected.close()


def exactly(connected: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connected.recv(count - len(data))
        assert more, f"ended after {len(data)} of {count} bytes"
        data += more
    return data


def digest(connected: socket.socket) -> str:
    found = hashlib.sha256()
    while data := connected.recv(65536):
        found.update(data)
    return found.hexdigest()


def test_every_byte_arrives_in_both_directions_at_once(address: str, worker: Worker) -> None:
    with target(address, echo), connect(address) as client:

        def send() -> None:
            client.sendall(RANDOM)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert digest(client) == hashlib.sha256(HELLO + RANDOM).hexdigest()
        sender.join(processes.WAIT)
        line = worker.the_line("connection closed")
    count = len(HELLO + RANDOM)
    assert (line["sent"], line["received"], line["reason"]) == (count, count, "ended")
    assert line["url"] == f"tcp://{address}:15003"


def test_client_may_end_first_and_still_gets_the_whole_answer(address: str, worker: Worker) -> None:
    def answer_after_the_end(connected: socket.socket) -> None:
        connected.sendall(hashlib.sha256(read_all(connected)).digest() + RANDOM)

    with target(address, answer_after_the_end), connect(address) as client:
        client.sendall(RANDOM)
        client.shutdown(socket.SHUT_WR)
        assert digest(client) == hashlib.sha256(hashlib.sha256(HELLO + RANDOM).digest() + RANDOM).hexdigest()
        assert worker.the_line("connection closed")["reason"] == "ended"


def test_workload_may_end_first_and_still_gets_all_that_the_client_says(address: str, worker: Worker) -> None:
    got: list[str] = []

    def end_first(connected: socket.socket) -> None:
        connected.sendall(b"bye")
        connected.shutdown(socket.SHUT_WR)
        got.append(digest(connected))

    with target(address, end_first), connect(address) as client:
        assert read_all(client) == b"bye"
        client.sendall(RANDOM)
        client.shutdown(socket.SHUT_WR)
        assert worker.the_line("connection closed")["reason"] == "ended"
    assert got == [hashlib.sha256(HELLO + RANDOM).hexdigest()]


def test_reset_of_the_client_reaches_the_workload_as_a_reset(address: str, worker: Worker) -> None:
    seen: list[type[BaseException]] = []

    def wait(connected: socket.socket) -> None:
        connected.sendall(b"x")
        try:
            read_all(connected)
        except ConnectionResetError as error:
            seen.append(type(error))

    with target(address, wait):
        client = connect(address)
        assert client.recv(1) == b"x"
        reset(client)
        line = worker.the_line("connection closed")
    assert str(line["reason"]).startswith("the client is gone: ")
    assert seen == [ConnectionResetError]


def test_reset_of_the_workload_reaches_the_client_as_a_reset(address: str, worker: Worker) -> None:
    with target(address, reset_after_hello), connect(address) as client, pytest.raises(ConnectionResetError):
        read_all(client)
    assert str(worker.the_line("connection closed")["reason"]).startswith("the workload is gone: ")


def reset_after_hello(connected: socket.socket) -> None:
    exactly(connected, len(HELLO))
    reset(connected)


@pytest.mark.parametrize("who", ["client", "workload"])
def test_reset_is_passed_on_while_the_other_side_takes_nothing(address: str, worker: Worker, who: str) -> None:
    held: list[socket.socket] = []
    is_there, may_go = threading.Event(), threading.Event()

    def hold(connected: socket.socket) -> None:
        held.append(connected)
        is_there.set()
        may_go.wait(processes.WAIT)

    try:
        with target(address, hold):
            client = connect(address)
            assert is_there.wait(processes.WAIT)
            talker, silent = (client, held[0]) if who == "client" else (held[0], client)
            fill(talker)
            reset(talker)
            worker.running.wait_for('"connection closed"')
            with pytest.raises(ConnectionResetError):
                read_all(silent)
            may_go.set()
            client.close()
    finally:
        may_go.set()
    assert f"the {who} is gone" in str(worker.the_line("connection closed")["reason"])


def fill(connected: socket.socket) -> int:
    """Send until nothing more is taken, for as long as a stopped way may take a last time; return how much it was."""
    sent = 0
    connected.settimeout(1.0)
    try:
        while True:
            # Where the last one was cut off is where the next begins.
            sent += connected.send(RANDOM[sent % PIECE : PIECE])
    except TimeoutError:
        return sent


def resident(worker: Worker) -> int:
    """KiB of memory that the worker has for itself."""
    status = Path(f"/proc/{worker.running.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))


def pipes(worker: Worker) -> set[str]:
    """The pipes that it has open."""
    found = set()
    for descriptor in Path(f"/proc/{worker.running.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found.add(descriptor.readlink().name)
    return {name for name in found if name.startswith("pipe:")}


def test_reader_that_stops_stops_the_sender_and_costs_no_memory(address: str, worker: Worker) -> None:
    may_read = threading.Event()
    got: list[str] = []

    def read_late(connected: socket.socket) -> None:
        may_read.wait(processes.WAIT)
        got.append(digest(connected))

    with target(address, read_late), connect(address) as client:
        before = resident(worker)
        sent = fill(client)
        assert sent < 64 * 1024 * 1024, "the sender was never stopped"
        assert resident(worker) - before < 2048
        may_read.set()
        client.settimeout(processes.WAIT)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
        assert worker.the_line("connection closed")["sent"] == sent + len(HELLO)
    wanted = hashlib.sha256(HELLO)
    for start in range(0, sent, PIECE):
        wanted.update(RANDOM[: min(PIECE, sent - start)])
    assert got == [wanted.hexdigest()]


def test_more_stopped_readers_than_there_are_pipes_lose_nothing(
    address: str, listener: socket.socket, worker: Worker
) -> None:
    # Connections have it from the one that accepts: else the kernel would take all of it.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    count, size = MAX_PIPES + 32, 1024 * 1024
    may_read = threading.Event()

    def echo_late(connected: socket.socket) -> None:
        connected.sendall(exactly(connected, len(HELLO) + size))

    wanted = hashlib.sha256(HELLO + RANDOM[:size]).hexdigest()
    found: list[str] = []

    def call() -> None:
        with socket.socket() as client:
            client.settimeout(processes.WAIT)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((address, gate_worker.PORT))
            client.sendall(HELLO + RANDOM[:size])
            may_read.wait(processes.WAIT)
            found.append(digest(client))

    before = pipes(worker)
    with target(address, echo_late):
        callers = [threading.Thread(target=call, daemon=True) for _ in range(count)]
        for caller in callers:
            caller.start()
        worker.wait_for_count(open_raw=count, sent_bytes=count * (len(HELLO) + size))
        processes.wait_until(lambda: len(pipes(worker) - before) == MAX_PIPES, what="all pipes are in use")
        may_read.set()
        for caller in callers:
            caller.join(processes.WAIT)
        worker.wait_for_count(open_raw=0, raw=count)
    assert found == [wanted] * count


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("{address}:15003", "cannot reach {address}:15003: Connection refused (hint: "),
        ("nowhere.invalid:15003", "cannot find nowhere.invalid: "),
    ],
)
def test_nobody_behind_a_raw_route_is_one_line_with_a_hint(address: str, place: str, says: str) -> None:
    route = f"b.demo=tcp://{place.format(address=address)}"
    with gate_worker.listening(address) as listener, gate_worker.worker(listener, route) as one:
        with connect(address) as client, pytest.raises(ConnectionResetError):
            read_all(client)
        line = one.the_line("connection failed")
        assert says.format(address=address) in str(line["reason"])
        assert "hint: " in str(line["reason"])
        one.wait_for(feed.Counts, lambda told: told.values["error:unreachable"] == 1)


def test_raw_route_may_name_its_host(address: str) -> None:
    with (
        gate_worker.listening(address) as listener,
        target("127.0.0.1", echo, port=0) as port,
        gate_worker.worker(listener, f"b.demo=tcp://localhost:{port}"),
        connect(address) as client,
    ):
        assert exactly(client, len(HELLO)) == HELLO
