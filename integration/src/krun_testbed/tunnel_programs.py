"""Programs that people use tunnels for, started: Redis, PostgreSQL, krun-sshd with keys; and where rsync is."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from krun_testbed import components, debian_packages, mesh_postgres, mesh_workload, processes
from krun_testbed.debian_packages import Program

REDIS = ("redis-server", "redis-tools", "libjemalloc2", "liblzf1", "libatomic1")
RSYNC = ("rsync", "libpopt0", "libxxhash0")
REDIS_PORT, SSH_PORT = 6379, 15022


def rsync() -> Program:
    return debian_packages.program("rsync", packages=RSYNC)


@contextlib.contextmanager
def redis(address: str) -> Iterator[Program]:
    """A server that keeps nothing on disk; its client."""
    server = debian_packages.program("redis-server", packages=REDIS)
    argv = [server.path, "--bind", address, "--port", str(REDIS_PORT), "--save", "", "--appendonly", "no"]
    with processes.start(argv, env=processes.environment(**server.environment)) as running:
        running.wait_for("[Rr]eady to accept connections")
        yield debian_packages.program("redis-cli", packages=REDIS)


@contextlib.contextmanager
def postgres(address: str) -> Iterator[None]:
    """A server at its usual port, as a user of its own when we are root, which it does not run as."""
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        data = Path(folder) / "data"
        data.mkdir()
        if is_root:
            for path in (Path(folder), data):
                os.chown(path, mesh_workload.APP_USER, mesh_workload.APP_USER)

        def command(name: str, *arguments: str) -> list[str]:
            argv = [str(mesh_postgres.PROGRAMS / name) if mesh_postgres.PROGRAMS else name, "-D", str(data), *arguments]
            return mesh_workload.as_app(*argv) if is_root else argv

        made = processes.run(command("initdb", "-A", "trust", "-U", "app", "--no-sync"), cwd=Path(folder))
        assert made.returncode == 0, made.stderr
        flags = ("-h", address, "-p", str(mesh_postgres.PORT), "-k", "", "-c", "fsync=off")
        with processes.start(command("postgres", *flags), cwd=Path(folder)) as running:
            running.wait_for("ready to accept connections")
            yield


@dataclass(frozen=True, kw_only=True)
class Shell:
    """A krun-sshd behind hboned, and how ssh comes to it."""

    command: list[str]  # ssh, with all but what it is to do there
    user: str = "anybody"
    host: str = "workload"

    @property
    def remote_shell(self) -> str:
        """For rsync and git: one string, without the host."""
        return shlex.join(self.command)


@contextlib.contextmanager
def shell(address: str, *, folder: Path, proxy: str, variables: Mapping[str, str]) -> Iterator[Shell]:
    """``proxy`` is the ProxyCommand, ``variables`` are of those who log in."""
    keygen = components.program("ssh-keygen", package="openssh-client")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "id")], check=True)
    env = processes.environment(
        SSH_AUTH=(folder / "id.pub").read_text().strip(), KRUN_LOOPBACK=address, HOME=str(folder), **variables
    )
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", f"ProxyCommand={proxy}")
    flags = [word for option in (*options, f"IdentityFile={folder / 'id'}") for word in ("-o", option)]
    with processes.start([components.command("krun-sshd"), "--port", str(SSH_PORT)], env=env) as running:
        running.wait_for("ready")
        yield Shell(command=[components.program("ssh", package="openssh-client"), "-F", "none", *flags])
