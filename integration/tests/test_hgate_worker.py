"""hgate's workers as processes: they share a backlog, drain, outlive their control process, and are replaced."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hgate import feed
from hgate.hello import MAX_HELD
from hgate.routes import read_routes
from krun_testbed import gate_worker, processes
from krun_testbed.gate_worker import HELLO, Worker, connect
from krun_testbed.gateways import gate, the_line
from krun_testbed.tunnels import echo, lines, read_all, server, target

pytestmark = pytest.mark.loopback


@pytest.fixture
def listener(address: str) -> Iterator[socket.socket]:
    with gate_worker.listening(address) as listening:
        yield listening


def route(address: str) -> str:
    return f"b.demo=tcp://{address}:15003"


def serves(client: socket.socket) -> bool:
    """Whether the echo behind the gate answers."""
    got = b""
    while len(got) < len(HELLO):
        data = client.recv(65536)
        if not data:
            return False
        got += data
    return got == HELLO


def test_two_workers_share_connections_that_come_one_by_one(address: str, listener: socket.socket) -> None:
    """The kernel alone promises nothing: it wakes who sleeps, and who is awake mostly is there first, so that the busy
    one may go on to take all. 120 times 40, on a machine with fifteen times the work that it had CPUs for: 16 to 24."""
    with (
        target(address, echo),
        gate_worker.shared_memory(2) as memory,
        gate_worker.worker(listener, route(address), memory=memory, number=0) as one,
        gate_worker.worker(listener, route(address), memory=memory, number=1) as other,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(40):
            assert serves(stack.enter_context(connect(address)))
        processes.wait_until(lambda: one.count("accepted") + other.count("accepted") == 40, what="all are counted")
        # Whoever has eight more than the other leaves it what comes, for as long as the other takes it in time.
        assert 12 <= one.count("accepted") <= 28


def test_many_connections_at_a_time_are_shared_as_evenly(address: str, listener: socket.socket) -> None:
    """Of 1,000 at 2,800 a second the two had 517 and 483; four had 230 to 264 each."""
    with (
        target(address, echo),
        gate_worker.shared_memory(2) as memory,
        gate_worker.worker(listener, route(address), memory=memory, number=0) as one,
        gate_worker.worker(listener, route(address), memory=memory, number=1) as other,
        contextlib.ExitStack() as stack,
        ThreadPoolExecutor(8) as pool,
    ):
        clients = list(pool.map(lambda _: connect(address), range(200)))
        for client in clients:
            stack.enter_context(client)
        assert all(pool.map(serves, clients))
        processes.wait_until(lambda: one.count("accepted") + other.count("accepted") == 200, what="all are counted")
        assert 60 <= one.count("accepted") <= 140


def test_connections_that_a_stopped_worker_was_woken_for_are_taken_by_another(
    address: str, listener: socket.socket
) -> None:
    with target(address, echo), gate_worker.worker(listener, route(address)) as one, contextlib.ExitStack() as stack:
        with gate_worker.worker(listener, route(address)) as frozen:
            frozen.running.signal(signal.SIGSTOP)
            clients = [stack.enter_context(connect(address)) for _ in range(20)]
            frozen.running.signal(signal.SIGKILL)
            frozen.running.wait()
        one.tell(feed.Look())
        assert all(serves(client) for client in clients)


def test_drain_goes_on_with_what_is_open_and_leaves_the_backlog_to_others(
    address: str, listener: socket.socket
) -> None:
    with target(address, echo), gate_worker.worker(listener, route(address)) as one:
        with connect(address) as client:
            assert serves(client)
            one.tell(feed.Drain())
            with connect(address) as late:
                with gate_worker.worker(listener, route(address)):
                    assert serves(late)
                client.sendall(HELLO)
                assert serves(client)
        one.wait_for(feed.Drained)
        assert one.running.wait() == 0


def test_who_waited_before_the_drain_is_served(address: str, listener: socket.socket) -> None:
    with target(address, echo), gate_worker.worker(listener, route(address)) as one, contextlib.ExitStack() as stack:
        one.running.signal(signal.SIGSTOP)
        clients = [stack.enter_context(connect(address)) for _ in range(40)]
        one.tell(feed.Drain())
        one.running.signal(signal.SIGCONT)
        assert all(serves(client) for client in clients)
        for client in clients:
            client.close()
        assert one.running.wait() == 0


def test_drain_now_resets_what_is_open(address: str, listener: socket.socket) -> None:
    with target(address, echo), gate_worker.worker(listener, route(address)) as one:
        with connect(address) as client, connect(address, hello=HELLO[:100]) as partial:
            assert serves(client)
            one.wait_for_count(open_hellos=1)
            one.tell(feed.Drain(now=True))
            for broken in (client, partial):
                with pytest.raises(ConnectionResetError):
                    read_all(broken)
        assert one.running.wait() == 0
        assert one.the_line("connection closed")["reason"] == "ended at once, by a signal"
        assert one.the_line("connection refused")["reason"] == "ended at once, by a signal"


def test_worker_goes_on_without_its_control_process_and_drains_by_sigterm(
    address: str, listener: socket.socket
) -> None:
    with target(address, echo), gate_worker.worker(listener, route(address)) as one:
        with connect(address) as client:
            assert serves(client)
            one.leave()
            one.running.wait_for("the control process is gone")
            client.sendall(HELLO)
            assert serves(client)
            with connect(address) as another:
                assert serves(another)
        assert one.running.terminate() == 0


def test_second_sigterm_ends_a_worker_at_once(address: str, listener: socket.socket) -> None:
    with target(address, echo), gate_worker.worker(listener, route(address)) as one, connect(address) as client:
        assert serves(client)
        one.running.signal(signal.SIGTERM)
        one.running.signal(signal.SIGTERM)
        # Two of one number may be one for the kernel.
        processes.wait_until(lambda: ended(one, signal.SIGTERM), what="the worker has ended")
        with pytest.raises(ConnectionResetError):
            read_all(client)


def ended(worker: Worker, number: int) -> bool:
    if worker.running.ends(timeout=0.1):
        return True
    worker.running.signal(number)
    return False


def test_routes_change_while_connections_go_on(address: str, listener: socket.socket) -> None:
    with target(address, echo), gate_worker.worker(listener, route(address)) as one, connect(address) as client:
        assert serves(client)
        one.tell(feed.Routes(remove=(("b", "demo", 0, ""),)))
        one.wait_for_count(routes=0)
        with connect(address) as refused, pytest.raises(ConnectionResetError):
            read_all(refused)
        assert one.the_line("connection refused")["reason"] == "no route"
        client.sendall(HELLO)
        assert serves(client)
        one.tell(feed.Routes(set=read_routes([route(address)])))
        one.wait_for_count(routes=1, accepted=2)
        with connect(address) as again:
            assert serves(again)


def test_route_that_cannot_be_read_is_told_and_the_others_hold(address: str, listener: socket.socket) -> None:
    with target(address, echo), gate_worker.worker(listener) as one:
        bad = feed.Route(service="c", namespace="demo", url="gopher://c.example")
        one.tell(feed.Routes(set=(bad, *read_routes([route(address)]))))
        assert one.the_line("a route that cannot be read")["url"] == "gopher://c.example"
        with connect(address) as client:
            assert serves(client)


def test_load_balancers_question_whether_the_port_is_open_is_no_line(address: str, listener: socket.socket) -> None:
    with target(address, echo), gate_worker.worker(listener, route(address)) as one:
        for _ in range(5):
            connect(address, hello=b"").close()
        with connect(address) as client:
            assert serves(client)
        one.the_line("connection closed")
        one.wait_for_count(accepted=6, open_raw=0)
        assert one.lines("connection refused") == []


def test_halves_of_hellos_have_a_limit_and_the_oldest_goes_first(address: str, listener: socket.socket) -> None:
    half = b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xf0" + bytes(15 * 1024)
    with target(address, echo), gate_worker.worker(listener, route(address)) as one, contextlib.ExitStack() as stack:
        halves = [stack.enter_context(connect(address, hello=half)) for _ in range(MAX_HELD // len(half) + 40)]
        processes.wait_until(lambda: one.count("error:crowd") >= 40, what="the oldest are gone")
        for gone in halves[:20]:
            with pytest.raises(ConnectionResetError):
                read_all(gone)
        with connect(address) as client:
            assert serves(client)
        assert one.count("error:crowd") <= 60
        assert "connections wait with half a ClientHello" in str(one.lines("connection refused")[0]["reason"])


def test_more_connections_than_files_wait_their_turn_and_cost_nothing(address: str, listener: socket.socket) -> None:
    limit = ("prlimit", "--nofile=128:128", "--")
    with (
        target(address, echo),
        gate_worker.worker(listener, route(address), wrapper=limit) as one,
        contextlib.ExitStack() as stack,
    ):
        first = [stack.enter_context(connect(address)) for _ in range(32)]  # (128 - 64) / 2
        assert all(serves(client) for client in first)
        late = [stack.enter_context(connect(address)) for _ in range(32)]
        one.wait_for_count(accepted=32)
        for client in first:
            client.close()
        assert all(serves(client) for client in late)
        assert "cannot accept" not in one.running.stderr


def test_worker_that_has_no_file_left_pauses_and_goes_on(address: str, listener: socket.socket) -> None:
    """Files may go to others than connections: then accept(2) fails at once, each time, without ever waiting."""
    with target(address, echo), gate_worker.worker(listener, route(address)) as one:
        pid = one.running.pid
        used = {int(file.name) for file in Path(f"/proc/{pid}/fd").iterdir()}
        set_limit(pid, next(number for number in itertools.count() if number not in used))
        with connect(address) as client:
            one.running.wait_for("cannot accept")
            before = switches(pid)
            processes.wait_until(lambda: switches(pid) > before, what="it has tried again, after a pause")
            assert len(one.lines("cannot accept")) == 1
            set_limit(pid, 1024)
            assert serves(client)


def set_limit(pid: int, files: int) -> None:
    done = processes.run(["prlimit", f"--nofile={files}:", f"--pid={pid}"])
    assert done.returncode == 0, done.stderr


def switches(pid: int) -> int:
    """How often it has gone to sleep."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("voluntary_ctxt")))


