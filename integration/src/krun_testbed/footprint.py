"""What a process holds at a moment, by /proc (proc(5)): memory, files, connections, and the CPU that it has had."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Memory of its own in KiB, open files, sockets among them, and seconds of CPU since its start."""

    memory: int
    files: int
    sockets: int
    cpu: float

    @classmethod
    def of(cls, pid: int) -> Self:
        folder = Path(f"/proc/{pid}")
        status = (folder / "status").read_text().splitlines()
        # After the name, which may hold anything: utime and stime are the 14th and 15th.
        spent = [int(word) for word in (folder / "stat").read_text().rpartition(")")[2].split()[11:13]]
        files = _files(pid)
        return cls(
            memory=int(next(line.split()[1] for line in status if line.startswith("RssAnon"))),
            files=len(files),
            sockets=sum(file.startswith("socket:") for file in files),
            cpu=sum(spent) / os.sysconf("SC_CLK_TCK"),
        )


def resident(pid: int) -> int:
    """Bytes of memory that a process holds, of files too."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def connections(pid: int, address: str, port: int) -> int:
    """How many connections of a process to an address are up."""
    files = _files(pid)
    remote = f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(1 for row in rows if row[2] == remote and row[3] == "01" and f"socket:[{row[9]}]" in files)


def _files(pid: int) -> list[str]:
    """What its descriptors are, such as ``socket:[INODE]``."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed by now
            found.append(descriptor.readlink().name)
    return found
