"""The ssh server: listens, lets in who has a key, starts sessions and forwards to loopback; ends all of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import signal
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import cast

import asyncssh

from krun_sshd.access import Entry
from krun_sshd.errors import Misconfigured
from krun_sshd.session import Session

log = logging.getLogger(__name__)

LOGIN_TIMEOUT = 30.0  # seconds for a client to show its key
DIAL_TIMEOUT = 10.0  # seconds for a forwarded connection to be accepted
CLOSE_TIMEOUT = 1.0  # seconds for connections to be closed in order, at the end
# A client that vanished behind a tunnel is noticed after three unanswered questions, and its processes are ended.
KEEPALIVE = 30.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the server is started with."""

    address: str
    port: int
    loopback: str
    entries: tuple[Entry, ...]
    host_key: asyncssh.SSHKey
    environment: Mapping[str, str]


class Keys(asyncssh.SSHAuthorizedKeys):
    """The authorized keys, for one connection: remembers which of them was accepted last, for the log."""

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        super().__init__("\n".join(entry.text for entry in entries))
        self.fingerprint = ""

    def validate(
        self, key: asyncssh.SSHKey, client_host: str, client_addr: str, *rest: object, **named: object
    ) -> Mapping[str, object] | None:
        options = super().validate(key, client_host, client_addr, *rest, **named)  # type: ignore[arg-type]
        if options is not None:
            self.fingerprint = key.get_fingerprint()
        return options


class Connection(asyncssh.SSHServer):
    """One client: public keys only, sessions, and forwarding to loopback."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._keys = Keys(server.settings.entries)
        self._started = time.monotonic()
        self._user = ""
        self._is_in = False
        self._peer = ""
        self._sessions: list[Session] = []
        self.ssh: asyncssh.SSHServerConnection

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.ssh = conn
        host, port, *_ = conn.get_extra_info("peername")
        self._peer = f"{host}:{port}"
        self._server.connections.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.remove(self)
        reason = str(exc) if exc else "closed"
        fields = {
            "peer": self._peer,
            "user": self._user,
            "fingerprint": self._keys.fingerprint if self._is_in else "",
            "count": len(self._sessions),
            "duration_ms": int((time.monotonic() - self._started) * 1000),
            "reason": reason if self._is_in else "not let in",
        }
        # Who only looked whether the port is open is not worth a line.
        log.log(logging.INFO if self._user else logging.DEBUG, "connection closed", extra={"fields": fields})

    def begin_auth(self, username: str) -> bool:
        self._user = username  # any name will do: everybody runs as this process's own uid
        self.ssh.set_authorized_keys(self._keys)
        return True

    def auth_completed(self) -> None:
        self._is_in = True

    def session_requested(self) -> Session | bool:
        if self._server.stopping.is_set():
            return False
        session = Session(tasks=self._server.tasks, environment=self._server.settings.environment, now=self._server.now)
        self._sessions.append(session)
        return session

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Awaitable[asyncssh.SSHTCPSession[bytes]]:
        target = forward_target(dest_host, loopback=self._server.settings.loopback)
        if target is None:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, f"{dest_host}: only loopback is forwarded to"
            )
        return self._forward(target, dest_port)

    async def _forward(self, host: str, port: int) -> asyncssh.SSHTCPSession[bytes]:
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                forwarder = await self.ssh.forward_connection(host, port)
                # asyncssh documents it as what this method returns, and types it as a protocol.
                return cast("asyncssh.SSHTCPSession[bytes]", forwarder)
        except TimeoutError:
            reason = f"{host}:{port} does not answer"
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, reason) from None

    def hang_up(self) -> None:
        """End the processes of all its sessions."""
        for session in self._sessions:
            session.hang_up()


class Server:
    """What the connections of one server share."""

    def __init__(self, *, settings: Settings, tasks: asyncio.TaskGroup) -> None:
        self.settings = settings
        self.tasks = tasks
        self.stopping = asyncio.Event()
        self.now = asyncio.Event()  # a second signal: nobody is waited for
        self.connections: list[Connection] = []

    def stop(self) -> None:
        """First call: end in order; second: end now."""
        if self.stopping.is_set():
            self.now.set()
        self.stopping.set()

    async def close(self) -> None:
        """Close what connections are left, in order and then by force."""
        for connection in list(self.connections):
            connection.ssh.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self.now.is_set() else CLOSE_TIMEOUT):
                for connection in list(self.connections):
                    await connection.ssh.wait_closed()
        for connection in list(self.connections):
            connection.ssh.abort()


def forward_target(host: str, *, loopback: str) -> str | None:
    """Where a forwarded connection goes: loopback as it is, ``localhost`` to KRUN_LOOPBACK, else nowhere."""
    if host.rstrip(".").lower() == "localhost":
        return loopback
    try:
        return host if ipaddress.ip_address(host).is_loopback else None
    except ValueError:
        return None


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status: 0 when drained, 128+15 when told twice."""
    loop = asyncio.get_running_loop()
    tasks = asyncio.TaskGroup()
    server = Server(settings=settings, tasks=tasks)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    # Before the group, which would wrap its failure; no client is served before the group's first wait.
    listener = await _listen(server)
    started = time.monotonic()
    async with tasks:
        fields = {
            "address": f"{settings.address}:{settings.port}",
            "fingerprint": settings.host_key.get_fingerprint(),
            "count": len(settings.entries),
            "uid": os.getuid(),
        }
        log.info("ready", extra={"fields": fields})
        await server.stopping.wait()
        started = time.monotonic()
        listener.close()
        for connection in server.connections:
            connection.hang_up()
        # Leaving the group waits for the sessions: each ends within its grace.
    await server.close()
    fields = {"duration_ms": int((time.monotonic() - started) * 1000)}
    log.info("ended at once" if server.now.is_set() else "drained", extra={"fields": fields})
    return 128 + signal.SIGTERM if server.now.is_set() else 0


async def _listen(server: Server) -> asyncssh.SSHAcceptor:
    settings = server.settings
    try:
        return await asyncssh.listen(
            settings.address,
            settings.port,
            server_factory=lambda: Connection(server),
            server_host_keys=[settings.host_key],
            config=None,  # no configuration file of this machine
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_host=None,
            gss_kex=False,
            gss_auth=False,
            agent_forwarding=False,
            x11_forwarding=False,
            allow_scp=False,
            line_editor=False,
            encoding=None,
            login_timeout=LOGIN_TIMEOUT,
            keepalive_interval=KEEPALIVE,
        )
    except OSError as error:
        where = f"{settings.address}:{settings.port}"
        if error.errno == errno.EADDRINUSE:
            raise Misconfigured(
                f"cannot listen on {where}: the port is taken",
                hint=f"find its holder: ss -ltnp 'sport = :{settings.port}'",
            ) from error
        raise Misconfigured(f"cannot listen on {where}: {os.strerror(error.errno or 0)}") from error
