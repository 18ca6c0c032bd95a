"""Long frames of payload on their way from a connection to local ends, by the conduit: what decides where to read."""

from __future__ import annotations

from collections.abc import Callable

from hbone.buffers import INCOMING
from hbone.conduit import LEAST, Unable
from hbone.events import Event
from hbone.link import Link
from hbone.tunnel import Connection


class Passage:
    """Of one connection."""

    def __init__(self, *, link: Link, core: Connection, taken: Callable[[list[Event]], object]) -> None:
        """``taken`` is told what follows from payload that has passed."""
        self._link, self._core, self._taken = link, core, taken

    def look(self) -> None:
        """After each read: have what follows pass, if it is worth it."""
        link = self._link
        if link.is_closed:
            return
        flow, left = self._core.long
        if flow is None or flow.passer is None:
            link.next = INCOMING
        elif left < LEAST:
            # Not into the frame that follows, which may be a long one, too.
            link.next = self._core.until_header
        else:
            link.passage = self._pass
            self._pass()

    def _pass(self) -> None:
        link, conduit = self._link, self._link.conduit
        flow, left = self._core.long
        try:
            if conduit is None or flow is None or flow.passer is None:
                raise Unable
            count = flow.passer.pass_on(link.socket.fileno(), conduit, left)
        except BlockingIOError:
            return
        except Unable:
            link.passage = None
            link.next = INCOMING
            return
        except OSError as error:
            link.end(f"the connection was lost: {error}")
            return
        if not count:
            link.end("")
            return
        found = self._core.skip(count)
        if count == left:
            link.passage = None
            link.next = self._core.until_header
        self._taken(found)