@pytest.mark.parametrize("way", ["raw", "tunnels"])
def test_bytes_are_counted_while_their_connection_is_open(address: str, listener: socket.socket, way: str) -> None:
    through = route(address) if way == "raw" else f"b.demo=http://{address}:15009"
    with (
        target(address, echo),
        server(address),
        gate_worker.worker(listener, through) as one,
        connect(address) as client,
    ):
        assert serves(client)
        many = bytes(100_000)
        sender = threading.Thread(target=client.sendall, args=(many,))
        sender.start()
        left = len(many)
        while left:
            left -= len(client.recv(left))
        sender.join()
        count = float(len(HELLO) + len(many))
        one.wait_for_count(**{"sent_bytes": count, "received_bytes": count, f"open_{way}": 1})
        # And not once more at its end.
        client.shutdown(socket.SHUT_WR)
        one.wait_for_count(**{"sent_bytes": count, "received_bytes": count, f"open_{way}": 0})
        assert one.count("sent_bytes") == count


def test_killed_worker_is_replaced_and_nobody_who_waits_is_lost(address: str) -> None:
    with (
        target(address, echo),
        gate(address, "--workers", "1", route=route(address)) as hgate,
        contextlib.ExitStack() as stack,
    ):
        (pid,) = processes.children(hgate.pid)
        os.kill(pid, signal.SIGSTOP)
        waiting = [stack.enter_context(connect(address)) for _ in range(30)]
        os.kill(pid, signal.SIGKILL)
        assert all(serves(client) for client in waiting)
        line = the_line(hgate, "a worker has ended, another is started")
        assert (line["pid"], line["status"]) == (pid, 137)


