"""What ``pilot-agent istio-iptables`` would do: its rules, on a machine of our making.

Its decision rests on the machine: addresses, /etc/resolv.conf, users. ``machine()`` makes one of a network namespace
and a mount namespace, in which any command can be run, so that two programs see the same.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from krun_testbed import components, istio_build, namespaces, processes

V4, V6 = "10.3.0.1/24", "2001:db8:3::1/64"
# Names that rules give, beside root; the proxy's uid is not 1337, so that a look-up can be told from the default.
PASSWD = """\
root:x:0:0:root:/root:/bin/sh
istio-proxy:x:1444:1444::/:/bin/sh
envoy:x:1555:1555::/:/bin/sh
"""
GROUP = """\
root:x:0:
istio-proxy:x:1444:
envoy:x:1555:
ftp:x:21:
java:x:505:
"""
RESOLV = "nameserver 10.3.0.53\n"
# What the agent takes for nft: with --native-nftables it really runs it, --dry-run or not. It keeps what it is given.
RECORDER = """\
#!/bin/sh
case "$1" in
--version) echo "nftables v1.0.6 (Lester Gooch #5)" ;;
--check) cat >/dev/null ;;
*) cat >"$KRUN_RECORDED" ;;
esac
"""
INSIDE = """\
ip link set lo up && for address in $ADDRESSES; do ip address add "$address" dev lo || exit 1; done
for name in resolv.conf passwd group; do mount --bind "$FOLDER/$name" "/etc/$name" || exit 1; done
echo up && exec cat
"""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A network namespace whose loopback has these addresses, and the files of /etc that decide."""

    pid: int
    folder: Path
    addresses: tuple[str, ...]

    def resolv(self, text: str) -> None:
        """Write its /etc/resolv.conf."""
        # In place: it is the file, not its name, that is mounted.
        (self.folder / "resolv.conf").write_text(text, encoding="utf-8")

    def run(self, argv: Sequence[str], *, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command in it, with this environment and a PATH, to its end."""
        nsenter = components.program("nsenter", package="util-linux")
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        inside = [nsenter, "--target", str(self.pid), "--net", "--mount", *user, "--"]
        return processes.run([*inside, *argv], env={"PATH": processes.environment()["PATH"], **env})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a run of the agent ended: its exit status, what it said last, and the text that it would apply.

    ``text`` is the input of iptables-restore and after it of ip6tables-restore, or what is given to ``nft -f -``;
    empty when nothing is applied.
    """

    status: int
    said: str
    text: str


@contextlib.contextmanager
def machine(*addresses: str) -> Iterator[Machine]:
    """A new one, of the addresses (with their prefix); it has a server of DNS, and some users and groups."""
    unshare = components.program("unshare", package="util-linux")
    with tempfile.TemporaryDirectory(prefix="krun-machine-") as name, namespaces.namespace() as network:
        folder = Path(name)
        (folder / "bin").mkdir()
        for file, text in (("resolv.conf", RESOLV), ("passwd", PASSWD), ("group", GROUP), ("bin/nft", RECORDER)):
            (folder / file).write_text(text, encoding="utf-8")
        (folder / "bin" / "nft").chmod(0o755)
        keeper = subprocess.Popen(
            network.inside([unshare, "--mount", "--propagation", "private", "sh", "-c", INSIDE]),
            env=processes.environment(ADDRESSES=" ".join(addresses), FOLDER=name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        try:
            if keeper.stdout.readline() != b"up\n":
                raise AssertionError("no machine")
            yield Machine(pid=keeper.pid, folder=folder, addresses=addresses)
        finally:
            keeper.stdin.close()
            keeper.wait(processes.WAIT)
            keeper.stdout.close()


@contextlib.contextmanager
def machines() -> Iterator[Callable[[tuple[str, ...]], Machine]]:
    """A machine for each set of addresses that is asked for, made once; all end with the block."""
    with contextlib.ExitStack() as running:
        made: dict[tuple[str, ...], Machine] = {}

        def of(addresses: tuple[str, ...]) -> Machine:
            if addresses not in made:
                made[addresses] = running.enter_context(machine(*addresses))
            return made[addresses]

        yield of


def ask(place: Machine, *flags: str, env: Mapping[str, str] | None = None, version: str = istio_build.NEWEST) -> Answer:
    """Run ``pilot-agent istio-iptables --dry-run`` with these flags; runs beside each other do not meet."""
    agent = str(istio_build.binary(version=version))
    with tempfile.TemporaryDirectory(dir=place.folder) as scratch:
        rules, recorded = Path(scratch) / "rules", Path(scratch) / "recorded"
        path = f"{place.folder}/bin:{processes.environment()['PATH']}"
        own = {"PATH": path, "DRY_RUN_FILE_PATH": str(rules), "KRUN_RECORDED": str(recorded)}
        done = place.run([agent, "istio-iptables", "--dry-run", *flags], env={**(env or {}), **own})
        text = recorded if recorded.exists() else rules
        return Answer(
            status=done.returncode,
            said=(done.stderr + done.stdout).strip().rpartition("\n")[2][:300],
            text=text.read_text(encoding="utf-8") if done.returncode == 0 and text.exists() else "",
        )


def restored(text: str) -> dict[str, list[str]]:
    """The rules of texts for iptables-restore and ip6tables-restore, one after the other, by ``FAMILY TABLE``.

    Each is a line ``-A`` or ``-I``, in order; before them the chains that are made, as ``-N``, sorted: their order
    says nothing to the kernel. Comments, of lines and of rules, and the commands that an agent notes between the
    texts, are left out; networks are written as the kernel takes them, without the bits of a host.
    """
    found: dict[str, list[str]] = {}
    family, key, before = 4, "", ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
            # Tables are sorted: where one comes again, or a lesser one, the other family's text begins.
            family = 6 if table <= before else family
            key, before = f"{family} {table}", table
            found[key] = []
        elif line.startswith(("-A ", "-I ")):
            found[key].append(_plain(re.sub(r' -m comment --comment ("[^"]*"|\S+)', "", line)))
        elif line.startswith(("-N ", ":")):
            found[key].append(f"-N {line.removeprefix('-N ').removeprefix(':').split()[0]}")
    for lines in found.values():
        chains = sorted({line for line in lines if line.startswith("-N ")})
        lines[:] = [*chains, *(line for line in lines if not line.startswith("-N "))]
    return found


def listed(text: str) -> dict[str, list[str]]:
    """The rules of a text for ``nft -f`` by ``TABLE CHAIN``, as they then stand in it, and the hooks of chains.

    A rule that is inserted is put where it goes. Comments and empty chains are left out, and networks are written as
    the kernel takes them. Names are without quotes, which Istio writes none of, and end in ``+`` where any may follow:
    what Istio writes so is meant so, and no wildcard to nft.
    """
    found: dict[str, list[str]] = {}
    for line in commands(text):
        verb, kind, *words = line.replace('*"', '+"').replace('"', "").split(maxsplit=4)
        if kind not in ("chain", "rule"):
            continue
        name, _, said = words[2].partition(" ")
        lines = found.setdefault(f"{words[1]} {name}" + (" hook" if kind == "chain" else ""), [])
        place = re.match(r"index (\d+) ", said) if verb == "insert" else None
        at = int(place[1]) if place else len(lines)
        lines[at:at] = [_plain(said[place.end() if place else 0 :])] if said else []
    return {name: lines for name, lines in found.items() if lines}


def commands(text: str) -> list[str]:
    """The commands of a text for ``nft -f``, in order, without its comments."""
    lines = (line.partition(" comment ")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _plain(rule: str) -> str:
    return re.sub(r"(?<= )[0-9a-fA-F.:]+/\d+(?= |$)", lambda found: str(ip_network(found[0], strict=False)), rule)
