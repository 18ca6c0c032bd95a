"""A workload of static mode, with the real Envoy and certificates of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from krun_launch import lines
from krun_testbed import processes
from krun_testbed.certificates import Authority, spiffe_id, write_workload


@pytest.fixture
def workload(address: str, authority: Authority, tmp_path: Path) -> dict[str, str]:
    """The environment of a workload whose certificates are good, and whose gateway nobody serves."""
    identity = spiffe_id(trust_domain="cluster.local", namespace="demo", account="default")
    write_workload(
        directory=tmp_path / "certificates", pair=authority.workload(spiffe_id=identity), root=authority.root
    )
    return processes.environment(
        KRUN_LOOPBACK=address,
        KRUN_CERTS=str(tmp_path / "certificates"),
        MESH="static:127.0.0.1:1",
        WORKLOAD_NAMESPACE="demo",
        KRUN_LOG_FORMAT="text",
        TMPDIR=str(tmp_path),
    )


@pytest.fixture
def alone() -> dict[str, str]:
    """The environment of an application without a mesh."""
    return processes.environment(KRUN_MODE="none", KRUN_LOG_FORMAT="text")


@pytest.fixture
def logged(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What this process has logged since it was asked last."""
    kept = dict(lines._wanted)
    lines.configure(tool="test", style="json")
    yield lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    lines._wanted.update(kept)
