"""The ports of the mesh are written down while Envoy gets new clusters: a real Envoy, its clusters in a file."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_launch import cluster_watch, istio_scopes
from krun_launch.cluster_watch import ClusterWatch
from krun_launch.loop import Loop
from krun_launch.plan import Scopes
from krun_launch.signals import Signals
from krun_testbed import addresses, components, processes
from krun_testbed.processes import Running

pytestmark = pytest.mark.loopback

CLUSTER = "envoy.config.cluster.v3.Cluster"


def clusters(folder: Path, *ports: int) -> None:
    """The clusters that Envoy is to have from now on, by the names that istiod gives."""
    resources = [
        {
            "@type": f"type.googleapis.com/{CLUSTER}",
            "name": f"outbound|{port}||web.demo.svc.cluster.local",
            "type": "STATIC",
            "connect_timeout": "1s",
        }
        for port in ports
    ]
    scratch = folder / "clusters.new"
    scratch.write_text(json.dumps({"version_info": str(ports), "resources": resources}))
    scratch.rename(folder / "clusters.json")


class Watched:
    """Envoy's admin port, what is written, and the loop that does it."""

    def __init__(self, *, address: str, port: int, folder: Path, signals: Signals) -> None:
        self.file = folder / "scopes.json"
        self.loop = Loop(signals)
        self.watch = ClusterWatch(Scopes(host=address, port=port, file=self.file), loop=self.loop)

    def until(self, *ports: int) -> None:
        """Turn the loop until these are the ports."""
        processes.wait_until(lambda: self._turn() == istio_scopes.render(ports), what=f"scopes of {ports}")

    def _turn(self) -> str:
        self.loop.turn(min(self.watch.act(), 0.1))
        return self.file.read_text() if self.file.exists() else ""


@pytest.fixture
def watched(address: str, tmp_path: Path) -> Iterator[tuple[Watched, Running]]:
    port = addresses.free_port(address=address)
    bootstrap = {
        "node": {"id": "a", "cluster": "a"},
        "admin": {"address": {"socket_address": {"address": address, "port_value": port}}},
        "dynamic_resources": {
            "cds_config": {
                "path_config_source": {"path": str(tmp_path / "clusters.json")},
                "resource_api_version": "V3",
            }
        },
    }
    (tmp_path / "envoy.json").write_text(json.dumps(bootstrap))
    clusters(tmp_path, 8080)
    argv = [components.envoy(), "-c", str(tmp_path / "envoy.json"), "--disable-hot-restart", "--concurrency", "1"]
    with processes.start(argv) as running, Signals() as signals:
        processes.wait_for_port(address, port)
        found = Watched(address=address, port=port, folder=tmp_path, signals=signals)
        yield found, running
        found.watch.close()


def test_ports_are_written_and_written_again_when_clusters_come_and_go(
    watched: tuple[Watched, Running], tmp_path: Path
) -> None:
    found, _ = watched
    found.until(8080)
    assert found.watch.has_looked
    assert found.file.stat().st_mode & 0o777 == 0o600
    clusters(tmp_path, 8080, 6379)
    found.until(6379, 8080)
    clusters(tmp_path, 6379)
    found.until(6379)


def test_nothing_is_written_while_nothing_changes(watched: tuple[Watched, Running], tmp_path: Path) -> None:
    found, _ = watched
    found.until(8080)
    before = found.file.stat().st_ino
    # The next question, and its answer.
    found.loop.turn(cluster_watch.EVERY)
    for _ in range(5):
        found.loop.turn(min(found.watch.act(), 0.2))
    assert found.file.stat().st_ino == before


def test_envoy_that_is_frozen_is_asked_again_and_holds_up_nobody(
    watched: tuple[Watched, Running], tmp_path: Path
) -> None:
    found, running = watched
    found.until(8080)
    os.kill(running.pid, signal.SIGSTOP)
    waited = [found.watch.act() for _ in range(3)]
    assert max(waited) <= cluster_watch.EVERY
    found.loop.turn(cluster_watch.EVERY)
    found.watch.act()
    found.loop.turn(cluster_watch.LIMIT)
    found.watch.act()
    clusters(tmp_path, 9090)
    os.kill(running.pid, signal.SIGCONT)
    found.until(9090)


def test_envoy_that_is_not_there_is_no_failure(address: str, tmp_path: Path) -> None:
    with Signals() as signals:
        port = addresses.free_port(address=address)
        found = Watched(address=address, port=port, folder=tmp_path, signals=signals)
        for _ in range(2):
            while found.watch.act() < cluster_watch.LIMIT:
                found.loop.turn(cluster_watch.LIMIT)
            found.loop.turn(cluster_watch.EVERY)
        assert not found.watch.has_looked
        assert not found.file.exists()
