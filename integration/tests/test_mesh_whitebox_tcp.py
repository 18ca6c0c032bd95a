"""KRUN_TCP of a whitebox workload: what is refused at the start, by name, and a real database by a local port."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from krun_testbed import components, mesh_objects, mesh_pod, mesh_postgres, mesh_whitebox, mesh_workload, processes
from krun_testbed.certificates import Authority
from krun_testbed.mesh_cluster import Cluster


def refused(tmp_path: Path, tcp: str, *arguments: str, **env: str) -> str:
    """What krun-launch says to it, ending with 78."""
    template = tmp_path / "template.json"
    template.write_text("{}")
    settings = processes.environment(
        KRUN_MODE="whitebox",
        XDS_ADDR="127.0.0.1:1",
        CAROOT_ISTIOD=Authority().root.decode(),
        TRUST_DOMAIN="cluster.local",
        WORKLOAD_NAMESPACE="demo",
        KRUN_PILOT_AGENT=components.program("true", package="coreutils"),
        ISTIO_BOOTSTRAP=str(template),
        KRUN_RUN_DIR=str(tmp_path / "run"),
        KRUN_TCP=tcp,
        **env,
    )
    argv = [components.command("krun-launch"), "--no-env", *arguments, "--", "true"]
    done = processes.run(argv, env=settings)
    assert done.returncode == 78, done.stderr
    return done.stderr


@pytest.mark.loopback
@pytest.mark.parametrize(
    ("tcp", "words"),
    [
        ("6379", "KRUN_TCP: '6379' is not PORT=SERVICE:PORT"),
        ("6379=cache:redis", "KRUN_TCP: 'redis' is not a port"),
        ("15007=cache:6379", "KRUN_TCP: port 15007 is one of Envoy's"),
        ("6379=cache:6379,6379=db:5432", "KRUN_TCP: port 6379 is there twice"),
        ("3000=cache:6379", "KRUN_TCP: port 3000 is where the application listens"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, tcp: str, words: str) -> None:
    assert f"krun-launch: error: {words}" in refused(tmp_path, tcp, "--dry-run", PORT_http="3000")


@pytest.mark.loopback
def test_a_port_that_somebody_has_is_refused_by_name_and_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(tmp_path, f"{port}=cache:6379")
    assert f"port {port} on 127.0.0.1, for cache.demo.svc.cluster.local:6379: Address already in use, by " in said
    assert "set KRUN_TCP" in said


if mesh_postgres.PROGRAMS:

    @pytest.mark.mesh
    @pytest.mark.timeout(300)
    def test_a_real_database_is_used_by_a_local_port_over_mutual_tls(cluster: Cluster) -> None:
        namespace = cluster.namespace()
        cluster.apply(mesh_objects.strict(), namespace=namespace)
        with (
            cluster.pod("db", namespace=namespace, service=False) as db,
            mesh_postgres.postgres(db.place),
            mesh_whitebox.outsider(cluster, namespace=namespace, KRUN_TCP="6432=db:5432") as outsider,
        ):
            cluster.service("db", db, namespace=namespace, ports={"tcp-postgres": (5432, 5432)})
            mesh_pod.wait_until_served(outsider.place, db.place.address)
            cluster.settle(db.place, outsider.place, namespace=namespace)
            psql = mesh_postgres.psql("127.0.0.1", port=6432)
            query = "create table t as select generate_series(1, 100000) n; select sum(n) from t"
            done = outsider.place.run(*mesh_workload.as_app(*psql, "-Atc", query))
            assert done.returncode == 0, done.stderr
            assert done.stdout.split()[-1] == "5000050000"
            # The server knows our identity by its sidecar alone: nobody comes in plain.
            with cluster.network.place() as stranger:
                there = mesh_postgres.psql(db.place.address)
                assert stranger.run(*mesh_workload.as_app(*there, "-Atc", "select 1")).returncode != 0
