"""The benchmarks' own promises: loads that measure what they say, ratios of one round, rows that are met or not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from krun_testbed import bench_hgate, bench_tunnel, load_generator, load_rounds, load_systems, processes, tunnels
from krun_testbed.load_generator import Failed
from krun_testbed.load_rounds import Row
from krun_testbed.load_systems import System, Values


def taken(**systems: list[Values | None]) -> load_rounds.Taken:
    return load_rounds.Taken(rounds={("ping1", name): rounds for name, rounds in systems.items()}, said={})


def test_a_ratio_is_the_median_of_those_of_each_round() -> None:
    found = taken(ours=[{"p50": 2.0}, {"p50": 30.0}, {"p50": 8.0}], peer=[{"p50": 1.0}, {"p50": 10.0}, {"p50": 8.0}])
    assert found.ratio("ping1", "p50", ours="ours", peer="peer") == 2.0


def test_a_round_that_failed_counts_for_nobody() -> None:
    found = taken(ours=[{"p50": 2.0}, None, {"p50": 9.0}], peer=[None, {"p50": 1.0}, {"p50": 3.0}])
    assert found.ratio("ping1", "p50", ours="ours", peer="peer") == 3.0
    assert found.ratio("ping1", "p50", ours="ours", peer="nobody") is None


def test_each_row_is_told_with_its_target_and_whether_it_is_met() -> None:
    found = taken(ours=[{"p50": 2.0}], peer=[{"p50": 1.0}])
    rows = [
        Row(what="at most", metric="ping1", value="p50", ours="ours", peer="peer", most=1.9),
        Row(what="at least", metric="ping1", value="p50", ours="ours", peer="peer", least=1.9),
        Row(what="alone", metric="ping1", value="p50", ours="ours", most=2.0),
        Row(what="not measured", metric="conn16", value="conn/s", ours="ours", peer="peer", least=1.0),
    ]
    lines = [line.split() for line in load_rounds.verdicts(rows, found).splitlines()[1:]]
    assert [(line[-4:], line[-1]) for line in lines] == [
        (["<=", "1.9", "2.00", "short"], "short"),
        ([">=", "1.9", "2.00", "pass"], "pass"),
        (["<=", "2", "2.00", "pass"], "pass"),
    ]


def test_all_systems_are_measured_in_turn_in_each_round() -> None:
    asked: list[tuple[str, str]] = []

    def measure(system: str, metric: str) -> Values:
        asked.append((metric, system))
        if system == "b":
            raise Failed("it broke")
        return {"MB/s": 1.0}

    found = load_rounds.take(["idle", "up1"], ["a", "b"], measure, count=2)
    assert asked == [("idle", "a"), ("idle", "b"), *[("up1", "a"), ("up1", "b")] * 2]
    assert found.rounds["up1", "b"] == [None, None]
    assert "it broke" in load_rounds.table(found, peers=["a"])


@pytest.mark.loopback
def test_loads_measure_what_the_servers_see(address: str, tmp_path: Path) -> None:
    hello = tmp_path / "hello"
    hello.write_bytes(load_generator.hello("b.demo.svc.cluster.local"))
    with load_generator.servers(address=address, folder=tmp_path) as servers:
        echo, sink, source = (f"{address}:{port}" for port in servers.ports)
        for more in ([], [str(hello)]):
            assert load_generator.run("ping", echo, "100", "50", *more)["count"] == 50
            connected = load_generator.run("connects", echo, "4", "0.2", *more)
            assert connected["done"] > 0
            assert connected["failed"] == 0
            before = int.from_bytes(servers.counter.read_bytes(), "little")
            up = load_generator.run("bulk", sink, "up", "2", "0.2", str(servers.counter), *more)
            # What the sink has counted, but for the warm-up.
            assert 0 < up["bytes"] <= int.from_bytes(servers.counter.read_bytes(), "little") - before
            assert load_generator.run("bulk", source, "down", "2", "0.2", str(servers.counter), *more)["bytes"] > 0
            with load_generator.idle(echo, 50, *more):
                pass


@pytest.mark.loopback
def test_a_load_that_meets_nobody_fails_in_words(address: str) -> None:
    with pytest.raises(Failed, match=rf"{address}:1: Connection refused"):
        load_generator.run("ping", f"{address}:1", "1", "10")

    def shut(connected: socket.socket) -> None:
        connected.recv(1)

    with tunnels.target(address, shut) as port, pytest.raises(Failed, match="the connection ended"):
        load_generator.run("ping", f"{address}:{port}", "1", "10")


@pytest.mark.loopback
def test_cpu_and_memory_are_those_of_all_processes_of_a_system(address: str) -> None:
    argv = ["sh", "-c", "python3 -c 'x = bytearray(50_000_000)\nwhile sum(range(9999)): print(1, flush=True)' & wait"]
    with processes.start(argv) as running:
        system = System(name="x", echo="", sink="", source="", running=[running])
        running.wait_for("1")
        before = load_systems.cpu(system)
        processes.wait_until(lambda: load_systems.cpu(system) > before, what="its child's CPU counts")
        assert load_systems.memory(system) > 45_000


@pytest.mark.loopback
def test_tunnels_and_gates_are_measured_beside_a_peer() -> None:
    told = bench_tunnel.report(1, metrics=["ping1", "start"], systems=["hbone h2c", "envoy h2c"])
    assert "ping1 h2c p50 against envoy h2c" in told
    assert "start to first byte, TLS, against ssh -W" in told or "ssh -W: left out" in told
    told = bench_hgate.report(1, metrics=["conn16"], systems=["hgate", "envoy", "hgate h2c", "envoy h2c"])
    assert "hgate h2c: connections a second (conn16, conn/s) against envoy h2c" in told
