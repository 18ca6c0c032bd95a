"""Blocking work beside the loop, in threads that nobody waits for at the end: a server that hangs delays no exit."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(work: Callable[[], Result], *, name: str) -> Result:
    """Do it in a thread of its own, and return or raise what it does.

    ``asyncio.to_thread`` would have the whole process wait for it, also when it is to end at once.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def done(result: Result | None, error: BaseException | None) -> None:
        if future.done():
            return  # cancelled meanwhile
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:  # noqa: BLE001 - raised where it is awaited
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(done, result, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future
