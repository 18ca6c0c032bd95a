"""Our commands as on a system that lacks what only Linux has: it is taken away before anything of ours is imported."""

from __future__ import annotations

import sys

LINUX = ("select.epoll", "os.splice", "os.pipe2", "os.eventfd", "os.sched_getaffinity", "_socket.TCP_KEEPIDLE")
POLL = "select.poll"


def command(module: str, *arguments: str, without: tuple[str, ...] = LINUX) -> list[str]:
    """``main`` of that module as a process, with these arguments."""
    names = [*without, *(f"select.{name}" for name in CONSTANTS if "select.epoll" in without)]
    code = "\n".join(
        [
            "import os, select, sys, _socket",
            *(f"hasattr({place}, {name!r}) and delattr({place}, {name!r})" for place, name in map(_split, names)),
            f"from {module} import main",
            "main()",
        ]
    )
    return [sys.executable, "-c", code, *arguments]


CONSTANTS = (
    "EPOLLIN",
    "EPOLLOUT",
    "EPOLLERR",
    "EPOLLHUP",
    "EPOLLEXCLUSIVE",
    "EPOLLET",
    "EPOLLONESHOT",
    "EPOLL_CLOEXEC",
)


def _split(name: str) -> tuple[str, str]:
    place, _, what = name.rpartition(".")
    return place, what
