#!/usr/bin/python3
"""scan ADDRESS: every TCP port of an address, 1 to 65535, by a connection; prints the open ones as a JSON list.

A port is shut when its connection is refused. Anything else than open and refused ends the scan with 1: a scan that
did not see everything has found nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys

AT_ONCE = 200
TIMEOUT = 5.0


async def look(address: str, ports: asyncio.Queue[int], found: list[int]) -> None:
    while not ports.empty():
        port = ports.get_nowait()
        try:
            async with asyncio.timeout(TIMEOUT):
                _, writer = await asyncio.open_connection(address, port)
        except ConnectionRefusedError:
            continue
        writer.close()
        found.append(port)


async def scan(address: str) -> list[int]:
    ports: asyncio.Queue[int] = asyncio.Queue()
    for port in range(1, 65536):
        ports.put_nowait(port)
    found: list[int] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(look(address, ports, found))
    return sorted(found)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(scan(sys.argv[1]))))
