"""The same with TLS: the kernel's bytes go through OpenSSL in large batches, and never through a socket of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from time import thread_time
from typing import cast

from hbone.backlog import Piece
from hbone.link import Link
from hbone.pace import LEAST
from hbone.poller import Poller

READ = 64 * 1024  # bytes of a handshake
RECORD = 16 * 1024  # what OpenSSL gives at once
FULL = 512 * 1024  # decrypted bytes that are handed on in one piece


class TlsLink(Link):
    """A client's when it is given the server's name, else a server's."""

    def __init__(self, connected: socket.socket, *, poller: Poller, context: ssl.SSLContext, name: str | None) -> None:
        super().__init__(connected, poller=poller)
        self.conduit = None
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._coming, self._going, server_side=name is None, server_hostname=name)
        # With a buffer it says how many.
        self._read_into = cast("Callable[[int, memoryview], int]", self._tls.read)

    async def shake_hands(self) -> None:
        """Before all else. Raises OSError, ssl.SSLError among them."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._say(loop)
                data = await loop.sock_recv(self.socket, READ)
                if not data:
                    raise ConnectionResetError("the peer ended the handshake") from None
                self._coming.write(data)
            except ssl.SSLError:
                with contextlib.suppress(OSError):  # the alert that says what is wrong
                    await self._say(loop)
                raise
            else:
                await self._say(loop)
                return

    async def _say(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._going.pending:
            await loop.sock_sendall(self.socket, self._going.read())

    @property
    def protocol(self) -> str | None:
        """What ALPN has found."""
        return self._tls.selected_alpn_protocol()

    def go_on(self) -> None:
        super().go_on()
        # What came with the last of the handshake, or while nobody read, makes no file ready.
        asyncio.get_running_loop().call_soon(self._decrypt)

    def send(self, *pieces: Piece) -> bool:
        if self.is_closed or self._is_closing or self._is_deaf:
            return True
        try:
            for piece in pieces:
                if piece:
                    self._tls.write(piece)
        except ssl.SSLError:
            self._is_deaf = True
            return True
        return Link.send(self, self._going.read())

    def close(self) -> None:
        if not (self.is_closed or self._is_closing or self._is_deaf):
            self._say_end()
        super().close()

    def say_goodbye(self, ended: Callable[[], object]) -> None:
        self._say_end()
        super().say_goodbye(ended)

    def _say_end(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # it wants the peer's word, which nobody waits for
            self._tls.unwrap()
        if self._going.pending:
            super().send(self._going.read())

    def _read(self) -> None:
        incoming = self.poller.buffers.incoming
        try:
            count = self.socket.recv_into(incoming, self.pace.most)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(f"the connection was lost: {error}")
            return
        if count:
            self._coming.write(incoming[:count])
            began = thread_time()
            self._decrypt()
            if count > LEAST:
                self.pace.took(thread_time() - began)
        else:
            self.end("")

    def _decrypt(self) -> None:
        plain = self.poller.buffers.plain
        read = self._read_into
        reason: str | None = None
        is_more = True
        while is_more and not (self.is_closed or self._is_closing) and self._is_started:
            count = 0
            try:
                while count < FULL:
                    got = read(RECORD, plain[count:] if count else plain)
                    if not got:  # its orderly end
                        reason, is_more = "", False
                        break
                    count += got
                    # A short record is often the last. Known without an exception, which costs as much as such one.
                    if got < RECORD and not (self._coming.pending or self._tls.pending()):
                        is_more = False
                        break
            except ssl.SSLWantReadError:
                is_more = False
            except ssl.SSLError as error:
                reason, is_more = f"TLS failed: {error.reason or error}", False
            if count:
                self._received(plain[:count])
        if self._going.pending:  # an answer of TLS itself
            super().send(self._going.read())
        if reason is not None and not (self.is_closed or self._is_closing):
            self.end(reason)
