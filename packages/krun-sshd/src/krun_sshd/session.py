"""One session: a shell or a command, its streams tied to the ssh channel, its end reported as OpenSSH does."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import signal
from collections.abc import Mapping
from typing import cast

import asyncssh

from krun_sshd.process import Child, Request, Size, find_shell, plan, spawn

GRACE = 1.0  # seconds between SIGHUP and SIGKILL for what is left of a session
END_OF_FILE = b"\x04"  # ^D: what a terminal takes for the end of input
# Signals that a client may send, and that an exit by signal is reported with (RFC 4254 §6.10).
SIGNALS = ("ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2")


class Output(asyncio.Protocol):
    """One output stream of the process, to the channel."""

    def __init__(self, *, channel: asyncssh.SSHServerChannel[bytes], datatype: int | None) -> None:
        self._channel = channel
        self._datatype = datatype
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        if not self._channel.is_closing():
            self._channel.write(data, self._datatype)

    def connection_lost(self, exc: Exception | None) -> None:
        # A terminal ends with EIO when its last process is gone: an end like any other.
        self.ended.set()


class Input(asyncio.BaseProtocol):
    """The process's stdin: holds the client back while the process does not read."""

    def __init__(self, *, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = channel
        self.broken = False

    def pause_writing(self) -> None:
        self._channel.pause_reading()

    def resume_writing(self) -> None:
        # Not at once: asyncio calls this from within its own write, and when the client's data and its end arrive in
        # there, the pipe is closed with that data unwritten.
        asyncio.get_running_loop().call_soon(self._channel.resume_reading)

    def connection_lost(self, exc: Exception | None) -> None:
        # Nobody reads any more. What still comes is dropped, not held: the client's end of file must get through.
        self.broken = True
        self._channel.resume_reading()


class Session(asyncssh.SSHServerSession[bytes]):
    """What asyncssh calls for one channel; ``run`` is the session's life, in the server's task group."""

    def __init__(self, *, tasks: asyncio.TaskGroup, environment: Mapping[str, str], now: asyncio.Event) -> None:
        self._tasks = tasks
        self._environment = environment
        self._now = now
        self._hang_up = asyncio.Event()
        self._command: str | None = None
        self._size: Size = (0, 0)
        self._channel: asyncssh.SSHServerChannel[bytes]
        self._child: Child | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._input: Input | None = None
        self._outputs: list[asyncio.ReadTransport] = []
        self._early = b""  # input that came before the process was there: at most the channel's window
        self._input_ended = False

    # What the client asks for

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        self._size = term_size[:2]
        return True

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def session_started(self) -> None:
        self._tasks.create_task(self._run())

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._stdin is None:
            self._early += data
        elif self._input is not None and not self._input.broken:
            self._stdin.write(data)

    def eof_received(self) -> bool:
        self._input_ended = True
        self._pass_end_of_input()
        return True  # only input has ended: the channel stays open for output and status

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        self._size = (width, height)
        if self._child is not None:
            self._child.resize(self._size)

    def signal_received(self, signal: str) -> None:
        if self._child is not None and (number := _signal(signal)):
            self._child.signal(number)

    # Flow control from the client's side

    def pause_writing(self) -> None:
        for output in self._outputs:
            output.pause_reading()

    def resume_writing(self) -> None:
        for output in self._outputs:
            if not output.is_closing():
                output.resume_reading()

    # The end

    def connection_lost(self, exc: Exception | None) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        """End the session's processes: the client has gone, or the server goes."""
        self._hang_up.set()

    async def _run(self) -> None:
        try:
            shell = find_shell(self._environment)
            what = plan(self._request(), environment=self._environment, shell=shell, home=_home())
            self._child = await spawn(what, size=self._size)
        except OSError as error:
            self._refuse(error)
            return
        outputs = await self._connect(self._child)
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._end_on_hang_up(self._child))
                await self._child.process.wait()
                if what.terminal:
                    # As in sshd: with a terminal the session ends with its first process, without one when all
                    # that write to it have ended.
                    await self._child.end(grace=GRACE, now=self._now)
                for output in outputs:
                    await output.ended.wait()
                watch.cancel()
            self._report(self._child.process.returncode)
            await self._child.end(grace=GRACE, now=self._now)
        finally:
            self._close()

    async def _end_on_hang_up(self, child: Child) -> None:
        await self._hang_up.wait()
        self.resume_writing()  # nobody reads at the other end: what is left is thrown away, not waited for
        await child.end(grace=GRACE, now=self._now)

    async def _connect(self, child: Child) -> list[Output]:
        loop = asyncio.get_running_loop()
        outputs = []
        for descriptor, datatype in ((child.stdout, None), (child.stderr, asyncssh.EXTENDED_DATA_STDERR)):
            if descriptor is not None:
                output, reader = await self._read(descriptor, datatype)
                outputs.append(output)
                self._outputs.append(reader)
        source = Input(channel=self._channel)
        transport, _ = await loop.connect_write_pipe(lambda: source, os.fdopen(child.stdin, "wb", 0))
        self._input = source
        self._stdin = transport
        if self._early:
            transport.write(self._early)
            self._early = b""
        self._pass_end_of_input()
        child.resize(self._size)
        return outputs

    async def _read(self, descriptor: int, datatype: int | None) -> tuple[Output, asyncio.ReadTransport]:
        output = Output(channel=self._channel, datatype=datatype)
        pipe = os.fdopen(descriptor, "rb", 0)
        reader, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: output, pipe)
        return output, reader

    def _pass_end_of_input(self) -> None:
        if not self._input_ended or self._stdin is None or self._input is None or self._input.broken:
            return
        if self._child is not None and self._child.stderr is None:
            self._stdin.write(END_OF_FILE)
        else:
            self._stdin.write_eof()

    def _request(self) -> Request:
        connection = cast(asyncssh.SSHServerConnection, self._channel.get_connection())
        client, server = (connection.get_extra_info(name) for name in ("peername", "sockname"))
        return Request(
            command=self._channel.get_command(),
            terminal=self._channel.get_terminal_type(),
            variables=dict(self._channel.get_environment()),
            granted=cast(dict[str, str], connection.get_key_option("environment", {})),
            user=_user(),
            connection=f"{client[0]} {client[1]} {server[0]} {server[1]}",
        )

    def _refuse(self, error: OSError) -> None:
        if not self._channel.is_closing():
            self._channel.write_stderr(f"krun-sshd: {error}\n".encode())
            self._channel.exit(127 if error.errno in (None, errno.ENOENT) else 126)

    def _report(self, status: int | None) -> None:
        if self._channel.is_closing() or status is None:
            return
        if status >= 0:
            self._channel.exit(status)
        else:
            name = signal.Signals(-status).name.removeprefix("SIG")
            self._channel.exit_with_signal(name if name in SIGNALS else f"{name}@krun")

    def _close(self) -> None:
        for transport in (*self._outputs, self._stdin):
            if transport is not None:
                transport.close()


def _signal(name: str) -> signal.Signals | None:
    return signal.Signals[f"SIG{name}"] if name in SIGNALS else None


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a uid without a name, as containers have them
        return str(os.getuid())


def _home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"
