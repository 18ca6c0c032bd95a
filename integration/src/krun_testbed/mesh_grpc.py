"""A gRPC service in a place, and a client of it as a process: ``python -m krun_testbed.mesh_grpc HOST:PORT``.

The client makes one call of each kind, and prints what came of them as JSON.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator

import grpc

from krun_testbed import grpc_peers, mesh_sockets
from krun_testbed.grpc_peers import PIECE, Calls
from krun_testbed.mesh_network import Place

PIECES = 16


@contextlib.contextmanager
def service(where: Place, *, port: int) -> Iterator[Calls]:
    """The service, in this process, listening in the place."""
    made = grpc_peers.service("0.0.0.0", port)
    calls = mesh_sockets.inside(where.pid, made.__enter__)
    try:
        yield calls
    finally:
        made.__exit__(None, None, None)


def calls(target: str) -> dict[str, object]:
    """What comes of one call of each kind."""
    with grpc_peers.client(target) as client:
        answer, trailing = client.unary(b"hello", metadata=(("x-mark", "yes"),))
        failed = ""
        try:
            client.unary(b"fail on purpose")
        except grpc.RpcError as error:
            failed = error.code().name
        return {
            "unary": answer.decode(),
            "trailer": trailing["x-sum"],
            "failed": failed,
            "poured": sum(len(piece) for piece in client.pour(PIECES)),
            "gathered": int(client.gather(bytes(PIECE) for _ in range(PIECES))),
            "talked": b"".join(client.talk(iter([b"a", b"b", b"c"]))).decode(),
        }


if __name__ == "__main__":
    print(json.dumps(calls(sys.argv[1])))
