"""What a local end says, on its way to the peer: copied, or by the conduit while it says much."""

from __future__ import annotations

import socket

from hbone import frames
from hbone.conduit import LEAST, Conduit, Unable
from hbone.flow import Flow
from hbone.party import Sender
from hbone.session import Session

# Bytes that go through a pipe at once: its 256 places take no page that two segments share twice.
FULL_TURN = 896 * 1024
# While others of the connection send little, and so may wait for an answer: they were seen not longer ago than so many
# turns of those that send much.
SHARED_TURN = 32 * 1024
SMALL, REMEMBERED = 4 * 1024, 64


def send(
    local: socket.socket, *, session: Session, flow: Flow, room: int, sender: Sender, is_bulk: bool
) -> tuple[int, bool]:
    """Send what the socket has to say, up to ``room`` bytes and one turn's: how many that were, 0 at its end, and
    whether the peer has room for more. ``is_bulk``: it has said much the last time. Raises OSError of the local
    end's."""
    core, buffers = session.core, session.poller.buffers
    if session.small_turns > 0:
        session.small_turns -= 1
        room = min(room, SHARED_TURN if session.last_sender is not sender else FULL_TURN)
    else:
        room = min(room, FULL_TURN)
    session.last_sender = sender
    conduit = session.link.conduit if is_bulk else None
    if conduit is not None and conduit.is_able and min(room, core.frame_size) >= LEAST:
        try:
            count = conduit.take(local.fileno(), min(room, core.frame_size))
        except Unable:
            pass
        else:
            if count < SMALL:
                session.small_turns = REMEMBERED
            return count, not count or _spliced(session, flow, conduit, count)
    count, in_slots = buffers.read(local, room=room, frame=core.frame_size)
    if not count:
        return 0, True
    if count < SMALL:
        session.small_turns = REMEMBERED
    core.charge(flow, count)
    framed = buffers.framed(count, stream=flow.number, in_slots=in_slots)
    if not core.out:
        return count, session.link.send(framed)
    return count, session.link.send(core.data_to_send(), framed)


def _spliced(session: Session, flow: Flow, conduit: Conduit, count: int) -> bool:
    """A frame of what is in the conduit."""
    core = session.core
    core.charge(flow, count)
    head = core.data_to_send() + frames.header(length=count, kind=frames.DATA, flags=0, stream=flow.number)
    return session.link.send_conduit(head, conduit, count)
