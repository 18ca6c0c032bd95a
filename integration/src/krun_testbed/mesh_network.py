"""A network of our own: places (network namespaces of workloads and pods) around a hub that leads packets between them.

Nothing of the machine's own namespace changes. Each place has a cable to the hub, an address of any range, and files of
its own: /run, /etc/resolv.conf, /etc/hosts. For root only.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from krun_testbed import components, docker_engine, mesh_sockets, processes

GATEWAY = "169.254.1.1"  # of every cable, at the hub's end: it routes each address by itself
PODS = "10.244.0"  # where addresses of places are from unless they are given, and inside of 10.0.0.0/8
KEEP = """\
set -eu
resolv=$1 hosts=$2 closed=$3 staging=$4
shift 4
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
for pair in "$resolv:/etc/resolv.conf" "$hosts:/etc/hosts"; do
    target=$(readlink -m "${pair#*:}")
    mkdir -p "${target%/*}"
    [ -e "$target" ] || : >"$target"
    mount --bind "${pair%%:*}" "$target"
done
if [ -n "$closed" ]; then
    number=0
    for path; do
        number=$((number + 1))
        mkdir -p "$staging/$number"
        mount --bind "$path" "$staging/$number"
    done
    mount -t tmpfs -o mode=755 tmpfs "$closed"
    number=0
    for path; do
        number=$((number + 1))
        mkdir -p "$path"
        mount --move "$staging/$number" "$path"
    done
fi
ip link set lo up
echo up
exec cat
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A network namespace with files of its own, by the process that keeps it."""

    pid: int
    address: str
    folder: Path  # its resolv.conf and hosts are here, and whatever runs in it may write here
    has_files: bool = True  # of its own; the network of a container is entered with ours

    def inside(self, argv: Sequence[str], *, cwd: Path | None = None) -> list[str]:
        """The command line that runs a command in it; there is no process between."""
        nsenter = components.program("nsenter", package="util-linux")
        files = ["--mount"] if self.has_files else []
        there = [f"--wd={cwd}"] if cwd else []
        return [nsenter, f"--target={self.pid}", "--net", *files, *there, "--", *argv]

    def run(
        self, *argv: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it, to its end."""
        return processes.run(self.inside(argv, cwd=cwd), env=env, timeout=timeout)

    def must(self, *argv: str) -> str:
        """Run a command of the system in it that may not fail, and return its stdout."""
        done = self.run(*argv)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(argv)}: {done.returncode}: {done.stderr}")
        return done.stdout

    def connect(self, address: str, port: int, *, timeout: float = mesh_sockets.TIMEOUT) -> socket.socket:
        """A TCP connection from within it, by root."""
        return mesh_sockets.connect(self.pid, address, port, timeout=timeout)

    def listener(self, address: str, port: int) -> socket.socket:
        """A TCP listener in it."""
        return mesh_sockets.listener(self.pid, address, port)

    def listens(self, address: str, port: int) -> bool:
        """Tell whether a TCP connection from within it is accepted."""
        try:
            self.connect(address, port, timeout=1.0).close()
        except OSError:
            return False
        return True

    def resolver(self, *servers: str, search: Sequence[str] = ()) -> None:
        """Say what its resolv.conf says; changed in place, as a bind mount must be."""
        lines = [f"nameserver {server}" for server in servers] + ([f"search {' '.join(search)}"] if search else [])
        (self.folder / "resolv.conf").write_text("\n".join([*lines, "options ndots:5 timeout:2 attempts:2", ""]))

    def hosts(self, addresses: Mapping[str, str]) -> None:
        """Say what its hosts file says beside localhost: names and their addresses."""
        lines = [f"{address} {name}" for name, address in addresses.items()]
        (self.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))


