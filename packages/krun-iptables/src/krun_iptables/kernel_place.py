"""Where rules are changed: in one network namespace, and by one krun-iptables at a time."""

from __future__ import annotations

import errno
import os
import time

from krun_iptables.errors import DeadlinePassed, Denied, Misconfigured
from krun_iptables.kernel_program import LOCK_WAIT

HERE = "/proc/self/ns/net"
TICK = 0.01  # seconds between two tries at the lock
NETWORK = 0x40000000  # CLONE_NEWNET


class Alone:
    """In the network namespace of that path, if one is given, and with nobody else of us at work in it.

    This process stays in the namespace. The lock is the namespace itself, so that no file has to be agreed on; programs
    that are started hold it too, should they outlive us. ``cni``: iptables does not wait for its own lock, which is the
    machine's.

    Entering raises:
        Misconfigured, Denied: there is no such namespace, or it is not ours to enter.
        DeadlinePassed: somebody else of us is at work, and has not ended.
    """

    def __init__(self, *, namespace: str = "", cni: bool = False) -> None:
        self._namespace = namespace
        self._is_cni = cni
        self._lock = -1

    def __enter__(self) -> None:
        if self._namespace:
            enter(self._namespace)
            if self._is_cni:
                # Istio's is the namespace's own file, which we hold already: so one that nobody else has.
                os.environ["XTABLES_LOCKFILE"] = f"/proc/self/fd/{os.memfd_create('lock', 0)}"
        try:
            self._lock = os.open(HERE, os.O_RDONLY)
        except OSError:
            return  # a sandbox that shows no namespaces: there, who comes second fails by a text that does not fit
        try:
            _take(self._lock)
        except BaseException:
            os.close(self._lock)
            raise

    def __exit__(self, *_: object) -> None:
        if self._lock >= 0:
            os.close(self._lock)


def _take(lock: int) -> None:
    import fcntl

    os.set_inheritable(lock, True)
    end = time.monotonic() + LOCK_WAIT
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise DeadlinePassed(
                    f"another krun-iptables has changed rules for {LOCK_WAIT} s", hint="try again"
                ) from None
            time.sleep(TICK)
        except OSError:
            return  # no locks on such files here
        else:
            return


def enter(path: str, *, name: str = "--network-namespace") -> None:
    """Make that network namespace this process's own; once more is the same. ``name``: whose value the path is.

    Raises:
        Misconfigured, Denied: there is none, or it is not ours to enter.
    """
    try:
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait for who writes
        try:
            _set(namespace)
        finally:
            os.close(namespace)
    except OSError as error:
        text = f"{name}: {path!r}: {error.strerror}"
        if error.errno in (errno.EPERM, errno.EACCES):
            raise Denied(text, hint="entering a namespace takes SYS_ADMIN") from None
        raise Misconfigured(text, hint="a path as /proc/PID/ns/net or /run/netns/NAME") from None


def _set(namespace: int) -> None:
    if hasattr(os, "setns"):  # from Python 3.12 on
        os.setns(namespace, NETWORK)
        return
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(namespace, NETWORK) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
