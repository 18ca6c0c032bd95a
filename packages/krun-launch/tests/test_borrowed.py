"""A program for our own Python runs in a child as it is, and sees what it sees when it is executed: real processes."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from krun_testbed import processes

pytestmark = pytest.mark.loopback

# Starts a program as krun-launch does, with files of its own open and signals that it acts on, and tells its status.
STARTER = """
import os, signal, sys
from krun_launch.spawn import GROUP, NULL, ProcessSpec, spawn
kept = [os.open("/dev/null", os.O_RDONLY), *os.pipe()]
signal.signal(signal.SIGUSR1, lambda number, frame: None)
signal.signal(signal.SIGTERM, lambda number, frame: None)
env = dict(word.split("=", 1) for word in sys.argv[4:])
spec = ProcessSpec(name="token", argv=(sys.argv[2], "a b", "", "--to"), env=env, stdin=NULL, folder=sys.argv[3],
                   is_helper=True, may_borrow=sys.argv[1] == "borrowed")
_, status = os.waitpid(spawn(spec), 0)
print("status", os.waitstatus_to_exitcode(status))
"""
SHOW = """
import json, os, signal, sys
with open("/proc/self/status", encoding="utf-8") as file:
    status = dict(line.split(":\\t", 1) for line in file.read().splitlines() if ":\\t" in line)
with open("/proc/self/comm", encoding="utf-8") as file:
    comm = file.read().strip()
told = {
    "argv": sys.argv,
    "file": __file__,
    "name": __name__,
    "environ": dict(os.environ),
    "folder": os.getcwd(),
    "comm": comm,
    "stdin": os.readlink("/proc/self/fd/0"),
    "numbers": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
    "same": os.path.sameopenfile(1, 2),
    "path": sys.path,
    "flags": list(sys.flags),
    "signals": [status[name] for name in ("SigBlk", "SigIgn", "SigCgt")],
    "users": [status[name] for name in ("Uid", "Gid", "Groups")],
}
print(json.dumps({"told": told, "is_borrowed": "krun_launch.spawn" in sys.modules}))
"""
ENDS = {
    "pass": 0,
    "raise SystemExit": 0,
    "raise SystemExit(3)": 3,
    "raise SystemExit(300)": 300 & 0xFF,
    "raise SystemExit('no such luck')": 1,
    "raise ValueError('no such luck')": 1,
    "import os; os._exit(7)": 7,
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": -signal.SIGKILL,
}


class Started:
    """A script, and the environment that it gets."""

    def __init__(self, folder: Path) -> None:
        self.script = folder / "krun-shown"
        self.flags: tuple[str, ...] = ()  # of the interpreter that starts it
        self.env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MESH": "a=b"}

    def write(self, body: str, *, first: str = f"#!{sys.executable}") -> None:
        self.script.write_text(f"{first}\n{body}", encoding="utf-8")
        self.script.chmod(0o755)

    def run(self, way: str, **env: str) -> tuple[str, str]:
        """What it said on stderr, where stdout leads too, and the last line of who started it."""
        words = [f"{name}={value}" for name, value in {**self.env, **env}.items()]
        argv = [sys.executable, *self.flags, "-c", STARTER, way, str(self.script), str(self.script.parent), *words]
        done = processes.run(argv, env={name: value for name, value in self.env.items() if name != "MESH"})
        return done.stderr, done.stdout.strip()

    def shown(self, way: str, **env: str) -> dict[str, Any]:
        stderr, end = self.run(way, **env)
        assert end == "status 0", stderr
        found: dict[str, Any] = json.loads(stderr)
        return found


@pytest.fixture
def started(tmp_path: Path) -> Started:
    return Started(tmp_path)


def test_program_sees_what_it_sees_when_it_is_executed(started: Started) -> None:
    started.write(SHOW)
    executed, borrowed = started.shown("executed"), started.shown("borrowed")
    assert (executed["is_borrowed"], borrowed["is_borrowed"]) == (False, True)
    # A Python that has not started anew has found out about its locale before.
    executed["told"]["environ"].pop("LC_CTYPE", None)
    assert borrowed["told"] == executed["told"]
    assert borrowed["told"]["environ"] == started.env


@pytest.mark.parametrize("body", ENDS)
def test_program_ends_as_it_does_when_it_is_executed(body: str, started: Started) -> None:
    started.write(f"import sys\nprint('said', end='')\n{body}\n")
    (executed, _), (borrowed, end) = started.run("executed"), started.run("borrowed")
    assert end == f"status {ENDS[body]}"
    # What went wrong is told; the frames above it are not the same.
    assert borrowed.splitlines()[-1:] == executed.splitlines()[-1:]


@pytest.mark.parametrize("first", ["#!/usr/bin/env python3", f"#!{sys.executable} -I", "#!/bin/cat", "# no first line"])
def test_program_of_another_interpreter_is_executed(first: str, started: Started) -> None:
    started.write("raise SystemExit(9)\n", first=first)
    assert started.run("borrowed") == started.run("executed")


def test_settings_of_python_that_are_not_ours_get_an_interpreter_of_their_own(started: Started) -> None:
    started.write(SHOW)
    assert started.shown("borrowed", PYTHONHASHSEED="1")["is_borrowed"] is False
    assert started.shown("borrowed", KRUN_LOG_LEVEL="debug")["is_borrowed"] is True
    started.flags = ("-I",)
    assert started.shown("borrowed")["is_borrowed"] is False


def test_program_that_is_no_program_fails_as_it_does_when_it_is_executed(started: Started) -> None:
    started.write("def\n")
    (said, end), (again, other) = started.run("borrowed"), started.run("executed")
    assert (end, other) == ("status 1", "status 1")
    assert said == again
    assert "SyntaxError" in said


def test_program_that_is_not_there_is_not_found(started: Started) -> None:
    said, end = started.run("borrowed")
    assert end == ""
    assert "is not found" in said
