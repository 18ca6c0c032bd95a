"""hboned's workers: processes that share the listening socket. Starts them, has them drain, replaces who dies or hangs.

They are copies of this process, so what it has read and loaded is in memory once. It has no loop of asyncio, as no
copy could go on with one, and carries nothing itself.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import mmap
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hbone import errors, shares
from hbone.notify import Notify
from hbone.restarts import ALL_DEAD, GOODBYE, LOOKS, TIMEOUT, Pulse, Restarts
from hbone.worker import DRAIN, IDLE, LOOK, NOW, READ, READY, Worker

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


@dataclass(kw_only=True)
class _Child:
    """A worker that runs."""

    pid: int
    wire: socket.socket
    pulse: Pulse
    started: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    is_idle: bool = False


class Workers:
    """The workers; ``run`` returns when all are drained."""

    def __init__(
        self,
        *,
        listener: socket.socket,
        count: int,
        timeout: float,
        work: Callable[[Worker], int],
        ready: Callable[[], object],
        notify: Notify,
    ) -> None:
        """``work`` is what a worker does, and gives its exit status. ``ready`` is called when all accept.

        ``timeout``: seconds of silence after which a worker hangs.
        """
        self._listener = listener
        self._count = count
        self._timeout = timeout
        self._work = work
        self._ready = ready
        self._notify = notify
        self._memory = mmap.mmap(-1, shares.size(count))
        self._running: dict[int, _Child] = {}
        self._due = dict.fromkeys(range(count), 0.0)  # who is to be started, and when
        self._restarts = [Restarts() for _ in range(count)]
        self._poll = select.poll()
        self._looks_at = 0.0
        self._someone_ready = time.monotonic()  # when a worker was last
        self._kill_at = 0.0
        self._is_ready = self._is_idle = self._is_draining = False
        self._woken, self._wakes = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wakes, False)

    def run(self) -> None:
        """Keep them going until a signal, and until all have drained then. Closes the listener.

        Raises:
            Unreachable: none could be kept running for a long time.
        """
        # What there is now is the same in all: the collectors of the copies need not write to it.
        gc.collect()
        gc.freeze()
        with self._signals():
            try:
                while self._running or not self._is_draining:
                    self._start_due()
                    self._wait()
                    self._reap()
                    self._look_after()
            finally:
                self._end_all()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        self._poll.register(self._woken, select.POLLIN)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start_due(self) -> None:
        now = time.monotonic()
        for number in [number for number, due in self._due.items() if due <= now]:
            del self._due[number]
            self._start(number)

    def _start(self, number: int) -> None:
        ours, theirs = socket.socketpair()
        # A signal that comes to the copy before it is one would be taken for one of ours.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            pid = os.fork()
            if not pid:
                self._become(number, ours=ours, theirs=theirs)
        except OSError as error:
            ours.close()
            raise errors.Unreachable(f"cannot start a worker: {error.strerror}", hint="see ulimit -u") from error
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            theirs.close()
        ours.setblocking(False)
        now = time.monotonic()
        # To start takes as long as the machine is busy.
        self._running[number] = _Child(pid=pid, wire=ours, pulse=Pulse(timeout=max(self._timeout, TIMEOUT), now=now))
        self._poll.register(ours, select.POLLIN)

    def _become(self, number: int, *, ours: socket.socket, theirs: socket.socket) -> None:
        """Be the worker, and end."""
        status: int = errors.Exit.BUG
        try:
            signal.set_wakeup_fd(-1)
            for each in (signal.SIGTERM, signal.SIGINT):
                signal.signal(each, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            # Whoever holds one of these is not seen to end.
            ours.close()
            for child in self._running.values():
                child.wire.close()
            self._notify.close()
            os.close(self._woken)
            os.close(self._wakes)
            mine = shares.Shares(self._memory, number=number)
            status = self._work(Worker(theirs, shares=mine, timeout=self._timeout))
        except BaseException:  # noqa: BLE001 - the parent's stack is below, and it goes on there, not here
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()
            os._exit(status)

    def _wait(self) -> None:
        """Wait for the next of all that may happen, and hear who says something."""
        now = time.monotonic()
        until = min([self._looks_at, *self._due.values(), *([self._kill_at] if self._kill_at else [])])
        files = {child.wire.fileno(): child for child in self._running.values()}
        for file, _ in self._poll.poll(max(0.0, until - now) * 1000):
            if file == self._woken:
                for number in os.read(self._woken, READ):
                    if number in (signal.SIGTERM, signal.SIGINT):
                        self._stop()
            else:
                self._hear(files[file])

    def _hear(self, child: _Child) -> None:
        try:
            words = child.wire.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            words = b""
        if not words:
            self._poll.unregister(child.wire)  # its end says so, too
            return
        child.pulse.feel(now=time.monotonic())
        if READY in words:
            child.is_ready = True
            child.pulse = Pulse(timeout=self._timeout, now=time.monotonic())
        child.is_idle = child.is_idle or IDLE in words
        self._tell_starter()

    def _tell_starter(self) -> None:
        children = self._running.values()
        if not self._is_ready and sum(child.is_ready for child in children) == self._count:
            self._is_ready = True
            self._ready()
            self._notify.ready()
        if self._is_draining and not self._is_idle and all(child.is_idle for child in children):
            self._is_idle = True
            self._notify.idle()

    def _stop(self) -> None:
        if self._is_draining:
            self._kill_at = self._kill_at or time.monotonic() + GOODBYE
            self._tell(NOW)
            return
        self._is_draining = True
        self._due.clear()
        # No port without somebody who accepts: workers close theirs when they hear it.
        self._listener.close()
        self._tell(DRAIN)
        self._tell_starter()

    def _tell(self, word: bytes) -> None:
        for child in self._running.values():
            with contextlib.suppress(OSError):  # it has ended, or hangs
                child.wire.send(word)

    def _reap(self) -> None:
        """See who has ended."""
        for number, child in list(self._running.items()):
            pid, code = os.waitpid(child.pid, os.WNOHANG)
            if not pid:
                continue
            self._forget(number)
            share = shares.Shares(self._memory, number=number)
            if not self._is_draining:
                status = os.waitstatus_to_exitcode(code)
                fields = {"pid": pid, "status": status if status >= 0 else 128 - status, "count": share.count}
                log.error("a worker has ended, another is started", extra={"fields": fields})
                now = time.monotonic()
                self._due[number] = now + self._restarts[number].pause(lived=now - child.started)
            share.has_gone()
            # Who waits to be accepted may have been this one's: it had been woken, and has not come to it.
            self._tell(LOOK)
            self._tell_starter()

    def _look_after(self) -> None:
        """End those that hang: nobody else would, and who asks is led to them, too."""
        now = time.monotonic()
        if self._kill_at and now >= self._kill_at:
            for child in self._running.values():
                os.kill(child.pid, signal.SIGKILL)
        if now < self._looks_at:
            return
        self._looks_at = now + self._timeout / LOOKS
        for number, child in self._running.items():
            if child.pulse.is_gone(now=now):
                fields = {"pid": child.pid, "count": shares.Shares(self._memory, number=number).count}
                log.error("a worker hangs: it is ended, and its connections with it", extra={"fields": fields})
                os.kill(child.pid, signal.SIGKILL)
        if self._is_draining or any(child.is_ready for child in self._running.values()):
            self._someone_ready = now
        elif now - self._someone_ready >= max(ALL_DEAD, 2 * self._timeout / LOOKS):
            what = f"no worker could be kept running for {ALL_DEAD:g} s"
            raise errors.Unreachable(what, hint="see what they have said above")

    def _end_all(self) -> None:
        self._listener.close()
        for number, child in list(self._running.items()):
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            self._forget(number)

    def _forget(self, number: int) -> None:
        child = self._running.pop(number)
        with contextlib.suppress(KeyError):  # it has said already that it ends
            self._poll.unregister(child.wire)
        child.wire.close()
