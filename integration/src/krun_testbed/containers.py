"""One container: started, asked, looked into, stopped; it is always removed at the end.

What it has said is then written to stdout, which pytest shows for a test that failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from krun_testbed import components, docker_engine, processes
from krun_testbed.docker_engine import docker
from krun_testbed.processes import Running

WAIT = 30.0  # seconds; only reached when a test fails
OWNER = "krun-testbed.owner"
# Run in the container: one JSON object for each process, out of /proc.
LOOK = """
import json, os
for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
    try:
        argv = open(f"/proc/{pid}/cmdline").read().split("\\0")[:-1]
        status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open(f"/proc/{pid}/status") if ":\\t" in line)
    except OSError:
        continue
    if pid != os.getpid():
        print(json.dumps({
            "pid": pid, "parent": int(status["PPid"]), "argv": argv,
            "uid": int(status["Uid"].split()[1]), "gid": int(status["Gid"].split()[1]),
            "groups": [int(word) for word in status["Groups"].split()],
            "effective": int(status["CapEff"], 16), "bounding": int(status["CapBnd"], 16),
            "no_new_privs": status["NoNewPrivs"] == "1",
        }))
"""


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process in a container, as the kernel there tells: its numbers, its rights, and its command line."""

    pid: int
    parent: int
    argv: list[str]
    uid: int
    gid: int
    groups: list[int]
    effective: int
    bounding: int
    no_new_privs: bool


class Container:
    """A container that was started, with what it has said so far."""

    def __init__(self, *, identifier: str, log: Running) -> None:
        self.identifier = identifier
        self._log = log
        self._whole: tuple[str, str] | None = None

    @property
    def stdout(self) -> str:
        return self._whole[0] if self._whole else self._log.stdout

    @property
    def stderr(self) -> str:
        return self._whole[1] if self._whole else self._log.stderr

    def said(self) -> str:
        return f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"

    def address(self, network: str = "") -> str:
        """Its address in a network, or in the only one."""
        found = json.loads(docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", self.identifier).stdout)
        entry = found[network] if network else next(iter(found.values()))
        return str(entry["IPAddress"])

    def ask(self, path: str) -> dict[str, object]:
        """What its application answers, asked from within, past any mesh."""
        answer: dict[str, object] = json.loads(self.exec("app", path).stdout)
        return answer

    @contextlib.contextmanager
    def asking(self, path: str) -> Iterator[Running]:
        """The same, not waited for."""
        with processes.start([*_client(), "exec", self.identifier, "app", path], env=dict(os.environ)) as running:
            yield running

    def exec(self, *argv: str, user: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in it, to its end."""
        options = ["--user", user] if user else []
        return docker("exec", *options, self.identifier, *argv, check=check)

    def processes(self) -> list[Process]:
        """All its processes, without the one that looks."""
        return [Process(**json.loads(line)) for line in self.exec("python3", "-I", "-c", LOOK).stdout.splitlines()]

    def process(self, pattern: str) -> Process:
        """The one process whose command line holds the pattern."""
        found = [process for process in self.processes() if re.search(pattern, " ".join(process.argv))]
        assert len(found) == 1, f"{pattern!r}: {[' '.join(process.argv) for process in found]}"
        return found[0]

    def wait_for(self, pattern: str, *, timeout: float = WAIT) -> re.Match[str]:
        """Wait until its log, stdout or stderr, holds the pattern (multi-line regular expression)."""
        return self._log.wait_for(pattern, timeout=timeout)

    def signal(self, name: str) -> None:
        docker("kill", "--signal", name, self.identifier)

    def stop(self, *, grace: int = 10) -> int:
        """``docker stop``, and the exit status that docker then knows."""
        docker("stop", "--time", str(grace), self.identifier, timeout=grace + 30)
        return self.wait()

    def wait(self, *, timeout: float = WAIT) -> int:
        """Wait for its end, and read its whole log; the exit status as docker knows it."""
        status = int(docker("wait", self.identifier, timeout=timeout).stdout)
        # Who follows a log may miss the end of it, when that is no whole line: read it again.
        done = docker("logs", self.identifier)
        self._whole = done.stdout, done.stderr
        assert status == int(docker("inspect", "--format", "{{.State.ExitCode}}", self.identifier).stdout)
        return status

    def messages(self, tool: str = "krun-launch") -> list[dict[str, object]]:
        """Log lines of one of our tools."""
        found = [json.loads(line) for line in self.stderr.splitlines() if line.startswith("{")]
        return [line for line in found if line["tool"] == tool]


@contextlib.contextmanager
def started(
    image: str,
    *command: str,
    env: Mapping[str, str] | None = None,
    networks: Sequence[str] = (),
    alias: str = "",
    volumes: Mapping[Path, str] | None = None,
    cap_add: Sequence[str] = (),
    cap_drop: Sequence[str] = (),
    entrypoint: str | None = None,
    user: str = "",
    options: Sequence[str] = (),
) -> Iterator[Container]:
    """Start a container, in all of these networks; ``options`` are docker's own. It is removed at the end."""
    flags = [word for name, value in (env or {}).items() for word in ("--env", f"{name}={value}")]
    flags += [word for path, target in (volumes or {}).items() for word in ("--volume", f"{path}:{target}:ro")]
    flags += [f"--cap-add={name}" for name in cap_add] + [f"--cap-drop={name}" for name in cap_drop]
    flags += ["--entrypoint", entrypoint] if entrypoint is not None else []
    flags += ["--user", user] if user else []
    if networks:
        flags += ["--network", networks[0], *(["--network-alias", alias] if alias else [])]
    identifier = docker("create", "--label", f"{OWNER}={owner()}", *flags, *options, image, *command).stdout.strip()
    try:
        for network in networks[1:]:
            docker("network", "connect", *(["--alias", alias] if alias else []), network, identifier)
        docker("start", identifier)
        with followed(identifier) as container:
            yield container
    finally:
        docker("rm", "--force", "--volumes", identifier)


@contextlib.contextmanager
def followed(identifier: str) -> Iterator[Container]:
    """A container that runs already; it goes on running at the end."""
    with processes.start([*_client(), "logs", "--follow", identifier], env=dict(os.environ)) as log:
        container = Container(identifier=identifier, log=log)
        try:
            yield container
        finally:
            sys.stdout.write(f"container {identifier[:12]}\n{container.said()}\n")


def owner() -> str:
    """Who is to remove what was started: this process, by its number and its age."""
    return f"{os.getpid()}:{docker_engine.since(os.getpid())}"


def sweep(*, ours: bool = False) -> None:
    """Remove containers and networks whose owner was killed before it could; with ``ours``, this process's own too."""
    kinds = ((("ps", "--all"), ("rm", "--force", "--volumes")), (("network", "ls"), ("network", "rm")))
    for listing, removal in kinds:
        listed = docker(*listing, "--filter", f"label={OWNER}", "--format", '{{.ID}} {{.Label "' + OWNER + '"}}')
        for line in listed.stdout.splitlines():
            identifier, _, whose = line.partition(" ")
            pid, _, since = whose.partition(":")
            if docker_engine.since(int(pid)) != since or (ours and whose == owner()):
                docker(*removal, identifier, check=False)


def _client() -> list[str]:
    return [components.program("docker", package="docker.io")]
