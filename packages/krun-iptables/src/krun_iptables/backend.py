"""Brings rules into the kernel, and takes them away: by ``iptables-save`` and ``iptables-restore``, in one step each.

Whether it is permitted is tried and not guessed: a capability, a table or a module that is missing shows only then.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from subprocess import CompletedProcess

from krun_iptables import restore
from krun_iptables.errors import DeadlinePassed, Denied, Failure, Unreachable
from krun_iptables.rules import TABLE, Rule

log = logging.getLogger(__name__)

AUTO = "auto"
PROGRAMS = {
    AUTO: ("iptables", "iptables-legacy", "iptables-nft"),
    "legacy": ("iptables-legacy",),
    "nft": ("iptables-nft",),
}
LOCK_WAIT = 5  # seconds for the lock that programs of this family share
TIMEOUT = 15.0  # seconds for one of them, the lock included

# What the programs say when the kernel will not have it, whoever asks: 1.8.x of both kinds, on Linux and on gVisor.
REFUSED = re.compile(
    r"permission denied|operation not permitted|must be root"
    r"|table does not exist|unable to initialize table|can't initialize iptables table"
    r"|failed to initialize nft|protocol not (?:supported|available)|getsockopt failed strangely"
    r"|missing kernel module|_(?:ADD|APPEND|FLUSH) failed \((?:no such file|invalid argument|operation not supported)",
    re.IGNORECASE,
)
LINE = re.compile(r"line:? (\d+)")
PERMISSION_HINT = "give the container NET_ADMIN and root (docker run --cap-add NET_ADMIN), or run without interception"


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One kind of iptables: the paths of its two programs."""

    name: str
    save: str
    restore: str


def apply(decided: Sequence[Rule], *, kind: str = AUTO) -> None:
    """Leave exactly these rules of ours in the kernel. The first kind of iptables that is let do it is taken.

    Raises:
        Denied: there is no iptables, or none is permitted.
        Unreachable, DeadlinePassed: it failed otherwise; nothing was changed.
    """
    refusals: list[str] = []
    for backend in found(kind):
        try:
            text = restore.apply(decided, present=_state(backend))
            _restore(backend, text)
        except Denied as denied:
            refusals.append(denied.message)
            continue
        log.info("rules applied", extra={"fields": {"count": len(decided), "source": backend.name}})
        return
    raise Denied(f"rules cannot be applied: {'; '.join(refusals)}", hint=PERMISSION_HINT)


def remove(*, kind: str = AUTO) -> None:
    """Take all of ours out of the kernel, of every kind of iptables that is there.

    Raises:
        Denied: there is no iptables, or none is permitted.
        Unreachable, DeadlinePassed: it failed otherwise.
    """
    refusals: list[str] = []
    backends = found(kind)
    for backend in backends:
        try:
            present = _state(backend)
            if text := restore.remove(present):
                _restore(backend, text)
                log.info("rules removed", extra={"fields": {"source": backend.name}})
        except Denied as denied:
            refusals.append(denied.message)
    if len(refusals) == len(backends):
        raise Denied(f"rules cannot be removed: {'; '.join(refusals)}", hint=PERMISSION_HINT)


def found(kind: str) -> tuple[Backend, ...]:
    """The kinds of iptables in PATH, each once: plain ``iptables`` is one of the other two.

    Raises:
        Denied: there is none.
    """
    backends: dict[str, Backend] = {}
    for name in PROGRAMS[kind]:
        save, put = shutil.which(f"{name}-save"), shutil.which(f"{name}-restore")
        if save and put:
            backends.setdefault(os.path.realpath(put), Backend(name=name, save=save, restore=put))
    if not backends:
        names = " or ".join(f"{name}-restore" for name in PROGRAMS[kind])
        raise Denied(f"rules need iptables, and there is no {names} in PATH", hint="install iptables")
    return tuple(backends.values())


def _state(backend: Backend) -> restore.State:
    done = _run([backend.save, "-t", TABLE])
    if done.returncode != 0:
        raise failure(backend.save, said=done.stderr)
    return restore.state(done.stdout)


def _restore(backend: Backend, text: str) -> None:
    done = _run([backend.restore, "--noflush", "--wait", str(LOCK_WAIT)], text)
    if done.returncode != 0:
        raise failure(backend.restore, said=done.stderr, text=text)


def _run(argv: Sequence[str], text: str = "") -> CompletedProcess[str]:
    # Late: --help, --dry-run and --show-settings start nothing.
    import subprocess

    try:
        return subprocess.run(
            argv,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
            env={**os.environ, "LC_ALL": "C"},  # its messages are read below
        )
    except subprocess.TimeoutExpired:
        raise DeadlinePassed(f"{argv[0]} has not ended within {TIMEOUT:g} s") from None
    except OSError as error:
        raise Unreachable(f"{argv[0]} cannot be started: {error.strerror}", hint="is the package whole?") from None


def failure(program: str, *, said: str, text: str = "") -> Failure:
    """What a failed program means, by what it said on stderr, with the line of the text that it names."""
    words = " ".join(" ".join(line for line in said.splitlines() if not line.startswith("Try ")).split())
    name = program.rpartition("/")[2]
    words = re.sub(r"^ip[\w-]+( v[\w.]+ \(\w+\))?: ", "", words) or "it said nothing"
    line = _named(words, text)
    shown = f"{name}: {words}" + (f": {line!r}" if line else "")
    # The old kind says no reason when the kernel refuses the whole table, which is at its COMMIT.
    if REFUSED.search(words) or (line == "COMMIT" and words.endswith("failed")):
        return Denied(shown, hint=PERMISSION_HINT)
    if "xtables lock" in words:
        return DeadlinePassed(f"{shown}: waited {LOCK_WAIT} s", hint="another program changes rules: try again")
    hint = "krun-iptables --dry-run prints all of it; nothing was changed"
    return Unreachable(shown, hint=hint)


def _named(words: str, text: str) -> str:
    match = LINE.search(words)
    lines = text.splitlines()
    return lines[int(match[1]) - 1] if match and 0 < int(match[1]) <= len(lines) else ""
