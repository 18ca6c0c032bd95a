"""What krun-launch finds on the machine, as data for the plan."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from krun_launch.settings import DEFAULT_CERTS
from krun_launch.spawn import find

SHELLS = frozenset({"sh", "dash", "bash", "ash", "busybox"})


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Paths of programs are None when they are not there."""

    envoy: str | None = None
    hboned: str | None = None
    sshd: str | None = None
    has_default_certs: bool = False
    is_below_shell: bool = False  # PID 1 is a shell that drops signals, and no init of ours is between
    is_on_terminal: bool = False


def look(env: Mapping[str, str]) -> Facts:
    """Look around; nothing is changed or started."""
    path = env.get("PATH") or os.defpath
    return Facts(
        envoy=find(env.get("KRUN_ENVOY") or "envoy", path=path),
        hboned=_sibling("hboned", path=path),
        sshd=_sibling("krun-sshd", path=path),
        has_default_certs=os.path.isdir(DEFAULT_CERTS),  # noqa: PTH112 - no need of pathlib's errors
        is_below_shell=_is_below_shell(env),
        is_on_terminal=is_on_terminal(),
    )


def _sibling(name: str, *, path: str) -> str | None:
    """One of our own programs: beside this one first, so that an environment of its own needs no PATH."""
    folders = [str(Path(program).absolute().parent) for program in (sys.argv[0], sys.executable) if "/" in program]
    return find(name, path=":".join([*folders, path]))


def _is_below_shell(env: Mapping[str, str]) -> bool:
    if os.getpid() == 1 or env.get("KRUN_INIT_FD"):
        return False
    try:
        return Path("/proc/1/comm").read_text().strip() in SHELLS
    except OSError:
        return False


def is_on_terminal() -> bool:
    """Tell whether we are a terminal's foreground job, with it as stdin."""
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
