"""Decides who each part runs as: users, groups and capabilities, as data (docs/architecture.md); changes nobody."""

from __future__ import annotations

from collections.abc import Mapping

from krun_launch.errors import Denied, Misconfigured
from krun_launch.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_launch.facts import Facts

# Istio's own number for the proxy, in all of its images: krun-iptables exempts this user and this group.
PROXY = 1337
# Users of their own, in the group that is exempt: what they dial never comes back to Envoy.
TUNNEL = 1338
NAMES = 1339
RESERVED = frozenset({PROXY, TUNNEL, NAMES})
LARGEST_ID = 2**32 - 2  # the kernel's own bound: the last one means "no id"

# capabilities(7), by the numbers of linux/capability.h.
CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID, SETPCAP = 0, 1, 5, 6, 7, 8
NET_BIND_SERVICE, NET_ADMIN, NET_RAW = 10, 12, 13
# What it takes to run parts as other users, to hand them their files, and to end them.
NEEDED = {
    CHOWN: "CHOWN",
    DAC_OVERRIDE: "DAC_OVERRIDE",
    KILL: "KILL",
    SETGID: "SETGID",
    SETUID: "SETUID",
    SETPCAP: "SETPCAP",
}
NETWORK = frozenset({NET_ADMIN, NET_RAW})


class Identity(Record):
    """Who a process runs as, always with no_new_privs.

    ``drops`` are capabilities that it and all below it can never have; None drops all but ``keeps``.
    """

    uid: int
    gid: int
    drops: frozenset[int] | None = None
    keeps: frozenset[int] = frozenset()


ENVOY = Identity(uid=PROXY, gid=PROXY)
# A tool of ours that reads what only root may, as a kubeconfig: its connections are not intercepted either.
OURS = Identity(uid=0, gid=PROXY, drops=NETWORK)
HBONED = Identity(uid=TUNNEL, gid=PROXY)
# Port 53 is below 1024.
RELAY = Identity(uid=NAMES, gid=PROXY, keeps=frozenset({NET_BIND_SERVICE}))


def of_app(env: Mapping[str, str], *, facts: Facts) -> Identity | None:
    """The application's and krun-sshd's, by ``K8S_UID``; None: they run as we do.

    Without it an application that would be root stays root, without the capabilities that change the network.

    Raises:
        Misconfigured: not ``UID`` or ``UID:GID``, or one of ours.
        Denied: it cannot be done here.
    """
    text = env.get("K8S_UID", "")
    if not text:
        return None if facts.cannot_switch else Identity(uid=0, gid=0, drops=NETWORK)
    uid, gid = _ids(text)
    if facts.cannot_switch:
        if uid == facts.uid:
            return None
        raise Denied(
            f"K8S_UID={text}: the application cannot be run as another user: {facts.cannot_switch}",
            hint="start krun-launch as root, or leave K8S_UID out",
        )
    if gid is None:
        gid = uid if facts.app_gid is None else facts.app_gid
    if uid in RESERVED or gid == PROXY:
        raise Misconfigured(
            f"K8S_UID={text}: {uid}:{gid} is one of krun's own parts: its connections are not intercepted",
            hint=f"use another one than {', '.join(map(str, sorted(RESERVED)))}, and not group {PROXY}",
        )
    return Identity(uid=uid, gid=gid, drops=NETWORK)


def uid_of(env: Mapping[str, str]) -> int | None:
    """The user that ``K8S_UID`` names, if it does; what is wrong with it is said by ``of_app``."""
    first = env.get("K8S_UID", "").partition(":")[0]
    return int(first) if _is_id(first) else None


def _ids(text: str) -> tuple[int, int | None]:
    first, colon, second = text.partition(":")
    if not _is_id(first) or (colon and not _is_id(second)):
        raise Misconfigured(f"K8S_UID={text!r}: not UID or UID:GID", hint="numbers, as 1000 or 1000:1000")
    return int(first), int(second) if colon else None


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= LARGEST_ID
