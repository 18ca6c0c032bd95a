"""What can be known of routes without dialling: said at the start, and not at the first call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from hbone.client import Client, Settings
from hbone.urls import URL
from hgate.routes import Route, parse_place


async def check(routes: Iterable[Route], *, client: Settings) -> None:
    """Raises Misconfigured of hbone: root certificates that cannot be read, a token that would travel without TLS."""
    async with asyncio.TaskGroup() as group:
        checking = Client(settings=client, group=group)
        for route in routes:
            place = parse_place(route.url)
            if isinstance(place, URL):
                checking.check(place)
        await checking.close()
