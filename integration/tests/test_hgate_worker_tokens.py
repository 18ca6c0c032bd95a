"""A worker's tunnels and the tokens in them: asked for once, waited for, made anew when refused, told to nobody."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from hgate import feed
from hgate.routes import Identity, Route
from krun_testbed import gate_worker, plain_front, processes
from krun_testbed.gate_worker import HELLO, Worker, connect
from krun_testbed.tunnels import echo, read_all, server, target

pytestmark = pytest.mark.loopback

B = Identity(audience="https://b.example")


class Front:
    """A server of tunnels, made of h2 alone, that takes one token and echoes; ``requests`` are all tokens it saw."""

    def __init__(self, *, takes: str, status: int = 401) -> None:
        self.takes = takes
        self.status = status
        self.requests: list[str] = []
        self.connections = 0
        self.lost = threading.Semaphore(0)  # how many connections are to be closed at their first request

    def __call__(self, connected: socket.socket) -> None:
        self.connections += 1
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        connected.sendall(connection.data_to_send())
        while data := connected.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    if self.lost.acquire(blocking=False):
                        return
                    self._answer(connection, event)
                elif isinstance(event, h2.events.DataReceived):
                    connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
                    connection.send_data(event.stream_id or 0, event.data or b"")
                elif isinstance(event, h2.events.StreamEnded):
                    connection.end_stream(event.stream_id or 0)
            connected.sendall(connection.data_to_send())

    def _answer(self, connection: h2.connection.H2Connection, event: h2.events.RequestReceived) -> None:
        fields = {name.decode(): value.decode() for name, value in event.headers or ()}
        token = fields.get("x-serverless-authorization", "").removeprefix("Bearer ")
        self.requests.append(token)
        stream = event.stream_id or 0
        if token == self.takes:
            connection.send_headers(stream, [(":status", "200")])
        else:
            connection.send_headers(stream, [(":status", str(self.status))], end_stream=True)


@pytest.fixture
def front(address: str) -> Iterator[Front]:
    one = Front(takes="good.token.x")
    with target(address, one, port=15009):
        yield one


@pytest.fixture
def worker(address: str) -> Iterator[Worker]:
    route = Route(service="b", namespace="demo", url=f"http://{address}:15009/_hbone/15003", identity=B)
    with gate_worker.listening(address) as listener, gate_worker.worker(listener, route) as one:
        yield one


def token(text: str, *, life: float = 3600.0) -> feed.Token:
    return feed.Token(identity=B, token=text, expires=time.time() + life, email="gate@p.iam.gserviceaccount.com")


def needs(worker: Worker) -> list[feed.Need]:
    return [message for message in worker.heard if isinstance(message, feed.Need)]


def serves(client: socket.socket) -> bool:
    got = b""
    while len(got) < len(HELLO):
        got += client.recv(65536) or pytest.fail(f"ended after {len(got)} bytes")
    return got == HELLO


def test_connections_wait_for_a_token_that_is_not_asked_for_by_each(address: str, front: Front, worker: Worker) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(address)) for _ in range(20)]
        worker.wait_for_count(token_waiting=20)
        assert front.connections == 0
        worker.tell(token("good.token.x"))
        assert all(serves(client) for client in clients)
    assert 0 < len(needs(worker)) < 20  # once a second, on a machine as slow as that
    assert set(front.requests) == {"good.token.x"}
    assert "good.token" not in worker.running.said()


def test_a_client_that_leaves_while_its_token_is_made_is_noticed_at_once(
    address: str, front: Front, worker: Worker
) -> None:
    with connect(address) as stays:
        with connect(address):
            worker.wait_for_count(token_waiting=2, open_tunnels=2)
        # Long before nobody waits for a token any more, it is not among those who do.
        assert "has left before there was an ID token" in str(worker.the_line("connection failed")["reason"])
        worker.wait_for_count(token_waiting=1, open_tunnels=1)
        worker.tell(token("good.token.x"))
        assert serves(stays)
    assert len(front.requests) == 1


def test_first_use_of_each_token_is_told(address: str, front: Front, worker: Worker) -> None:
    worker.tell(token("good.token.x"))
    for _ in range(3):
        with connect(address) as client:
            assert serves(client)
    front.takes = "next.token.x"
    worker.tell(token("next.token.x"))
    for _ in range(3):
        with connect(address) as client:
            assert serves(client)
    worker.wait_for_count(tunnels=6, open_tunnels=0)
    assert needs(worker) == [feed.Need(identity=B)] * 2


def test_token_that_is_refused_is_made_anew_and_the_connection_lives(
    address: str, front: Front, worker: Worker
) -> None:
    worker.tell(token("old.token.x"))
    with connect(address) as client:
        worker.wait_for(feed.Need, lambda need: need.refused)
        worker.tell(token("good.token.x"))
        assert serves(client)
    assert front.requests == ["old.token.x", "good.token.x"]
    assert worker.the_line("connection closed")["reason"] == "ended"


def test_second_refusal_ends_the_connection_with_what_the_token_was(address: str, front: Front, worker: Worker) -> None:
    worker.tell(token("old.token.x"))
    with connect(address) as client:
        worker.wait_for(feed.Need, lambda need: need.refused)
        worker.tell(token("old.too.x"))
        with pytest.raises(ConnectionResetError):
            read_all(client)
    line = worker.the_line("connection failed")
    assert line["status"] == 401
    for word in ("https://b.example", "gate@p.iam.gserviceaccount.com", "until 20", "hint: ", "roles/run.invoker"):
        assert word in str(line["reason"])
    assert "token.x" not in worker.running.said()
    assert front.requests == ["old.token.x", "old.too.x"]


@pytest.mark.parametrize("status", [403, 404, 429, 503])
def test_other_refusals_are_not_tried_again(address: str, front: Front, worker: Worker, status: int) -> None:
    front.status = status
    worker.tell(token("old.token.x"))
    with connect(address) as client, pytest.raises(ConnectionResetError):
        read_all(client)
    assert worker.the_line("connection failed")["status"] == status
    assert front.requests == ["old.token.x"]


def test_token_that_cannot_be_made_is_said_by_each_connection(address: str, front: Front, worker: Worker) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(address)) for _ in range(6)]
        worker.wait_for_count(token_waiting=6)
        worker.tell(feed.NoToken(identity=B, error="the metadata server says 403", hint="grant it"))
        for client in clients:
            with pytest.raises(ConnectionResetError):
                read_all(client)
    worker.wait_for_count(**{"error:token": 6})
    reasons = [line["reason"] for line in worker.lines("connection failed")]
    assert reasons == ["no ID token for https://b.example: the metadata server says 403 (hint: grant it)"] * 6
    assert front.connections == 0


def test_token_that_has_expired_is_not_sent(address: str, front: Front, worker: Worker) -> None:
    worker.tell(token("old.token.x", life=2.0))
    worker.tell(feed.Routes(set=(Route(service="c", namespace="demo", url="https://c.example"),)))
    worker.wait_for_count(routes=2)  # so it has heard of the token, too
    with connect(address) as client:
        worker.wait_for(feed.Need)
        worker.tell(token("good.token.x"))
        assert serves(client)
    assert front.requests == ["good.token.x"]


def test_tokens_are_used_and_none_is_waited_for_when_the_control_process_is_gone(
    address: str, front: Front, worker: Worker
) -> None:
    worker.tell(token("good.token.x"))
    with connect(address) as client:
        assert serves(client)
        worker.leave()
        worker.running.wait_for("the control process is gone")
        with connect(address) as another:
            assert serves(another)
        front.takes = "other.token.x"
        with connect(address) as refused, pytest.raises(ConnectionResetError):
            read_all(refused)
    reason = str(worker.the_line("connection failed")["reason"])
    assert "the control process, which makes tokens, is gone" in reason


def test_tunnel_is_asked_for_again_when_its_connection_was_lost_before_the_answer(
    address: str, front: Front, worker: Worker
) -> None:
    worker.tell(token("good.token.x"))
    front.lost.release()
    with connect(address) as client:
        assert serves(client)
    assert front.connections == 2
    assert worker.the_line("connection closed")["reason"] == "ended"


def test_tunnel_whose_connection_is_lost_in_the_middle_is_broken_not_ended(
    address: str, front: Front, worker: Worker
) -> None:
    worker.tell(token("good.token.x"))
    with connect(address) as client, connect(address) as other:
        assert serves(client)
        assert serves(other)
        front.lost.release()
        with connect(address) as third:
            assert serves(third)
        for broken in (client, other):
            with pytest.raises(ConnectionResetError):
                read_all(broken)
    worker.wait_for_count(**{"error:broken": 2})


def test_full_connection_gets_a_further_one_through_a_real_envoy(address: str, tmp_path: Path) -> None:
    route = f"b.demo=http://{address}:9000/_hbone/15003"
    with (
        target(address, echo),
        server(address),
        plain_front.front(address, tmp_path, streams=10),
        gate_worker.listening(address) as listener,
        gate_worker.worker(listener, route) as worker,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(connect(address)) for _ in range(35)]
        assert all(serves(client) for client in clients)
        worker.wait_for_count(open_tunnels=35, tunnels=35)
        for client in clients:
            client.close()
        worker.wait_for_count(open_tunnels=0)


def test_connection_that_waits_for_a_token_ends_with_the_worker(address: str, front: Front, worker: Worker) -> None:
    with connect(address) as client:
        worker.wait_for(feed.Need)
        worker.tell(feed.Drain(now=True))
        with pytest.raises(ConnectionResetError):
            read_all(client)
    assert worker.running.wait() == 0
    assert worker.the_line("connection failed")["reason"] == "ended at once, by a signal"
    processes.wait_until(lambda: worker.running.ends(timeout=0), what="it has ended")