def test_worker_that_hangs_is_ended_and_replaced_and_the_log_says_what_it_had(address: str) -> None:
    with (
        target(address, echo),
        gate(address, "--workers", "1", "--worker-timeout", "5", route=route(address)) as hgate,
        contextlib.ExitStack() as stack,
    ):
        (pid,) = processes.children(hgate.pid)
        open_ = [stack.enter_context(connect(address)) for _ in range(3)]
        assert all(serves(client) for client in open_)
        os.kill(pid, signal.SIGSTOP)
        waiting = [stack.enter_context(connect(address)) for _ in range(5)]
        assert all(serves(client) for client in waiting)
        line = the_line(hgate, "a worker hangs: it is ended, and its connections with it")
        assert (line["pid"], line["count"], line["severity"]) == (pid, 3, "ERROR")
        assert the_line(hgate, "a worker has ended, another is started")["status"] == 137
        for client in open_:
            assert read_all(client) == b""


def test_another_worker_takes_what_comes_while_one_hangs(address: str) -> None:
    """Its time is long here: who waits is not to wait for it."""
    with (
        target(address, echo),
        gate(address, "--workers", "2", "--worker-timeout", "600", route=route(address)) as hgate,
        contextlib.ExitStack() as stack,
    ):
        frozen = processes.children(hgate.pid)[0]
        os.kill(frozen, signal.SIGSTOP)
        assert all(serves(stack.enter_context(connect(address))) for _ in range(30))
        os.kill(frozen, signal.SIGKILL)  # nobody waits for it at the end


def test_worker_that_dies_again_and_again_is_started_with_pauses_and_others_serve(address: str) -> None:
    with target(address, echo), gate(address, "--workers", "2", route=route(address)) as hgate:
        victim, other = processes.children(hgate.pid)
        for _ in range(3):
            os.kill(victim, signal.SIGKILL)
            victim = successor(hgate.pid, than=(victim, other))
            with connect(address) as client:
                assert serves(client)
        assert len(lines(hgate, "a worker has ended, another is started")) == 3


def successor(parent: int, *, than: tuple[int, int]) -> int:
    """Wait for another child than these; its number."""
    found: list[int] = []

    def is_there() -> bool:
        found[:] = [pid for pid in processes.children(parent) if pid not in than]
        return bool(found)

    processes.wait_until(is_there, what="another is started")
    return found[0]


def test_workers_go_on_when_the_control_process_is_killed(address: str) -> None:
    with target(address, echo), gate(address, "--workers", "2", route=route(address)) as hgate:
        workers = processes.children(hgate.pid)
        with connect(address) as client:
            assert serves(client)
            hgate.signal(signal.SIGKILL)
            client.sendall(HELLO)
            assert serves(client)
            with connect(address) as another:
                assert serves(another)
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        processes.wait_until(lambda: not processes.listens(address, gate_worker.PORT), what="the port is closed")
