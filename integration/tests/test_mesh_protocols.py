"""What a captured workload outside speaks reaches pods by mutual TLS, each protocol whole."""

from __future__ import annotations

import json
import sys

import pytest

from krun_testbed import mesh_agent, mesh_grpc, mesh_pod, mesh_postgres, mesh_workload
from krun_testbed.mesh_captured import World
from krun_testbed.mesh_grpc import PIECE, PIECES

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]

GRPC = 9090


def test_grpc_comes_whole_with_both_identities(world: World) -> None:
    with mesh_grpc.service(world.web.place, port=GRPC) as calls:
        world.cluster.service(
            "calls", world.web, namespace=world.namespace, ports={"grpc": (GRPC, GRPC)}, selector={"app": "web"}
        )
        mesh_agent.wait_for_config(world.a.place, rf"outbound\|{GRPC}\|\|calls\.")
        target = f"calls.{world.namespace}:{GRPC}"
        argv = mesh_workload.as_app(sys.executable, "-m", "krun_testbed.mesh_grpc", target)
        done = world.a.place.run(*argv)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "unary": "hello",
        "trailer": "5",
        "failed": "FAILED_PRECONDITION",
        "poured": PIECES * PIECE,
        "gathered": PIECES * PIECE,
        "talked": "abc",
    }
    certificate = str(dict(calls.metadata)["x-forwarded-client-cert"])
    assert f"URI={world.a.identity}" in certificate
    assert f"By={world.web.identity}" in certificate


def test_http_2_of_a_client_is_led_like_http_1(world: World) -> None:
    answer = world.get("http://web:8080/", "--http2-prior-knowledge")
    assert answer.identities == (world.a.identity, world.web.identity)


def test_bodies_come_whole_both_ways(world: World) -> None:
    body = "0123456789abcdef" * 32768
    file = mesh_workload.file(world.a.place, "body", body)
    answer = world.get("http://web:8080/", "--data-binary", f"@{file}", "--header", "content-type: text/plain")
    assert answer.json["body"] == body


def test_a_websocket_is_an_open_way(world: World) -> None:
    with world.a.place.connect(world.address("web"), 8080) as connection, connection.makefile("rb") as stream:
        head = "GET /ws HTTP/1.1\r\nHost: web:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        connection.sendall(head.encode())
        assert b" 101 " in stream.readline()
        while stream.readline() != b"\r\n":
            pass
        for words in (b"one", b"two"):
            connection.sendall(words)
            assert stream.read(len(words)) == words


def test_many_requests_on_one_connection_are_each_led_by_themselves(world: World) -> None:
    urls = [f"http://{name}:8080/" for name in ("web", "other", "bare") for _ in range(3)]
    lines = world.a.curl("--write-out", "\n", *urls).splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["web"] * 3 + ["other"] * 3 + ["bare"] * 3


if mesh_postgres.PROGRAMS:

    def test_a_real_database_is_used_by_its_name_over_mutual_tls(world: World) -> None:
        """PostgreSQL's client speaks first, then its server: a protocol that is none of HTTP's."""
        with (
            world.cluster.pod("db", namespace=world.namespace, service=False) as db,
            mesh_postgres.postgres(db.place),
        ):
            world.cluster.service("db", db, namespace=world.namespace, ports={"tcp-postgres": (5432, 5432)})
            mesh_pod.wait_until_served(world.a.place, db.place.address)
            world.cluster.settle(db.place, world.a.place, namespace=world.namespace)
            query = "create table t as select generate_series(1, 100000) n; select sum(n) from t"
            psql = mesh_postgres.psql(f"db.{world.namespace}")
            done = world.a.place.run(*mesh_workload.as_app(*psql, "-Atc", query))
            assert done.returncode == 0, done.stderr
            assert done.stdout.split()[-1] == "5000050000"
