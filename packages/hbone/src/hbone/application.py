"""The application behind hboned: which protocol and port a request goes to, over which connection."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hbone.message import Request
from hbone.outbound import Outbound

if TYPE_CHECKING:
    from hbone.app_http1 import Http1Pool
    from hbone.app_http2 import Http2Pool

AUTO, HTTP1, H2C = "auto", "http1", "h2c"
PROTOCOLS = (AUTO, HTTP1, H2C)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the application is, and how it is spoken to."""

    address: str
    port: int
    grpc_port: int
    protocol: str = AUTO

    def is_http2(self, request: Request) -> bool:
        """Whether the request goes by HTTP/2."""
        return self.protocol == H2C or (self.protocol == AUTO and request.is_grpc)

    def port_of(self, request: Request) -> int:
        """gRPC has a port of its own, however it is spoken."""
        return self.grpc_port if request.is_grpc else self.port


class Application:
    """The pools of connections; a context manager, whose end closes them."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._group = asyncio.TaskGroup()
        self._http1: dict[int, Http1Pool] = {}
        self._http2: dict[int, Http2Pool] = {}

    async def open(self, request: Request, *, is_fresh: bool) -> Outbound:
        """A way for this request; ``is_fresh``: on a new connection. Raises AppBroken."""
        port = self.place.port_of(request)
        if self.place.is_http2(request):
            return await self._pool_http2(port).open(request, is_fresh=is_fresh)
        return await self._pool_http1(port).open(request, is_fresh=is_fresh)

    def _pool_http1(self, port: int) -> Http1Pool:
        if port not in self._http1:
            from hbone.app_http1 import Http1Pool  # late: it brings h11

            self._http1[port] = Http1Pool(address=self.place.address, port=port)
        return self._http1[port]

    def _pool_http2(self, port: int) -> Http2Pool:
        if port not in self._http2:
            from hbone.app_http2 import Http2Pool

            self._http2[port] = Http2Pool(address=self.place.address, port=port, group=self._group)
        return self._http2[port]

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pool in self._http1.values():
            pool.close()
        if kind is None:
            for other in self._http2.values():
                await other.close()
        await self._group.__aexit__(kind, error, traceback)
