"""OpenSSH as a tunnel: its real daemon in a mount namespace of its own, and its real client."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from krun_testbed import components, debian_packages, processes
from krun_testbed.components import Missing
from krun_testbed.processes import Running

PORT = 2222
CONFIG = """\
ListenAddress {address}:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
AllowTcpForwarding yes
MaxSessions 1000
MaxStartups 1000
LogLevel ERROR
"""
# sshd asks for an empty folder and a user; both are made in a mount namespace, which nobody else sees.
START = """\
mkdir -p /run/sshd && mount -t tmpfs none /run/sshd && chmod 755 /run/sshd
{ grep -v ^sshd: /etc/passwd; echo sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin; } >"$1/passwd"
mount --bind "$1/passwd" /etc/passwd
exec "$2" -D -e -f "$1/config"
"""


@dataclass(frozen=True, kw_only=True)
class Server:
    """The daemon, and where the keys are."""

    running: Running
    folder: Path
    address: str

    def command(self, *arguments: str) -> list[str]:
        """The client's command line up to its own arguments, and the server."""
        argv = [components.program("ssh", package="openssh-client"), "-F", "none", "-p", str(PORT)]
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "Compression=no")
        for option in (*options, f"IdentityFile={self.folder}/user", "ExitOnForwardFailure=yes"):
            argv += ["-o", option]
        return [*argv, *arguments, f"root@{self.address}"]


@contextlib.contextmanager
def server(*, address: str, folder: Path) -> Iterator[Server]:
    """The daemon. Missing where it cannot be started."""
    if os.geteuid() != 0:
        raise Missing("sshd: only root starts it in a namespace of its own")
    sshd = debian_packages.program("sshd", packages=("openssh-server", "libwrap0"))
    folder.mkdir()
    keygen = components.program("ssh-keygen", package="openssh-client")
    for name in ("host", "user"):
        argv = [keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    config = CONFIG.format(address=address, port=PORT, folder=folder)
    (folder / "config").write_text(config, encoding="utf-8")
    unshare = components.program("unshare", package="util-linux")
    argv = [unshare, "--mount", "sh", "-euc", START, "sh", str(folder), sshd.path]
    with processes.start(argv, env=processes.environment(**sshd.environment)) as running:
        processes.wait_for_port(address, PORT)
        yield Server(running=running, folder=folder, address=address)


@contextlib.contextmanager
def client(
    server: Server, *, address: str, forwards: Mapping[int, tuple[str, int]], flags: Sequence[str] = ()
) -> Iterator[Running]:
    """``ssh -N -L``, until its forwards listen."""
    places = [f"-L{address}:{port}:{host}:{target}" for port, (host, target) in forwards.items()]
    argv = server.command("-N", *flags, *places)
    with processes.start(argv) as running:
        for port in forwards:
            processes.wait_for_port(address, port)
        yield running


def proxy_command(server: Server, target: str) -> list[str]:
    """``ssh -W``, as a jump host is used: stdin and stdout to a target."""
    return server.command("-W", target)
