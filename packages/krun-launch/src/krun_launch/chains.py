"""Looks whether the rules of krun-iptables are in the kernel, by their chains: for a user who applied them by hand."""

from __future__ import annotations

import os
import select
import signal

from krun_launch.spawn import find

PROGRAMS = ("iptables-save", "iptables-legacy-save", "iptables-nft-save")
CHAIN = b":ISTIO_OUTPUT "
# Of Istio's native rules (tools/istio-nftables/pkg/constants): the table whose chains redirect.
TABLE = b"table inet istio-proxy-nat"
LIST = ("nft", "list", "tables")
LIMIT = 5.0  # seconds for one of them
FOLDERS = "/usr/sbin:/sbin:/usr/local/sbin"  # where they are, whatever PATH says


def are_there(*, path: str) -> bool:
    """Ask each kind of iptables that is there, then nft; False when none is, or none may look."""
    programs = [find(name, path=f"{path}:{FOLDERS}") for name in PROGRAMS]
    kinds = {os.path.realpath(program): program for program in programs if program}
    if any(is_in(_said([program])) for program in kinds.values()):
        return True
    nft = find(LIST[0], path=f"{path}:{FOLDERS}")
    return nft is not None and has_table(_said([nft, *LIST[1:]]))


def is_in(saved: bytes) -> bool:
    """Tell whether the text of ``iptables-save`` has our chain in table nat."""
    table = b""
    for line in saved.splitlines():
        if line.startswith(b"*"):
            table = line
        elif table == b"*nat" and line.startswith(CHAIN):
            return True
    return False


def has_table(listed: bytes) -> bool:
    """Tell whether the text of ``nft list tables`` has ours."""
    return TABLE in listed.splitlines()


def _said(argv: list[str]) -> bytes:
    """What a program prints. Not subprocess, whose import costs more than all of this."""
    reader, writer = os.pipe()
    quiet = (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)
    try:
        # Without `-t nat`: of the old kind, that makes a table which was not there.
        actions = [(os.POSIX_SPAWN_DUP2, writer, 1), quiet]
        pid = os.posix_spawn(argv[0], argv, {"LC_ALL": "C"}, file_actions=actions)
    except OSError:
        os.close(reader)
        return b""
    finally:
        os.close(writer)
    text, data = b"", b"."
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while data:
        if not poll.poll(LIMIT * 1000):
            os.kill(pid, signal.SIGKILL)
        data = os.read(reader, 65536)
        text += data
    os.close(reader)
    os.waitpid(pid, 0)
    return text
