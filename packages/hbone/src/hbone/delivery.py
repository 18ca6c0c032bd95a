"""Whether the peer's kernel has all that was sent: only then a connection can be closed, whatever the peer still says.

Who closes with something unread resets the connection, and the kernel drops what it has not delivered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hbone.link import Link

LOOKS = 0.02  # seconds between two looks: nobody is told of it


def when_delivered(link: Link, call: Callable[[], object]) -> None:
    """Have it called then, unless the link is closed before."""
    if link.is_closed:
        return
    if not link.backlog and _is_delivered(link.socket.fileno()):
        call()
    else:
        asyncio.get_running_loop().call_later(LOOKS, when_delivered, link, call)


def _is_delivered(file: int) -> bool:
    # Late, as only a drained connection asks; and not on every system.
    import fcntl
    import termios

    try:
        # Of a socket of Linux's: bytes that the peer has not acknowledged.
        return not any(fcntl.ioctl(file, termios.TIOCOUTQ, bytes(4)))
    except OSError:  # macOS cannot say: the peer's end is waited for
        return False
