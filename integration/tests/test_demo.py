"""The demo, as a newcomer runs it."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

import pytest

from krun_testbed import processes

pytestmark = pytest.mark.loopback

A = "spiffe://krun-demo.svc.id.goog/ns/demo/sa/a"
B = "spiffe://krun-demo.svc.id.goog/ns/demo/sa/b"
COMMAND = [sys.executable, "-m", "krun_testbed.demo"]


def test_demo_tells_the_whole_story_at_80_columns_and_leaves_nothing(tmp_path: Path) -> None:
    done = processes.run(COMMAND, env=processes.environment(TMPDIR=str(tmp_path)), stdin=None)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("b", "b.demo", "b.demo.svc", "b.demo.svc.cluster.local"):
        assert f"GET http://{name}/ " in done.stdout
        assert f"GET http://{name}:8080/ " in done.stdout
    assert f"caller  {A}" in done.stdout
    assert f"itself  {B}" in done.stdout
    assert done.stdout.count("accepted") == 1
    assert done.stdout.count("refused ") == 3
    assert "inside b, revision b-" in done.stdout
    assert "no process and no file is left" in done.stdout
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
    assert list(tmp_path.iterdir()) == []


def test_demo_that_is_interrupted_stops_what_it_started(tmp_path: Path) -> None:
    with processes.start(COMMAND, env=processes.environment(TMPDIR=str(tmp_path))) as running:
        running.wait_for("4. gateway", timeout=60)
        below = processes.children(running.pid)
        running.signal(signal.SIGINT)
        assert running.wait(timeout=30) == 128 + signal.SIGINT
        assert "Traceback" not in running.stderr
    assert below
    assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []
    assert list(tmp_path.iterdir()) == []
    assert Path(tempfile.gettempdir()).exists()
