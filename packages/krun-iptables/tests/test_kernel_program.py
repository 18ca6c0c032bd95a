"""What the kernel's tools say when they fail, and what it means; and that a program is run to its end."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path

import pytest

from krun_iptables import kernel_program as program
from krun_iptables.errors import DeadlinePassed, Denied, Unreachable
from krun_iptables.kernel_program import Done

TEXT = "*nat\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -j ISTIO_OUTPUT\nCOMMIT\n"
LAST = len(TEXT.splitlines())

# What the programs wrote on stderr where the kernel would not have it: 1.8.9, 1.8.4 on gVisor, and nft 1.0.6.
REFUSALS = [
    "Could not fetch rule set generation id: Permission denied (you must be root)",
    "Cannot initialize: Permission denied (you must be root)",
    "iptables-restore: unable to initialize table 'nat'\n\nError occurred at line: 2\nTry `iptables-restore -h'",
    "can't initialize iptables table `nat': Table does not exist (do you need to insmod?)",
    "ip6tables-restore v1.8.9 (legacy): can't initialize ip6tables table `nat': Table does not exist",
    "Fatal: can't open lock file /run/xtables.lock: Permission denied",
    "Failed to initialize nft: Protocol not supported",
    "getsockopt failed strangely: Protocol not available",
    "Warning: Extension owner revision 0 not supported, missing kernel module?",
    "\nline 8: RULE_APPEND failed (Invalid argument): rule in chain ISTIO_OUTPUT",
    "\nline 8: RULE_APPEND failed (No such file or directory): rule in chain ISTIO_OUTPUT",
    f"iptables-restore: line {LAST} failed",
    "netlink: Error: cache initialization failed: Operation not permitted",
    "/dev/stdin:3:1-20: Error: Could not process rule: Operation not supported",
]


def failure(complained: str, *, status: int = 1) -> Exception:
    return program.failure("/x/iptables-restore", done=Done(status=status, said="", complained=complained), text=TEXT)


@pytest.mark.parametrize("said", REFUSALS)
def test_what_the_kernel_will_not_have_is_not_permitted(said: str) -> None:
    denied = failure(said)
    assert isinstance(denied, Denied)
    assert "NET_ADMIN" in denied.hint


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("iptables-restore: line 3 failed", 3),
        ("Couldn't load target `X'\n\nError occurred at line: 3\nTry `iptables-restore -h'", 3),
        (f"iptables-nft-restore v1.8.9 (nf_tables): Chain 'X' does not exist\nError occurred at line: {LAST}", LAST),
        ("\nline 3: CHAIN_DEL failed (Device or resource busy): chain ISTIO_OUTPUT", 3),
        ("/dev/stdin:3:12-15: Error: syntax error, unexpected string\nadd rule x\n    ^^^^", 3),
    ],
)
def test_any_other_failure_shows_the_line_it_is_about(said: str, line: int) -> None:
    unreachable = failure(said)
    assert isinstance(unreachable, Unreachable)
    assert repr(TEXT.splitlines()[line - 1]) in unreachable.message
    assert "Try `" not in unreachable.message
    assert unreachable.message.isprintable()
    assert "--dry-run" in unreachable.hint


def test_a_lock_that_is_held_is_a_deadline_that_passed() -> None:
    passed = failure("Another app is currently holding the xtables lock; still 0s 0us time ahead to have a chance")
    assert isinstance(passed, DeadlinePassed)
    assert "try again" in passed.hint


@pytest.mark.parametrize("said", ["", "iptables-restore: line 99999 failed", "iptables-restore: line 0 failed"])
def test_a_failure_without_a_usable_line_is_still_told(said: str) -> None:
    assert isinstance(failure(said), Unreachable)


def test_a_program_that_was_killed_is_told_by_its_signal() -> None:
    killed = failure("", status=-9)
    assert isinstance(killed, Unreachable)
    assert "signal 9" in killed.message


def script(folder: Path, text: str) -> str:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_program_gets_its_text_and_says_all_that_it_says(tmp_path: Path) -> None:
    text = "line\n" * 50_000  # more than a pipe holds
    done = program.run([script(tmp_path, "cat; echo complaint >&2; exit 3")], text)
    assert done == Done(status=3, said=text, complained="complaint\n")


def test_a_program_hears_messages_in_one_language(tmp_path: Path) -> None:
    assert program.must([script(tmp_path, 'echo "$LC_ALL"')]) == "C\n"


def open_files() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_a_program_leaves_nothing_open(tmp_path: Path) -> None:
    before = open_files()
    program.run([script(tmp_path, "exit 0")], "x")
    with pytest.raises(Unreachable):
        program.run([str(tmp_path / "absent")])
    assert open_files() == before


def test_only_a_file_that_can_be_run_is_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}/none:{tmp_path}")
    assert program.find("program") == ""
    path = script(tmp_path, "exit 0")
    assert program.find("program") == path
    Path(path).chmod(stat.S_IRUSR)
    (tmp_path / "folder").mkdir()
    assert program.find("folder") == ""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that a test can wait for."""
    monkeypatch.setattr(program, "TIMEOUT", 0.3)


@pytest.mark.usefixtures("short")
def test_a_program_that_goes_on_after_its_output_has_its_limit(tmp_path: Path) -> None:
    with pytest.raises(DeadlinePassed, match="has not ended"):
        program.run([script(tmp_path, "exec >&- 2>&-; exec sleep 60")])


@pytest.mark.usefixtures("short")
def test_what_a_script_has_started_ends_with_it(tmp_path: Path) -> None:
    reads, writes = os.pipe()
    os.set_inheritable(writes, True)
    with pytest.raises(DeadlinePassed, match="has not ended"):
        program.run([script(tmp_path, "sleep 60; true")])
    os.close(writes)
    poll = select.poll()
    poll.register(reads, select.POLLIN)
    assert poll.poll(5000), "sleep holds the pipe"
    assert os.read(reads, 1) == b""
    os.close(reads)


def test_bytes_that_are_no_text_go_through_as_they_are(tmp_path: Path) -> None:
    said = program.must([script(tmp_path, "printf 'a\\351b'")])
    assert program.must([script(tmp_path, "od -An -tx1")], said).split() == ["61", "e9", "62"]
