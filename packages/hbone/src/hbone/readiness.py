"""Waits until files are ready, by what every system has: for one tunnel that is as quick as epoll."""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def wait(*, reads: Iterable[int], writes: Iterable[int] = (), seconds: float | None = None) -> set[int]:
    """The files that can be read or written without waiting, or are broken; none when the time is over."""
    if not hasattr(select, "poll"):  # Python leaves it out where a system's is broken
        found = select.select(reads, writes, [], seconds)
        return {*found[0], *found[1]}
    poll, masks = select.poll(), dict.fromkeys(reads, select.POLLIN)
    for file in writes:
        masks[file] = masks.get(file, 0) | select.POLLOUT
    for file, mask in masks.items():
        poll.register(file, mask)
    # Rounded up: a wait that ends too soon would be tried again and again.
    return {file for file, _ in poll.poll(None if seconds is None else max(0, int(seconds * 1000) + 1))}
