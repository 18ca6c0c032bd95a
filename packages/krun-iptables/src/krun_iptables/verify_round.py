"""All proofs at once: listeners where connections are led to, every connection tried, and what became of each.

A connection that is led to a listener of this machine is made before ``connect`` returns to its caller; so one that
must not be led there is judged when those that must be have arrived.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import selectors
import socket
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

from krun_iptables import verify_connections, verify_listener, verify_owner
from krun_iptables.errors import Denied
from krun_iptables.explain_route import family
from krun_iptables.record import Record
from krun_iptables.verify_check import Check

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from krun_iptables.packet import Address
    from krun_iptables.verify_listener import Key
    from krun_iptables.verify_owner import Owner
    from krun_iptables.verify_plan import Probe

    Place = tuple[Address, int]

LONGEST = 512  # bytes of a question by UDP
ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


class Arrival(Record):
    """What a listener saw of a client."""

    where: Key
    wanted: Place | None  # where the client wanted to go, by the kernel


class Attempt:
    """One connection on its way."""

    def __init__(self, probe: Probe, client: socket.socket) -> None:
        self.probe = probe
        self.client = client
        self.name: Place | None = None  # its own address, by which a listener sees it
        self.is_connected = False
        self.is_answered = False
        self.is_ended = False
        self.error = 0

    @property
    def is_tcp(self) -> bool:
        return self.probe.packet.protocol == "tcp"

    @property
    def is_over(self) -> bool:
        return self.is_answered or self.is_ended or bool(self.error)


def run(probes: Sequence[Probe], ports: Iterable[Key], *, agent: Owner | None, timeout: float) -> tuple[Check, ...]:
    """Try every probe, for ``timeout`` seconds at most; ``ports`` are all that rules lead to.

    ``agent`` is who answers DNS: rules keep its answers in the application's conversation by its ids. Where we cannot
    be it, answers do not come back, and it is enough that questions arrive.
    """
    with contextlib.ExitStack() as stack:
        listeners: dict[Key, socket.socket | None] = {}
        if agent is not None and not verify_owner.can_be(agent):
            agent = None
        for where in ports:
            listener = verify_listener.opened(where, owner=agent if where[1] == "udp" else None)
            listeners[where] = listener
            if listener is not None:
                stack.enter_context(listener)
        selector = stack.enter_context(selectors.DefaultSelector())
        return _Round(probes, listeners, selector, stack, answers_dns=agent is not None).run(timeout)


class _Round:
    def __init__(
        self,
        probes: Sequence[Probe],
        listeners: Mapping[Key, socket.socket | None],
        selector: selectors.BaseSelector,
        stack: contextlib.ExitStack,
        *,
        answers_dns: bool,
    ) -> None:
        self.probes = probes
        self.listeners = listeners
        self.selector = selector
        self.stack = stack
        self.answers_dns = answers_dns
        self.token = secrets.token_hex(16).encode()
        self.attempts: list[Attempt] = []
        self.failed: list[Check] = []
        self.arrivals: dict[tuple[str, Place], Arrival] = {}

    def run(self, timeout: float) -> tuple[Check, ...]:
        deadline = time.monotonic() + timeout
        for where, listener in self.listeners.items():
            if listener is not None:
                self.selector.register(listener, selectors.EVENT_READ, where)
        # Those that must not arrive go first: had they, it would show by the time that the others have.
        for probe in sorted(self.probes, key=lambda probe: probe.is_intercepted):
            self._start(probe)
        while self._waits() and (left := deadline - time.monotonic()) > 0:
            self._pass(left)
        while self._pass(0):
            pass
        return (*self.failed, *(self._judge(attempt, timeout) for attempt in self.attempts))

    def _waits(self) -> bool:
        return any(attempt.probe.is_intercepted and not self._is_decided(attempt) for attempt in self.attempts)

    def _is_decided(self, attempt: Attempt) -> bool:
        if self._is_taken(attempt):
            return attempt.is_over or attempt.is_connected or not attempt.is_tcp
        return attempt.is_over or (not self._is_answered(attempt) and ("udp", attempt.name) in self.arrivals)

    def _is_answered(self, attempt: Attempt) -> bool:
        """Whether an answer is to come back when it has arrived."""
        return attempt.is_tcp or self.answers_dns

    def _is_taken(self, attempt: Attempt) -> bool:
        probe = attempt.probe
        return self.listeners.get(verify_listener.key(probe.packet, probe.wanted.port)) is None

    def _start(self, probe: Probe) -> None:
        packet = probe.packet
        kind = socket.SOCK_STREAM if packet.protocol == "tcp" else socket.SOCK_DGRAM
        try:
            client = self.stack.enter_context(verify_owner.opened(probe.owner, family(packet.destination), kind))
        except Denied as denied:
            self.failed.append(
                Check(name=probe.name, outcome="unknown", text=denied.message, hint=denied.hint, denied=True)
            )
            return
        attempt = Attempt(probe, client)
        self.attempts.append(attempt)
        try:
            # Bound first, so that its port is its own: to two destinations the kernel gives one port twice.
            is_local = packet.source is not None and packet.source.is_loopback
            client.bind((str(packet.source) if is_local else ANY[client.family], 0))
            attempt.error = _started(client.connect_ex((str(packet.destination), packet.port)))
            attempt.name = _place(client.getsockname())
            if packet.protocol == "udp":
                client.send(_question(self.token))
        except OSError as error:
            attempt.error = error.errno or errno.EIO
        if not attempt.error:
            events = selectors.EVENT_WRITE if attempt.is_tcp else selectors.EVENT_READ
            self.selector.register(client, events, attempt)

    def _pass(self, timeout: float) -> bool:
        """Wait for what comes next, and see to it; False when nothing came."""
        events = self.selector.select(timeout)
        for found, _ in events:
            if isinstance(found.data, Attempt):
                self._client(found.data)
            else:
                assert isinstance(found.fileobj, socket.socket)  # noqa: S101 - sockets only are registered
                self._listener(found.fileobj, found.data)
        return bool(events)

    def _listener(self, listener: socket.socket, where: Key) -> None:
        with contextlib.suppress(OSError):
            if where[1] == "udp":
                said, name = listener.recvfrom(LONGEST)
                if self.token in said:
                    self.arrivals["udp", _place(name)] = Arrival(where=where, wanted=None)
                    listener.sendto(said, name)
                return
            connection, name = listener.accept()
            with connection:
                wanted = None
                with contextlib.suppress(OSError):
                    wanted = verify_listener.original(connection)
                self.arrivals["tcp", _place(name)] = Arrival(where=where, wanted=wanted)
                connection.sendall(self.token)

    def _client(self, attempt: Attempt) -> None:
        if attempt.is_tcp and not attempt.is_connected:
            attempt.error = attempt.client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            attempt.is_connected = not attempt.error
            if attempt.is_connected:
                # Nothing is said to whoever it is: a listener of ours speaks first.
                self.selector.modify(attempt.client, selectors.EVENT_READ, attempt)
                return
        elif not attempt.error:
            try:
                said = attempt.client.recv(LONGEST)
                attempt.is_answered = self.token in said
                attempt.is_ended = not attempt.is_answered
            except OSError as error:
                attempt.error = error.errno or errno.EIO
        self.selector.unregister(attempt.client)

    def _judge(self, attempt: Attempt, timeout: float) -> Check:
        name = attempt.probe.name
        if attempt.probe.is_intercepted:
            return self._judge_led(attempt, timeout, name=name)
        if not attempt.is_tcp and any(key[1] == "udp" and one is None for key, one in self.listeners.items()):
            return Check(name=name, outcome="unknown", text="another program has the port that DNS is led to")
        port = self._arrived_at(attempt)
        if port:
            return Check(
                name=name, outcome="fail", text=f"is led to port {port}, and must not be: {_why(attempt)}", hint=HINT
            )
        return Check(name=name, outcome="ok", text=f"is not intercepted: {_why(attempt)}")

    def _arrived_at(self, attempt: Attempt) -> int:
        """The port of the rules at which it arrived; 0: at none."""
        if attempt.name is None:
            return 0
        arrival = self.arrivals.get((attempt.probe.packet.protocol, attempt.name))
        if arrival is not None:
            return arrival.where[2]
        taken = [key[2] for key, listener in self.listeners.items() if listener is None and key[1] == "tcp"]
        return next((port for port in taken if verify_connections.arrived(attempt.name, port)), 0)

    def _judge_led(self, attempt: Attempt, timeout: float, *, name: str) -> Check:
        packet, port = attempt.probe.packet, attempt.probe.wanted.port
        if self._is_taken(attempt):
            return self._judge_taken(attempt, name=name)
        at = self._arrived_at(attempt)
        if at and at != port:
            return Check(name=name, outcome="fail", text=f"arrived at port {at} instead of {port}", hint=HINT)
        if not at:
            what = os.strerror(attempt.error).lower() if attempt.error else f"nothing came within {timeout:g} s"
            return Check(name=name, outcome="fail", text=f"did not arrive at port {port}: {what}", hint=HINT)
        if attempt.name is not None and attempt.is_tcp:
            wanted = self.arrivals["tcp", attempt.name].wanted
            if wanted != (packet.destination, packet.port):
                text = f"arrived at port {port}, but the kernel says that it wanted to go to {wanted}"
                return Check(name=name, outcome="fail", text=text, hint="conntrack is needed for SO_ORIGINAL_DST")
        if not self._is_answered(attempt):
            return Check(name=name, outcome="ok", text=f"arrived at port {port}")
        if not attempt.is_answered:
            text = f"arrived at port {port}, but no answer came back"
            return Check(name=name, outcome="fail", text=text, hint="is there another rule that drops it?")
        return Check(name=name, outcome="ok", text=f"arrived at port {port}, and the answer came back")

    def _judge_taken(self, attempt: Attempt, *, name: str) -> Check:
        port = attempt.probe.wanted.port
        if not attempt.is_tcp:
            return Check(name=name, outcome="unknown", text=f"another program has port {port}, and it may be the agent")
        if attempt.name is not None and verify_connections.arrived(attempt.name, port):
            return Check(name=name, outcome="ok", text=f"arrived at port {port}, which another program has")
        if attempt.is_connected and (attempt.is_ended or attempt.error):
            text = f"another program has port {port}, and closed the connection before it could be seen there"
            return Check(name=name, outcome="unknown", text=text)
        what = os.strerror(attempt.error).lower() if attempt.error else "it went elsewhere"
        return Check(name=name, outcome="fail", text=f"did not arrive at port {port}: {what}", hint=HINT)


HINT = "are the rules in force, with the same settings? krun-iptables --dry-run prints them"


def _why(attempt: Attempt) -> str:
    rule = attempt.probe.wanted.rule
    return rule.reason if rule is not None else "no rule takes it"


def _place(name: tuple[str, int]) -> Place:
    address = ip_address(name[0].partition("%")[0])
    return address, name[1]


def _started(status: int) -> int:
    """The error of a connection that was begun; 0: it is on its way, or there."""
    return 0 if status in (0, errno.EINPROGRESS) else status


def _question(token: bytes) -> bytes:
    """A question of DNS for TOKEN.invalid, as a real server may get it: a name that there is nowhere (RFC 6761)."""
    names = b"".join(bytes([len(label)]) + label for label in (token, b"invalid"))
    return secrets.token_bytes(2) + b"\x01\x00" + b"\x00\x01" + b"\x00\x00" * 3 + names + b"\x00\x00\x01\x00\x01"
