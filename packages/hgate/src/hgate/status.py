"""Health and metrics over HTTP: two answers that probes ask for, and one text for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hgate import errors

MAX_REQUEST = 8192  # bytes of a request's head
TIMEOUT = 5.0  # seconds for a whole exchange
MAX_CLIENTS = 64

Page = tuple[int, str, str]  # status, type, text
TEXT = "text/plain; charset=utf-8"
METRICS = "text/plain; version=0.0.4; charset=utf-8"
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


@dataclass(frozen=True, kw_only=True)
class Health:
    """``reason`` says in a word why the gate is not ready."""

    is_ready: bool
    reason: str = ""


class StatusServer:
    """Serves what the given functions say at that moment. Knows no keep-alive: probes ask once."""

    def __init__(self, *, health: Callable[[], Health], metrics: Callable[[], str]) -> None:
        self._pages: Mapping[str, Callable[[], Page]] = {
            "/healthz/live": lambda: (200, TEXT, "live\n"),
            "/healthz/ready": lambda: _ready(health()),
            "/metrics": lambda: (200, METRICS, metrics()),
        }
        self._clients = 0

    async def serve(self, host: str, port: int) -> asyncio.Server:
        """Listen. Raises Misconfigured."""
        try:
            return await asyncio.start_server(self._serve, host, port, limit=MAX_REQUEST)
        except OSError as error:
            raise errors.Misconfigured(
                f"cannot listen on {host}:{port} for status: {error.strerror or error}", hint="see --status"
            ) from error

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._clients >= MAX_CLIENTS:
            writer.transport.abort()
            return
        self._clients += 1
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(TIMEOUT):
                    writer.write(await self._answer(reader))
                    await writer.drain()
        finally:
            self._clients -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _encoded((400, TEXT, "too long\n"), is_head=False)
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3:
            return _encoded((400, TEXT, "no request\n"), is_head=False)
        if words[0] not in ("GET", "HEAD"):
            return _encoded((405, TEXT, "GET only\n"), is_head=False)
        page = self._pages.get(words[1].partition("?")[0])
        return _encoded(page() if page else (404, TEXT, "not here\n"), is_head=words[0] == "HEAD")


def _ready(health: Health) -> Page:
    return (200, TEXT, "ready\n") if health.is_ready else (503, TEXT, f"not ready: {health.reason}\n")


def _encoded(page: Page, *, is_head: bool) -> bytes:
    status, kind, text = page
    body = text.encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if is_head else body)
