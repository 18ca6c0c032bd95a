"""What a peer does that costs us much and it nothing: so much of it is allowed, and more is a fault."""

from __future__ import annotations

from hbone.allowance import Allowance

# Streams that the client opens and resets (CVE-2023-44487): nghttp2's defaults. Each costs us a dial, it nothing.
RESETS, RESETS_PER_SECOND = 1000, 33
# Frames that carry nothing (CVE-2019-9512, -9515, -9518): far more than any peer needs, and too few to keep us busy.
IDLE_FRAMES, IDLE_FRAMES_PER_SECOND = 10_000, 500


class Conduct:
    """Of one connection's peer; each method returns the fault, if it is one."""

    def __init__(self, *, now: float) -> None:
        self._resets = Allowance(burst=RESETS, per_second=RESETS_PER_SECOND, now=now)
        self._idle_frames = Allowance(burst=IDLE_FRAMES, per_second=IDLE_FRAMES_PER_SECOND, now=now)

    def after_reset(self, *, now: float) -> str:
        return "" if self._resets.spend(now=now) else "the peer opens and resets streams too fast"

    def after_idle_frames(self, count: int, *, now: float) -> str:
        is_flood = count and not self._idle_frames.spend(now=now, count=count)
        return "the peer floods us with frames that carry nothing" if is_flood else ""
