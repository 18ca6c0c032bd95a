"""A gRPC service and its client by grpcio, without generated code: messages are bytes, all four kinds of calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc

SERVICE = "krun.Testbed"
PIECE = 64 * 1024
# More than any call of the tests needs; a message is at most 4 MiB in gRPC anyhow.
DEADLINE = 60.0


class Calls:
    """What the service does; ``metadata`` is what its last call came with."""

    def __init__(self) -> None:
        self.metadata: list[tuple[str, str | bytes]] = []

    def unary(self, message: bytes, context: Any) -> bytes:
        """Gives the message back, or fails as it says."""
        self.metadata = [(key, value) for key, value in context.invocation_metadata()]
        context.set_trailing_metadata((("x-sum", str(len(message))), ("x-raw-bin", b"\0\xff")))
        if message.startswith(b"fail "):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, message.decode())
        return message

    def pour(self, message: bytes, context: Any) -> Iterator[bytes]:
        """Gives as many pieces as the message says."""
        for _ in range(int(message)):
            yield bytes(PIECE)

    def gather(self, messages: Iterator[bytes], context: Any) -> bytes:
        return b"%d" % sum(len(message) for message in messages)

    def talk(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from messages


@contextlib.contextmanager
def service(address: str, port: int) -> Iterator[Calls]:
    """The service, listening without TLS."""
    calls = Calls()
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(calls.unary),
        "Pour": grpc.unary_stream_rpc_method_handler(calls.pour),
        "Gather": grpc.stream_unary_rpc_method_handler(calls.gather),
        "Talk": grpc.stream_stream_rpc_method_handler(calls.talk),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"{address}:{port}")
    server.start()
    try:
        yield calls
    finally:
        server.stop(grace=None).wait(5)


@dataclass(frozen=True, kw_only=True)
class Client:
    """The calls, on one channel."""

    channel: Any

    def unary(self, message: bytes, *, metadata: tuple[tuple[str, str], ...] = ()) -> tuple[bytes, dict[str, Any]]:
        """The answer, and its trailing metadata."""
        call = self.channel.unary_unary(f"/{SERVICE}/Unary")
        answer, done = call.with_call(message, metadata=metadata, timeout=DEADLINE)
        return answer, dict(done.trailing_metadata())

    def pour(self, count: int) -> Iterator[bytes]:
        call = self.channel.unary_stream(f"/{SERVICE}/Pour")
        answers: Iterator[bytes] = call(b"%d" % count, timeout=DEADLINE)
        return answers

    def gather(self, messages: Iterator[bytes]) -> bytes:
        answer: bytes = self.channel.stream_unary(f"/{SERVICE}/Gather")(messages, timeout=DEADLINE)
        return answer

    def talk(self, messages: Iterator[bytes]) -> Iterator[bytes]:
        answers: Iterator[bytes] = self.channel.stream_stream(f"/{SERVICE}/Talk")(messages, timeout=DEADLINE)
        return answers


@contextlib.contextmanager
def client(target: str, *, root: bytes | None = None, host: str = "") -> Iterator[Client]:
    """A channel to HOST:PORT; with ``root``, by TLS for ``host``."""
    options: list[tuple[str, int | str]] = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    if root is None:
        channel = grpc.insecure_channel(target, options=options)
    else:
        options += [("grpc.ssl_target_name_override", host), ("grpc.default_authority", host)]
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(root), options=options)
    with channel:
        yield Client(channel=channel)
