"""Addresses of the hosts that raw routes name: kept for a while, and asked for once by all who wait."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from hbone.urls import Address

KEPT = 30.0  # seconds
MAX_KEPT = 1000
Found = tuple[socket.AddressFamily, tuple[str, int]]
Done = Callable[[list[Found], str], None]
Start = Callable[[Coroutine[Any, Any, None]], object]


class Resolver:
    """The addresses; ``start`` runs a coroutine in the background."""

    def __init__(self, *, start: Start) -> None:
        self._start = start
        self._loop = asyncio.get_running_loop()
        self._kept: dict[Address, tuple[list[Found], float]] = {}
        self._waiting: dict[Address, list[Done]] = {}

    def find(self, address: Address, done: Done) -> None:
        """Tell ``done`` the addresses, at once when they are known; or none, and why."""
        found = self._known(address)
        if found:
            done(found, "")
            return
        waiting = self._waiting.get(address)
        if waiting is not None:
            waiting.append(done)
            return
        self._waiting[address] = [done]
        self._start(self._ask(address))

    def _keep(self, address: Address, found: list[Found], until: float) -> None:
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[address] = (found, until)

    def _known(self, address: Address) -> list[Found]:
        found, until = self._kept.get(address, ([], 0.0))
        if found and until > self._loop.time():
            return found
        try:
            ip = ipaddress.ip_address(address.host)
        except ValueError:
            return []
        family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
        found = [(family, (address.host, address.port))]
        self._keep(address, found, float("inf"))
        return found

    async def _ask(self, address: Address) -> None:
        found: list[Found] = []
        reason = ""
        try:
            infos = await self._loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            found = [(family, (str(where[0]), int(where[1]))) for family, _, _, _, where in infos]
            self._keep(address, found, self._loop.time() + KEPT)
        except OSError as error:
            reason = error.strerror or str(error)
        finally:
            for done in self._waiting.pop(address, ()):
                done(found, reason)
