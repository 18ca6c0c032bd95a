"""A workload ended at any moment of its life leaves nothing behind; ``make soak`` tries many more moments."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import addresses, processes
from krun_testbed.certificates import Authority, spiffe_id, write_workload
from krun_testbed.tables import ROOT

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(3600 if os.environ.get("KRUN_SOAK") else 240)]

ROUNDS = 200 if os.environ.get("KRUN_SOAK") else 8
PIPELINE = f"krun-discover | krun-launch -- {sys.executable} {ROOT / 'samples' / 'plain' / 'hello.py'} $KRUN_LOOPBACK"
# What a workload says on its way: a kill is sent right after one of these was seen, or some milliseconds later.
MOMENTS = (r"\A", r"envoy", r"app", r"hboned: ready", r"ready")


@contextlib.contextmanager
def workload(folder: Path, authority: Authority) -> Iterator[tuple[processes.Running, str]]:
    """A whole workload below our init, and its address, which marks all of its processes."""
    address = addresses.loopback()
    identity = spiffe_id(trust_domain="p.svc.id.goog", namespace="demo", account="b")
    pair = authority.workload(spiffe_id=identity)
    write_workload(directory=folder / "certificates", pair=pair, root=authority.root)
    env = processes.environment(
        KRUN_LOOPBACK=address,
        KRUN_CERTS=str(folder / "certificates"),
        WORKLOAD_NAMESPACE="demo",
        WORKLOAD_NAME="b",
        PROJECT_ID="p",
        MESH="static:127.0.0.1:15442",
        TMPDIR=str(folder),
        KRUN_LOG_FORMAT="text",
    )
    with processes.start(["krun-launch", "--init", "--", "sh", "-c", PIPELINE], env=env) as running:
        yield running, address


def marked(text: str) -> list[int]:
    """Every process of this machine whose command line or environment holds the text."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text.encode() in (path / "cmdline").read_bytes() + (path / "environ").read_bytes():
                found.append(int(path.name))
    return found


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_workload_killed_at_any_moment_leaves_no_process(
    number: int, sent: signal.Signals, tmp_path: Path, authority: Authority
) -> None:
    chance = random.Random(f"{number} {sent}")
    with workload(tmp_path, authority) as (running, address):
        running.wait_for(chance.choice(MOMENTS), timeout=60)
        with contextlib.suppress(AssertionError):
            # Wait for a line that never comes: a random moment after the one that was seen.
            running.wait_for("no such line", timeout=chance.uniform(0, 0.3))
        running.signal(sent)
        status = running.wait(timeout=30)
        processes.wait_until(lambda: marked(address) == [], what=f"no process left of {marked(address)}")
    assert status in ((128 + signal.SIGTERM, 0) if sent == signal.SIGTERM else (128 + signal.SIGKILL,)), running.said()
    if sent == signal.SIGTERM:
        assert sorted(path.name for path in tmp_path.iterdir()) == ["certificates"]
    assert "Traceback" not in running.stderr
