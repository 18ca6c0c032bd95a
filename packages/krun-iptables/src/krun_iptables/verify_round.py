"""All proofs at once: listeners where connections are led to, every connection tried, and what became of each.

Who has arrived is known by what is said: a listener of ours says a number that its client reads, and a question of DNS
carries one. A client's address is not enough: where an earlier connection had the same port, and the kernel still knows
it (conntrack, two minutes), the listener sees another port than the client has.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
import time
from typing import TYPE_CHECKING

from krun_iptables import verify_connections, verify_judge, verify_listener, verify_owner
from krun_iptables.errors import Denied
from krun_iptables.explain_route import family
from krun_iptables.verify_attempt import LONGEST, Arrival, Attempt, place, read, worded
from krun_iptables.verify_check import Check

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from krun_iptables.verify_listener import Key
    from krun_iptables.verify_owner import Owner
    from krun_iptables.verify_plan import Probe

# What failed is tried again by other ports: an old connection with the same one may be what the kernel goes by, and
# where another program listens, its list of sockets has nothing but addresses.
ROUNDS = 3


def run(probes: Sequence[Probe], ports: Iterable[Key], *, agent: Owner | None, timeout: float) -> tuple[Check, ...]:
    """Try every probe, for ``timeout`` seconds at most; ``ports`` are all that rules lead to.

    ``agent`` is who answers DNS: rules keep its answers in the application's conversation by its ids. Where we cannot
    be it, answers do not come back, and it is enough that questions arrive.
    """
    deadline = time.monotonic() + timeout
    # Those that must not arrive go first, see _Round.
    ordered = sorted(probes, key=lambda probe: probe.is_intercepted)
    with contextlib.ExitStack() as stack:
        listeners: dict[Key, socket.socket | None] = {}
        if agent is not None and not verify_owner.can_be(agent):
            agent = None
        for where in ports:
            listener = verify_listener.opened(where, owner=agent if where[1] == "udp" else None)
            listeners[where] = listener
            if listener is not None:
                stack.enter_context(listener)
        stack.enter_context(_on_one_cpu())
        best: list[Check] = []
        for left in range(ROUNDS, 0, -1):
            # Clients stay to the end of all rounds: no port is had twice.
            tried = _Round(ordered, listeners, stack, answers_dns=agent is not None, limit=timeout)
            checks = tried.run((deadline - time.monotonic()) / left)
            best = [new if new.outcome == "ok" else old for old, new in zip(best or checks, checks, strict=True)]
            if not tried.may_tell_more(best) or time.monotonic() >= deadline:
                break
        return tuple(best)


class _Round:
    """Every probe once.

    A connection that is led to a listener of this machine is made before ``connect`` returns to its caller, or soon
    after, but in the order of the calls: loopback is a queue. So one that must not be led there is judged when those
    that must be, which were begun after it, have arrived.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        listeners: Mapping[Key, socket.socket | None],
        stack: contextlib.ExitStack,
        *,
        answers_dns: bool,
        limit: float,
    ) -> None:
        self.attempts = [Attempt(probe, number=number) for number, probe in enumerate(probes)]
        self.listeners = listeners
        self.taken = frozenset(where for where, listener in listeners.items() if listener is None)
        self.selector = selectors.DefaultSelector()
        self.stack = stack
        self.answers_dns = answers_dns
        self.limit = limit
        self.token = secrets.token_hex(16).encode()
        self.arrivals: list[Arrival] = []

    def run(self, seconds: float) -> list[Check]:
        deadline = time.monotonic() + seconds
        with self.selector:
            for where, listener in self.listeners.items():
                if listener is not None:
                    self.selector.register(listener, selectors.EVENT_READ, where)
            for attempt in self.attempts:
                self._start(attempt)
            while self._waits() and (left := deadline - time.monotonic()) > 0:
                self._pass(left)
            self._take_what_is_there()
            self._look()
            # Once more: what was closed before it was looked for says so by now.
            self._take_what_is_there()
        return [
            verify_judge.judge(attempt, taken=self.taken, is_answered=self._is_answered(attempt), limit=self.limit)
            for attempt in self.attempts
        ]

    def may_tell_more(self, checks: Sequence[Check]) -> bool:
        """Whether another round may prove what these, of all probes, do not."""
        return any(
            check.outcome == "fail" or (check.outcome == "unknown" and attempt.is_tcp and attempt.untried is None)
            for attempt, check in zip(self.attempts, checks, strict=True)
        )

    def _waits(self) -> bool:
        return any(attempt.probe.is_intercepted and not self._is_decided(attempt) for attempt in self.attempts)

    def _is_decided(self, attempt: Attempt) -> bool:
        if attempt.where in self.taken:
            return attempt.is_over or attempt.is_connected or not attempt.is_tcp
        return attempt.is_over or (not self._is_answered(attempt) and attempt.arrival is not None)

    def _is_answered(self, attempt: Attempt) -> bool:
        """Whether an answer is to come back when it has arrived."""
        return attempt.is_tcp or self.answers_dns

    def _start(self, attempt: Attempt) -> None:
        probe = attempt.probe
        kind = socket.SOCK_STREAM if attempt.is_tcp else socket.SOCK_DGRAM
        try:
            client = self.stack.enter_context(verify_owner.opened(probe.owner, family(probe.packet.destination), kind))
            attempt.begin(client, token=self.token)
        except Denied as denied:
            attempt.untried = Check(
                name=probe.name, outcome="unknown", text=denied.message, hint=denied.hint, denied=True
            )
        except OSError as error:
            reason = (error.strerror or "").lower()
            attempt.untried = Check(name=probe.name, outcome="unknown", text=f"it cannot be tried: {reason}")
        else:
            if not attempt.error:
                events = selectors.EVENT_WRITE if attempt.is_tcp else selectors.EVENT_READ
                self.selector.register(client, events, attempt)

    def _take_what_is_there(self) -> None:
        while self._pass(0):
            pass

    def _pass(self, timeout: float) -> bool:
        """Wait for what comes next, and see to it; False when nothing came."""
        events = self.selector.select(timeout)
        for found, _ in events:
            assert isinstance(found.fileobj, socket.socket)  # noqa: S101 - sockets only are registered
            if isinstance(found.data, Attempt):
                self._client(found.data, found.fileobj)
            elif found.data[1] == "udp":
                self._asked(found.fileobj, found.data)
            else:
                self._called(found.fileobj, found.data)
        return bool(events)

    def _asked(self, listener: socket.socket, where: Key) -> None:
        with contextlib.suppress(OSError):
            said, name = listener.recvfrom(LONGEST)
            number = read(self.token, said)
            if number is not None and number < len(self.attempts):
                self.attempts[number].arrival = Arrival(port=where[2], client=place(name))
                listener.sendto(said, name)

    def _called(self, listener: socket.socket, where: Key) -> None:
        with contextlib.suppress(OSError):
            connection, name = listener.accept()
            with connection:
                wanted = None
                with contextlib.suppress(OSError):
                    wanted = verify_listener.original(connection)
                self.arrivals.append(Arrival(port=where[2], client=place(name), wanted=wanted))
                connection.sendall(worded(self.token, len(self.arrivals) - 1))

    def _client(self, attempt: Attempt, client: socket.socket) -> None:
        if attempt.is_tcp and not attempt.is_connected:
            attempt.connected(client)
            if not attempt.error:
                # Nothing is said to whoever it is: a listener of ours speaks first.
                self.selector.modify(client, selectors.EVENT_READ, attempt)
                return
        else:
            number = attempt.heard(client, token=self.token)
            if number is not None and attempt.is_tcp:
                attempt.arrival = self.arrivals[number]
        self.selector.unregister(client)

    def _look(self) -> None:
        """Find those that have arrived and heard nothing, by their addresses: with us, then in the kernel's list."""
        ports = [port for _, protocol, port in self.taken if protocol == "tcp"]
        with_us = {arrival.client: arrival for arrival in self.arrivals}
        for attempt in self.attempts:
            if attempt.arrival is not None or attempt.name is None or attempt.is_refused or not attempt.is_tcp:
                continue
            attempt.arrival = with_us.get(attempt.name)
            for port in ports:
                if attempt.arrival is None and verify_connections.arrived(attempt.name, port):
                    attempt.arrival = Arrival(port=port, client=attempt.name)


@contextlib.contextmanager
def _on_one_cpu() -> Iterator[None]:
    """Stay on one processor: each has its own queue of what goes over loopback."""
    allowed = os.sched_getaffinity(0)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, allowed)
