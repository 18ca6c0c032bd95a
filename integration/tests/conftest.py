"""Fixtures of container tests (pytest-docker brings the mesh up once for each worker) and of tests of a real mesh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from krun_testbed import containers, containers_mesh, docker_engine, images, mesh_captured
from krun_testbed.containers import Container
from krun_testbed.containers_mesh import Mesh
from krun_testbed.mesh_captured import World
from krun_testbed.mesh_cluster import Cluster


@pytest.fixture(scope="session")
def engine() -> Iterator[None]:
    """An engine that answers, with every image made: the runner of the tiers has seen to both already."""
    with docker_engine.used():
        images.make()
        containers.sweep()
        yield
        # Whatever compose could not take down, or did not bring up whole.
        containers.sweep(ours=True)


@pytest.fixture(scope="session")
def mesh_folder(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mesh")
    containers_mesh.prepare(folder)
    return folder


# What pytest-docker asks for. Its own defaults are those of compose 2: `docker compose up --build --wait`.
@pytest.fixture(scope="session")
def docker_compose_command(mesh_folder: Path) -> str:
    return containers_mesh.command(mesh_folder / "variables.env")


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(containers_mesh.COMPOSE)


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    return containers_mesh.project()


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    return ["up --detach"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    return ["down --volumes --timeout 5"]


@pytest.fixture(scope="session")
def mesh(docker_services: Any, docker_compose_project_name: str, mesh_folder: Path) -> Mesh:
    """The mesh, up: its gateway and its workload b are ready."""
    running = Mesh(project=docker_compose_project_name, folder=mesh_folder)
    with running.service("gate") as gate, running.service("b") as b:
        gate.wait_for('"message": "ready"')
        b.wait_for(containers_mesh.READY)
    return running


@pytest.fixture
def b(mesh: Mesh) -> Iterator[Container]:
    """The other workload of the mesh."""
    with mesh.service("b") as container:
        yield container


@pytest.fixture(scope="session")
def world(cluster: Cluster) -> Iterator[World]:
    """A captured workload outside of a real mesh, and its peers, for all tests of a worker: they leave it so."""
    with mesh_captured.world(cluster) as made:
        yield made
