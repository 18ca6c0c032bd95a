"""hboned by several processes: shared evenly, drained together, replaced when they die or hang, gone with a parent."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import processes
from krun_testbed.processes import Running
from krun_testbed.public_peers import Http2, app, head, http1, status_of
from krun_testbed.tunnels import connect, echo, lines, read_all, server, target

pytestmark = pytest.mark.loopback

PORT = 15009
ENDED = "a worker has ended, another is started"
HANGS = "a worker hangs: it is ended, and its connections with it"


@contextlib.contextmanager
def shared(address: str, *flags: str, workers: int = 2) -> Iterator[Running]:
    """hboned with so many workers, and the public's application behind it."""
    with app(address), server(address, "--public", "app", "--workers", str(workers), *flags) as hboned:
        yield hboned


@contextlib.contextmanager
def clients(address: str, count: int) -> Iterator[list[Http2]]:
    """So many connections, one after the other, each of which has been served."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            found.append(Http2(stack.enter_context(connect(address, PORT))))
            assert asks(found[-1]) == 200
        yield found


def asks(client: Http2) -> int:
    return client.wait(client.request(head(b"/?size=1"))).status


def who_has(address: str, hboned: Running) -> Counter[int]:
    """Of each worker, how many of its connections are open."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "01" and words[1] == f"{number(address):08X}:{PORT:04X}":
            inodes.add(f"socket:[{words[9]}]")
    return Counter({pid: len(inodes & files(pid)) for pid in processes.children(hboned.pid)})


def number(address: str) -> int:
    return int.from_bytes(socket.inet_aton(address), "little")


def files(pid: int) -> set[str]:
    found = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(file.readlink()))
    return found


def successor(hboned: Running, *, than: set[int]) -> int:
    """Wait for another worker than these; its number."""
    found: set[int] = set()

    def is_there() -> bool:
        found.update(set(processes.children(hboned.pid)) - than)
        return bool(found)

    processes.wait_until(is_there, what="another worker is there")
    return found.pop()


