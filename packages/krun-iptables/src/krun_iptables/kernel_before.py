"""What of ours was in the kernel before a change, and how it comes back when the change fails."""

from __future__ import annotations

from krun_iptables import kernel_program, kernel_state, nft, nft_state
from krun_iptables import routes as routing
from krun_iptables.errors import Denied, Failure, Unreachable
from krun_iptables.kernel_program import LEGACY, NFT
from krun_iptables.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_iptables.backend import Backend
    from krun_iptables.kernel_hidden import Hidden
    from krun_iptables.kernel_state import Seen
    from krun_iptables.restore import State
    from krun_iptables.routes import Standing


class Before(Record):
    """What was there, by the tool that shows it."""

    saved: dict[Backend, str]  # what iptables-save said, of those that may hold something of ours
    refused: tuple[str, ...]  # why others would not say
    native: str  # our tables as nft lists them
    routes: Standing
    hidden: tuple[Hidden, ...] = ()  # what iptables does not show

    def state(self, backend: Backend) -> State:
        """What of ours one kind of iptables holds."""
        from krun_iptables import restore  # late, as in all of this: most starts find nothing of iptables'

        return restore.state(self.saved.get(backend, ""))

    def removal(self, backend: Backend) -> str:
        """The text that takes away what of ours one kind of iptables holds."""
        from krun_iptables import guard, restore

        return restore.remove(self.state(backend)) + guard.down(self.saved[backend])

    @property
    def holders(self) -> tuple[Backend, ...]:
        """The kinds of iptables that hold something of ours."""
        return tuple(one for one in self.saved if self.removal(one))

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing of ours."""
        return not (self.holders or self.native or self.hidden)


def look(seen: Seen) -> Before:
    """Ask every kind of iptables that may hold something, and nft.

    Raises:
        Denied, Unreachable: something of ours is there, and the program that could take it away is not.
    """
    saved, refused, hidden = _iptables(seen) if seen.may_hold_any else ({}, [], [])
    if hidden and not kernel_program.find("nft"):
        what = f"table {hidden[0].table} has rules of ours that iptables does not show"
        raise Unreachable(f"{what}, and there is no nft in PATH", hint="install nftables")
    found = Before(
        saved=saved,
        refused=tuple(refused),
        native=nft_state.listing(seen.native),
        routes=routing.Standing(),
        hidden=tuple(hidden),
    )
    marks = frozenset[int]().union(*(kernel_state.marks(found.state(one)) for one in saved))
    return found.but(routes=routing.standing(marks=marks))


def _iptables(seen: Seen) -> tuple[dict[Backend, str], list[str], list[Hidden]]:
    """What every kind of iptables says, why others say nothing, and what they hide. Raises as ``look``."""
    from krun_iptables import backend as backends

    saved: dict[Backend, str] = {}
    refused: list[str] = []
    hidden: list[Hidden] = []
    for family in seen.nft or ():
        if not any(one.kind != LEGACY for one in backends.found(family)):
            base = backends.base(family)
            raise Denied(f"{base} has rules of ours, and there is no {base}-nft in PATH", hint="install iptables")
    for family in seen.legacy:
        if not any(one.kind != NFT for one in backends.found(family)):
            base = backends.base(family)
            refused.append(f"{base} has legacy tables, and there is no {base}-legacy in PATH")
    for one in everywhere():
        if seen.may_hold(one):
            try:
                saved[one] = one.saved()
            except Denied as denied:
                refused.append(denied.message)
            else:
                hidden += _hidden(one, saved[one])
    return saved, refused, hidden


def _hidden(one: Backend, saved: str) -> tuple[Hidden, ...]:
    from krun_iptables.backend import HIDES

    if HIDES not in saved:
        return ()
    from krun_iptables import kernel_hidden  # late: few tables have rules that are not iptables' own

    return kernel_hidden.find(saved, family=one.family)


def everywhere() -> tuple[Backend, ...]:
    """All kinds of iptables, of both families."""
    from krun_iptables import backend as backends

    return (*backends.found(4), *backends.found(6))


def bring_back(before: Before) -> None:
    """Leave what of ours was there, whatever became of it. Raises a Failure when that fails."""
    from krun_iptables import kernel_undo  # late: it is seldom gone back

    for one in everywhere():
        try:
            now = one.saved()
        except Failure:
            continue  # it let nothing be changed either
        one.put(kernel_undo.text(before.saved.get(one, ""), now=now))
    if nft_state.listing(kernel_state.seen().native) != before.native:
        nft_state.put(nft.clear(nft.TABLES) + before.native)
    routing.bring_back(before.routes)
