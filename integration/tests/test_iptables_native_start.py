"""The nft that krun-iptables starts before it has a text for it: told all of it or nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from krun_testbed import components, namespaces, processes
from krun_testbed.namespaces import Namespace

pytestmark = pytest.mark.netns
TABLE = "add table inet mine"
START = "import os, sys; from krun_iptables import nft_waiting; waiting = nft_waiting.Waiting(); "


@pytest.fixture
def workload() -> Iterator[Namespace]:
    with namespaces.namespace() as own:
        yield own


def run(where: Namespace, steps: str) -> subprocess.CompletedProcess[str]:
    return where.run(sys.executable, "-I", "-c", START + steps, env=processes.environment())


def tables(where: Namespace) -> str:
    return where.must("nft", "list", "tables")


def test_a_text_is_done_and_there_is_none_waiting_afterwards(workload: Namespace) -> None:
    done = run(workload, f"print(waiting.put({TABLE!r} + chr(10)).status, waiting.is_there); waiting.close()")
    assert (done.stdout, done.stderr) == ("0 False\n", "")
    assert tables(workload) == "table inet mine\n"


def test_what_nft_refuses_is_named_by_its_line(workload: Namespace) -> None:
    text = f"{TABLE}\nadd rule inet mine nowhere accept\n"
    done = run(workload, f"print(waiting.put({text!r}))")
    assert "status=1" in done.stdout
    assert "complained='/dev/stdin:2:" in done.stdout, done.stdout
    assert tables(workload) == ""


def test_a_long_text_is_done_whole(workload: Namespace) -> None:
    rules = "''.join(f'add rule inet mine ports tcp dport {port} accept\\n' for port in range(1, 5001))"
    done = run(
        workload,
        f"text = 'add table inet mine\\nadd chain inet mine ports\\n' + {rules}; print(waiting.put(text).status)",
    )
    assert done.stdout == "0\n", done.stderr
    assert workload.must("nft", "list", "table", "inet", "mine").count("accept") == 5000


@pytest.mark.parametrize("until", ["", "nft_waiting.fill(waiting._text, {text!r}); "])
def test_who_is_killed_before_nft_was_told_leaves_nothing(workload: Namespace, until: str) -> None:
    told = until.format(text=f"{TABLE}\n")
    # The end of nft's stdout is its end: it holds the pipe that is read here.
    done = run(workload, f"{told}os.kill(os.getpid(), {int(signal.SIGKILL)})")
    assert done.returncode == -signal.SIGKILL
    assert tables(workload) == ""


def test_without_nft_there_is_none_waiting(workload: Namespace) -> None:
    env = {**processes.environment(), "PATH": "/nowhere"}
    done = workload.run(sys.executable, "-I", "-c", START + "print(waiting.is_there); waiting.close()", env=env)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_rules_that_are_there_already_leave_no_nft_behind(workload: Namespace) -> None:
    native = (components.command("krun-iptables"), "istio-iptables", "--native-nftables", "-i", "*")
    for said in ("rules applied", "rules unchanged"):
        done = workload.run(*native, env=processes.environment(KRUN_LOG_FORMAT="text"))
        assert (done.returncode, said in done.stderr) == (0, True), done.stderr
