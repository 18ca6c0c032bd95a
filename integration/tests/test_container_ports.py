"""What a workload's container shows to its neighbours: of all TCP ports, only the promised one."""

from __future__ import annotations

import pytest

from krun_testbed import processes
from krun_testbed.containers_mesh import Mesh

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]


@pytest.mark.parametrize(("bind", "expected"), [("0.0.0.0", [15009]), ("", [])])
def test_neighbour_finds_exactly_the_port_that_was_asked_for(bind: str, expected: list[int], mesh: Mesh) -> None:
    with mesh.workload("pipeline", bind=bind) as a:
        # All of them listen within: what the scan does not find is there.
        listening = a.exec("cat", "/proc/net/tcp").stdout
        assert {f"{port:04X}" for port in (8080, 15000, 15003, 15007, 15009, 15019)} <= listeners(listening)
        assert mesh.scan(a.address()) == expected


def test_scan_finds_what_listens(mesh: Mesh) -> None:
    with mesh.plain("app", env={"ADDRESS": "0.0.0.0", "PORT": "65535"}) as app:
        app.wait_for("app listens")
        assert mesh.scan(app.address()) == [65535]
        assert processes.listens(app.address(), 65535)  # this machine reaches a container by its address, too


def listeners(table: str) -> set[str]:
    """The local ports of sockets in state LISTEN (0A), as /proc/net/tcp writes them."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return {row[1].rpartition(":")[2] for row in rows if row[3] == "0A"}
