"""A command run where the only network is a name server that knows no name, or not even that: in namespaces."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from krun_testbed import components, dns_peers, processes

# The server, unless told otherwise, and then the command; both are gone with the namespaces' first process.
START = """\
ip link set lo up
mount --bind "$1" /etc/resolv.conf
mount --bind "$2" /etc/nsswitch.conf
if [ -n "$3" ]; then
    mkfifo "$4"
    "$3" -I "$5" serve 127.0.0.1 >"$4" &
    read -r _ <"$4"
fi
shift 5
exec "$@"
"""


def run(argv: Sequence[str], *, folder: Path, has_server: bool) -> subprocess.CompletedProcess[str]:
    """Run it to its end. The server says of ``absent.…`` that there is no such name."""
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", encoding="utf-8")
    (folder / "nsswitch.conf").write_text("hosts: dns\n", encoding="utf-8")
    unshare = components.program("unshare", package="util-linux")
    flags = ["--mount", "--net", "--pid", "--fork", "--kill-child"]
    if os.geteuid() != 0:
        flags += ["--user", "--map-root-user"]
    files = [str(folder / "resolv.conf"), str(folder / "nsswitch.conf")]
    python = sys.executable if has_server else ""
    server = [python, str(folder / "ready"), str(Path(dns_peers.__file__))]
    return processes.run([unshare, *flags, "sh", "-euc", START, "sh", *files, *server, *argv])