def is_gone(pid: int) -> bool:
    """Whether it has ended; whoever it belongs to then may not have reaped it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_connections_that_come_one_by_one_are_shared_evenly(address: str) -> None:
    with shared(address, workers=3) as hboned, clients(address, 12):
        has = who_has(address, hboned)
        assert has.total() == 12
        # One more than another is even. A worker that is not there for 0.2 s, on a busy machine, misses its turn.
        assert sorted(has.values())[0] >= 2, has


def test_ready_is_said_once_when_all_accept_and_idle_when_none_has_work(address: str) -> None:
    reader, writer = os.pipe()
    env = processes.environment(KRUN_LOOPBACK=address, KRUN_LOG_FORMAT="json", KRUN_WORKERS="2")
    argv = ["hboned", "--public", "app", "--notify-fd", str(writer)]
    with app(address) as recording, processes.start(argv, env=env, pass_fds=(writer,)) as hboned:
        os.close(writer)
        assert next_word(reader) == b"ready\n"
        assert len(processes.children(hboned.pid)) == 2
        with clients(address, 4) as found:
            for client in found:
                client.request(head(b"/wait?wait&size=1"))
            processes.wait_until(lambda: recording.stdout.count('"waiting"') == 4, what="all are under way")
            hboned.signal(signal.SIGTERM)
            for client in found:
                assert client.wait_for_goaway() == 0
            processes.wait_until(lambda: not processes.listens(address, PORT), what="no new connection is taken")
            assert not select.select([reader], [], [], 0)[0]
            let_go(address, 4)
            assert next_word(reader) == b"idle\n"
            assert [client.wait(3).status for client in found] == [200] * 4
        assert hboned.wait() == 0
        # Nobody but the parent has the pipe: its end is the tool's.
        assert os.read(reader, 100) == b""
        os.close(reader)
        assert len(lines(hboned, "ready")) == len(lines(hboned, "drained")) == 1


def next_word(reader: int) -> bytes:
    assert select.select([reader], [], [], processes.WAIT)[0]
    return os.read(reader, 100)


def let_go(address: str, count: int) -> None:
    """Let so many requests on that wait in the application."""
    for _ in range(count):
        request = b"GET /go?size=0 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        assert status_of(http1(address, request, port=8080)) == 200


def test_tunnels_of_all_workers_go_on_while_they_drain_and_a_second_signal_ends_them(address: str) -> None:
    with target(address, echo), shared(address) as hboned, clients(address, 4) as found:
        assert len([pid for pid, count in who_has(address, hboned).items() if count]) == 2
        streams = [client.request(head(b"/_hbone/15003", b"POST"), end=False) for client in found]
        for client, stream in zip(found, streams, strict=True):
            assert client.wait_for_head(stream).status == 200
        hboned.signal(signal.SIGTERM)
        for client in found:
            client.wait_for_goaway()
        processes.wait_until(lambda: not processes.listens(address, PORT), what="no new connection is taken")
        for client, stream in zip(found, streams, strict=True):
            client.data(stream, b"still there")
            while client.answers[stream].data != b"still there":
                client.step()
        hboned.signal(signal.SIGTERM)
        assert hboned.wait() == 0
        for client in found:
            assert ends(client)


def ends(client: Http2) -> bool:
    """Whether its connection is closed, in order or not."""
    with contextlib.suppress(ConnectionError):
        read_all(client.socket)
    return True


def test_worker_that_dies_is_replaced_and_those_of_others_go_on(address: str) -> None:
    with shared(address) as hboned, clients(address, 6) as found:
        has = who_has(address, hboned)
        victim = has.most_common(1)[0][0]
        os.kill(victim, signal.SIGKILL)
        hboned.wait_for(ENDED)
        (line,) = lines(hboned, ENDED)
        assert (line["pid"], line["status"], line["count"], line["severity"]) == (victim, 137, has[victim], "ERROR")
        assert sum(is_served(client) for client in found) == 6 - has[victim]
        successor(hboned, than=set(has))
        with clients(address, 6):
            assert len(processes.children(hboned.pid)) == 2
        assert hboned.terminate() == 0


def is_served(client: Http2) -> bool:
    try:
        return asks(client) == 200
    except (AssertionError, ConnectionError):
        return False


def test_worker_that_hangs_is_ended_and_replaced(address: str) -> None:
    with shared(address, "--worker-timeout", "5", workers=2) as hboned, clients(address, 2) as found:
        has = who_has(address, hboned)
        frozen = has.most_common(1)[0][0]
        os.kill(frozen, signal.SIGSTOP)
        # Who comes meanwhile is served, whoever was woken.
        with clients(address, 4):
            hboned.wait_for(HANGS)
            (line,) = lines(hboned, HANGS)
            assert (line["pid"], line["count"]) == (frozen, has[frozen])
            successor(hboned, than=set(has))
        assert sum(is_served(client) for client in found) == 2 - has[frozen]
        assert hboned.terminate() == 0


def test_workers_end_with_their_parent_and_the_port_is_free(address: str) -> None:
    with shared(address) as hboned, clients(address, 2) as found:
        workers = processes.children(hboned.pid)
        hboned.signal(signal.SIGKILL)
        assert all(ends(client) for client in found)
        processes.wait_until(lambda: all(is_gone(pid) for pid in workers), what="all workers are gone")
        with socket.create_server((address, PORT)):
            pass


def test_a_parent_that_was_stopped_ends_no_worker_when_it_goes_on(address: str) -> None:
    """A container without work has no CPU: then nobody hangs, whatever the clock says."""
    with shared(address, "--worker-timeout", "3") as hboned, clients(address, 2) as found:
        workers = processes.children(hboned.pid)
        for pid in (hboned.pid, *workers):
            os.kill(pid, signal.SIGSTOP)
        assert not hboned.ends(timeout=4)  # longer than a worker may be silent
        for pid in (hboned.pid, *workers):
            os.kill(pid, signal.SIGCONT)
        assert [asks(client) for client in found] == [200, 200]
        assert processes.children(hboned.pid) == workers
        assert lines(hboned, HANGS) == []


def test_signals_to_the_whole_group_are_one_word_of_the_parents(address: str) -> None:
    """A terminal, and a container's end, tell all processes at once."""
    with target(address, echo), shared(address) as hboned, clients(address, 2) as found:
        stream = found[0].request(head(b"/_hbone/15003", b"POST"), end=False)
        assert found[0].wait_for_head(stream).status == 200
        os.killpg(hboned.pid, signal.SIGTERM)
        found[0].wait_for_goaway()
        found[0].data(stream, b"bye", end=True)
        assert found[0].wait(stream).data == b"bye"
        assert hboned.wait() == 0


@pytest.mark.parametrize("count", ["0", "65", "many", "-1", "1.5", ""])
def test_number_of_workers_that_is_none_is_refused(address: str, count: str) -> None:
    done = processes.run(["hboned", "--workers", count], env=processes.environment(KRUN_LOOPBACK=address))
    assert done.returncode == 2
    assert "auto" in done.stderr


def test_auto_is_one_for_each_cpu_and_one_is_no_other_process(address: str) -> None:
    one = f"{min(os.sched_getaffinity(0))}"
    for count in ("auto", "1"):
        env = processes.environment(KRUN_LOOPBACK=address, KRUN_WORKERS=count)
        with processes.start(["taskset", "-c", one, "hboned"], env=env) as hboned:
            hboned.wait_for("ready")
            assert processes.children(hboned.pid) == []
