"""A real PostgreSQL in a place, and its client: where this machine has them, as setup does not install them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from krun_testbed import mesh_workload, processes
from krun_testbed.mesh_network import Place

# Of the newest version; none where there is none.
PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
PORT = 5432


@contextlib.contextmanager
def postgres(place: Place) -> Iterator[None]:
    """A server, as a user of its own, that takes connections of the sidecar alone."""
    data = place.folder / "data"
    data.mkdir()
    os.chown(data, mesh_workload.APP_USER, mesh_workload.APP_USER)
    made = place.run(*mesh_workload.as_app(_program("initdb"), "-A", "trust", "-U", "app", "-D", str(data)))
    assert made.returncode == 0, made.stderr
    # Where a sidecar's connections come from.
    (data / "pg_hba.conf").write_text("host all all 127.0.0.6/32 trust\n")
    argv = [_program("postgres"), "-D", str(data), "-h", "0.0.0.0", "-k", "", "-c", "fsync=off"]
    with processes.start(place.inside(mesh_workload.as_app(*argv))) as running:
        running.wait_for("ready to accept connections")
        yield


def psql(host: str, *, port: int = PORT) -> list[str]:
    """The client's command line, but for what it is to ask."""
    return [_program("psql"), "-h", host, "-p", str(port), "-U", "app", "-d", "postgres"]


def _program(name: str) -> str:
    assert PROGRAMS is not None
    return str(PROGRAMS / name)