@dataclass(kw_only=True)
class Network:
    """The hub, and what was joined to it."""

    hub: Place
    folder: Path
    _cables: Iterator[int] = field(default_factory=lambda: itertools.count(1), repr=False)
    _hosts: Iterator[int] = field(default_factory=lambda: itertools.count(2), repr=False)

    def own(self, *addresses: str) -> None:
        """Addresses that the hub answers for, from now on."""
        _batch(self.hub, *(f"address replace {address}/32 dev lo" for address in addresses))

    def free(self) -> str:
        """An address in the range of pods that nobody has."""
        number = next(self._hosts)
        return f"{PODS.rpartition('.')[0]}.{number // 250}.{number % 250 + 1}"

    @contextlib.contextmanager
    def place(self, *, address: str = "", name: str = "place") -> Iterator[Place]:
        """A new namespace, joined; it ends with the block, and with it all its rules."""
        with (
            self.folder_for(name) as folder,
            _kept(folder=folder, address=address or self.free()) as made,
            self.joined(made),
        ):
            yield made

    @contextlib.contextmanager
    def folder_for(self, name: str) -> Iterator[Path]:
        """A folder for the files of a place, which all its users may enter."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=f"{name}-") as folder:
            Path(folder).chmod(0o755)
            yield Path(folder)

    @contextlib.contextmanager
    def joined(self, place: Place, *, device: str = "eth0") -> Iterator[None]:
        """A cable from the hub to a namespace that is there already, such as a container's."""
        cable = f"v{next(self._cables)}"
        _batch(
            self.hub,
            f"link add {cable} type veth peer name {device} netns {place.pid}",
            f"address add {GATEWAY}/32 dev {cable}",
            f"link set {cable} up",
            f"route add {place.address}/32 dev {cable}",
        )
        _batch(
            place,
            f"address add {place.address}/32 dev {device}",
            f"link set {device} up",
            f"route add {GATEWAY} dev {device} scope link",
            f"route replace default via {GATEWAY} dev {device} src {place.address}",
        )
        try:
            yield
        finally:
            # Its other end may be gone already, and the cable with it.
            self.hub.run("ip", "link", "delete", cable)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A hub without places."""
    if os.geteuid() != 0:
        raise AssertionError("rules name users that only root can be: run the tests as root")
    with tempfile.TemporaryDirectory(prefix="krun-mesh-") as folder:
        Path(folder).chmod(0o755)
        own = Path(folder) / "hub"
        own.mkdir()
        with _kept(folder=own, address=GATEWAY) as hub:
            hub.must("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
            yield Network(hub=hub, folder=Path(folder))


@contextlib.contextmanager
def _kept(*, folder: Path, address: str) -> Iterator[Place]:
    made = {name: folder / name for name in ("resolv.conf", "hosts")}
    made["resolv.conf"].write_text("")
    made["hosts"].write_text("127.0.0.1 localhost\n")
    staging = folder / "staging"
    closed, paths = _closed()
    unshare = components.program("unshare", package="util-linux")
    argv = [unshare, "--net", "--mount", "sh", "-c", KEEP, "keep", *map(str, made.values())]
    keeper = subprocess.Popen(
        [*argv, closed, str(staging), *paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=processes.environment(),
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        if keeper.stdout.readline() != b"up\n":
            raise AssertionError("no network namespace")
        yield Place(pid=keeper.pid, address=address, folder=folder)
    finally:
        keeper.stdin.close()
        keeper.wait(processes.WAIT)
        keeper.stdout.close()


def _closed() -> tuple[str, list[str]]:
    """The folder that no other user may enter, such as root's home, and what below it is run by other users here.

    In a place it is another folder, which has only these.
    """
    needed = [Path(sys.prefix), Path(sys.base_prefix), docker_engine.cache()]
    for path in needed:
        for above in reversed(path.resolve().parents):
            if not above.stat().st_mode & stat.S_IXOTH:
                return str(above), sorted({str(each.resolve()) for each in needed if above in each.resolve().parents})
    return "", []


def _batch(place: Place, *lines: str) -> None:
    done = processes.run(place.inside(["ip", "-batch", "-"]), stdin="\n".join(lines) + "\n")
    if done.returncode != 0:
        raise AssertionError(f"ip: {done.stderr}")
